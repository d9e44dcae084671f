"""The denoising loop on tiny random weights of both families."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.protocol import Conditioning
from core.flow import add_noise
from core.sampler import Cancelled, Start, StepReport, initial_noise, sample
from core.schedule import IdentitySchedule
from tests.tiny_bundles import write_tiny_bundle

SIZE = {"height": 64, "width": 64}


@pytest.fixture(scope="module", params=["pictures-first", "text-first", "edit-plus"])
def bundle(request, tmp_path_factory) -> Bundle:
    family = "qwen-image-edit-plus" if request.param == "edit-plus" else "qwen-image-2.1"
    folder = tmp_path_factory.mktemp(request.param)
    return load_bundle(write_tiny_bundle(folder, family=family, text_first=request.param == "text-first"))


def encode(bundle: Bundle, seed: int, prompt: str = "two people") -> Conditioning:
    rng = np.random.default_rng(seed)
    references = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(2)]
    return bundle.backbone.encode_prompt(prompt, references)


def run(bundle: Bundle, conditioning: Conditioning, seeds=(7,), steps: int = 4, **options) -> torch.Tensor:
    return sample(bundle.backbone, conditioning, seeds=seeds, steps=steps, **SIZE, **options)


def test_a_seed_means_the_same_picture_in_every_batch(bundle):
    conditioning = encode(bundle, 0)
    alone = run(bundle, conditioning, seeds=[3])
    among_others = run(bundle, conditioning, seeds=[1, 2, 3, 4])
    torch.testing.assert_close(alone[0], among_others[2], rtol=0, atol=2e-5)
    assert (among_others[0] - among_others[2]).abs().max() > 0.1


def test_runs_are_reproducible(bundle):
    conditioning = encode(bundle, 0)
    assert torch.equal(run(bundle, conditioning), run(bundle, conditioning))


def test_weight_one_is_the_stock_model_whatever_the_schedule_is_called(bundle):
    conditioning = encode(bundle, 0)
    stock = run(bundle, conditioning)
    always_open = IdentitySchedule.gate(0.0, 1.0)
    assert torch.equal(run(bundle, conditioning, schedule=always_open), stock)
    assert torch.equal(run(bundle, conditioning, schedule=IdentitySchedule.off(), strength=0.0), stock)


def test_at_weight_zero_swapping_the_references_changes_nothing(bundle):
    off = IdentitySchedule.off()
    first, second = (run(bundle, encode(bundle, seed), schedule=off) for seed in (0, 1))
    assert torch.equal(first, second)
    with_references = [run(bundle, encode(bundle, seed)) for seed in (0, 1)]
    assert (with_references[0] - with_references[1]).abs().max() > 0.1
    other_prompt = run(bundle, encode(bundle, 0, "an old man on the beach"), schedule=off)
    assert (other_prompt - first).abs().max() > 0.05


def test_weight_zero_is_the_model_without_references(bundle):
    if bundle.card.text_first:
        pytest.skip("text first: the end of the template is left out with the references, see the module's text")
    without = bundle.backbone.encode_prompt("two people", [])
    weightless = run(bundle, encode(bundle, 0), schedule=IdentitySchedule.off())
    torch.testing.assert_close(weightless, run(bundle, without), rtol=0, atol=2e-5)


def test_references_act_inside_the_gate_only(bundle):
    """Outside the gate the trajectories of two sets of references stay together, inside they part."""
    previews: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    weights: list[float] = []
    gate = IdentitySchedule.gate(0.3, 0.7)
    for seed in previews:
        weights.clear()

        def keep(report: StepReport, seed: int = seed) -> None:
            previews[seed].append(report.preview())
            weights.append(report.reference_weight)

        run(bundle, encode(bundle, seed), steps=6, schedule=gate, on_step=keep)
    assert 0 < weights.index(1.0) < len(weights)
    assert set(weights) == {0.0, 1.0}
    for step, (one, other) in enumerate(zip(*previews.values(), strict=True)):
        parted = (one - other).abs().max() > 1e-6
        assert parted == (step >= weights.index(1.0))


def test_identity_guidance_leads_away_from_the_picture_without_references(bundle):
    """Computed here from the protocol's calls alone, with guidance towards the prompt beside it."""
    backbone, conditioning, negative = bundle.backbone, encode(bundle, 0), encode(bundle, 0, "")
    prefix, prefix_negative = backbone.prefill(conditioning), backbone.prefill(negative)
    x, sigmas = initial_noise([3], backbone.latent_shape(64, 64)), backbone.sigmas(4, 64, 64)
    with torch.no_grad():
        for sigma, sigma_next in itertools.pairwise(sigmas):
            row = sigma[None]
            v, v_without = (backbone.velocity(prefix, x, row, reference_weight=w) for w in (1.0, 0.0))
            v = backbone.guide(v, backbone.velocity(prefix_negative, x, row), 2.0) + 1.5 * (v - v_without)
            x = x + (sigma_next - sigma) * v
    guided = run(bundle, conditioning, seeds=[3], identity_guidance=2.5, negative=negative, guidance=2.0)
    torch.testing.assert_close(guided, x, rtol=0, atol=2e-5)
    assert (guided - run(bundle, conditioning, seeds=[3], negative=negative, guidance=2.0)).abs().max() > 0.05


def test_guidance_towards_the_prompt_ends_at_its_noise_level(bundle):
    """Computed here from the protocol's calls alone: guided in the first two of four steps."""
    backbone, conditioning, negative = bundle.backbone, encode(bundle, 0), encode(bundle, 0, "")
    prefix, prefix_negative = backbone.prefill(conditioning), backbone.prefill(negative)
    x, sigmas = initial_noise([3], backbone.latent_shape(64, 64)), backbone.sigmas(4, 64, 64)
    with torch.no_grad():
        for step, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
            v = backbone.velocity(prefix, x, sigma[None])
            if step < 2:
                v = backbone.guide(v, backbone.velocity(prefix_negative, x, sigma[None]), 3.0)
            x = x + (sigma_next - sigma) * v
    guide = {"seeds": [3], "negative": negative, "guidance": 3.0}
    above = run(bundle, conditioning, **guide, guidance_above=sigmas[1:3].mean().item())
    torch.testing.assert_close(above, x, rtol=0, atol=2e-5)
    assert (above - run(bundle, conditioning, **guide)).abs().max() > 1e-3


def test_identity_guidance_is_nothing_where_the_schedule_shuts_the_references_out(bundle):
    off = IdentitySchedule.off()
    plain = run(bundle, encode(bundle, 0), schedule=off)
    torch.testing.assert_close(
        run(bundle, encode(bundle, 1), schedule=off, identity_guidance=4.0), plain, rtol=0, atol=2e-5
    )


def test_strength_moves_smoothly_from_the_stock_model_to_the_schedule(bundle):
    conditioning = encode(bundle, 0)
    off = IdentitySchedule.off()
    results = [run(bundle, conditioning, schedule=off, strength=s) for s in (0.0, 1e-4, 1 - 1e-4, 1.0)]
    assert (results[0] - results[1]).abs().max() < 0.02
    assert (results[2] - results[3]).abs().max() < 0.02
    assert (results[0] - results[3]).abs().max() > 0.1


def test_every_step_is_reported_with_a_preview(bundle):
    reports: list[StepReport] = []
    x0 = run(bundle, encode(bundle, 0), seeds=[1, 2], on_step=reports.append)
    assert [(r.step, r.total) for r in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    sigmas = [r.sigma for r in reports]
    assert sigmas == sorted(sigmas, reverse=True)
    assert sigmas[-1] == 0
    preview = reports[-1].preview()
    assert preview.shape == (2, 3, 64, 64)
    torch.testing.assert_close(preview, bundle.backbone.decode(x0).clamp(0, 1), rtol=0, atol=2e-5)


def test_cancelling_stops_before_the_next_step(bundle):
    done: list[int] = []
    with pytest.raises(Cancelled, match="after step 2 of 4"):
        run(bundle, encode(bundle, 0), on_step=lambda r: done.append(r.step), cancel=lambda: len(done) == 2)
    assert done == [1, 2]


def test_noise_is_what_the_stock_pipelines_draw():
    noise = initial_noise([5, 6], (4, 2, 3))
    assert torch.equal(noise[1:], torch.randn(1, 1, 4, 2, 3, generator=torch.Generator().manual_seed(6))[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "No seed"),
        ({"guidance": 0.5}, "guidance is 0.5"),
        ({"identity_guidance": 0.5}, "identity_guidance is 0.5"),
        ({"guidance": 2.0}, "needs a negative prompt"),
        ({"strength": 1.5}, "strength is 1.5"),
        ({"steps": 1}, "steps is 1"),
    ],
)
def test_arguments_out_of_range_are_refused(bundle, options, message):
    with pytest.raises(ValueError, match=message):
        run(bundle, encode(bundle, 0), **options)


def test_damaged_weights_are_noticed(bundle):
    weight = bundle.backbone.transformer.proj_out.weight
    saved = weight.data.clone()
    conditioning = encode(bundle, 0)
    weight.data[0, 0] = float("nan")
    try:
        with pytest.raises(FloatingPointError, match="not finite"):
            run(bundle, conditioning)
    finally:
        weight.data.copy_(saved)


def test_a_loop_may_begin_at_noised_latents(bundle):
    conditioning = encode(bundle, 0)
    latents = run(bundle, conditioning, seeds=[1, 2])
    assert torch.equal(
        run(bundle, conditioning, seeds=[3, 4], start=Start(latents, 1.0)), run(bundle, conditioning, seeds=[3, 4])
    )

    began: list[StepReport] = []
    again = run(bundle, conditioning, seeds=[3, 4], start=Start(latents, 0.5), on_step=began.append)
    grid = bundle.backbone.sigmas(4, **SIZE)
    assert [report.sigma for report in began] == pytest.approx((0.5 * grid[1:]).tolist())
    # by hand: noise the latents, then the same Euler steps
    prefix = bundle.backbone.prefill(conditioning)
    x_t = add_noise(latents, initial_noise([3, 4], latents.shape[1:]), 0.5)
    with torch.no_grad():
        for sigma, sigma_next in itertools.pairwise((0.5 * grid).tolist()):
            v_pred = bundle.backbone.velocity(prefix, x_t, torch.full((2,), sigma))
            x_t = x_t + (sigma_next - sigma) * v_pred
    torch.testing.assert_close(again, x_t, rtol=0, atol=1e-5)


def test_latents_to_start_from_must_fit(bundle):
    conditioning = encode(bundle, 0)
    latents = run(bundle, conditioning, seeds=[1])
    with pytest.raises(ValueError, match="2 pictures of 64 x 64 px"):
        run(bundle, conditioning, seeds=[1, 2], start=Start(latents, 0.5))
