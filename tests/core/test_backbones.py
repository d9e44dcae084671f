"""Both model families against diffusers' own pipelines, on tiny random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from PIL import Image
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchEmbed

from core.backbones.bundles import Bundle, load_bundle
from core.backbones.protocol import Conditioning
from core.backbones.qwen_image_21 import PatchEmbedAsProduct
from core.sampler import initial_noise, sample
from tests.tiny_bundles import write_tiny_bundle

HEIGHT, WIDTH, STEPS = 64, 96, 4
PICTURES_FIRST, TEXT_FIRST, EDIT_PLUS = "pictures-first", "text-first", "edit-plus"
# Float32 on one machine: the same sums in another order, through four steps and the VAE.
TOLERANCE = 2e-5


def portraits(seed: int, count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (80, 70, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module", params=[PICTURES_FIRST, TEXT_FIRST, EDIT_PLUS])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundle(kind, tmp_path_factory) -> Bundle:
    family = "qwen-image-edit-plus" if kind == EDIT_PLUS else "qwen-image-2.1"
    folder = tmp_path_factory.mktemp(kind)
    return load_bundle(write_tiny_bundle(folder, family=family, text_first=kind == TEXT_FIRST))


@pytest.fixture
def stock(bundle, kind, monkeypatch):
    """The stock pipeline on the same weights, its sizes set to the tiny ones: pictures (B, H, W, 3) in [0,
    1].
    """
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 64 * 64)

    def run(prompt: str, references: list[np.ndarray], seeds: list[int], **options):
        if kind != EDIT_PLUS:
            options["output_resolution"] = 64
        return bundle.pipeline(
            prompt=prompt,
            image=[Image.fromarray(picture) for picture in references] or None,
            height=HEIGHT,
            width=WIDTH,
            num_inference_steps=STEPS,
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            **options,
        ).images

    return run


def pictures(bundle: Bundle, prompt: str, references: list[np.ndarray], seeds: list[int], **options) -> np.ndarray:
    conditioning = bundle.backbone.encode_prompt(prompt, references)
    x0 = sample(bundle.backbone, conditioning, seeds=seeds, height=HEIGHT, width=WIDTH, steps=STEPS, **options)
    return bundle.backbone.decode(x0).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def test_same_pictures_as_the_stock_pipeline(bundle, stock, kind):
    # The stock edit pipeline makes one picture of a prompt at a time.
    seeds = [1] if kind == EDIT_PLUS else [1, 2]
    ours = pictures(bundle, "two people", portraits(0), seeds)
    assert ours.std() > 0.1
    np.testing.assert_allclose(ours, stock("two people", portraits(0), seeds), atol=TOLERANCE)


def test_same_pictures_as_the_stock_pipeline_under_guidance(bundle, stock):
    negative = bundle.backbone.encode_prompt("blurred", portraits(0))
    ours = pictures(bundle, "two people", portraits(0), [3], negative=negative, guidance=3.0)
    theirs = stock("two people", portraits(0), [3], negative_prompt="blurred", true_cfg_scale=3.0)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    assert np.abs(ours - pictures(bundle, "two people", portraits(0), [3])).max() > 0.05


def test_same_picture_as_the_stock_pipeline_without_references(bundle, stock, kind):
    if kind == EDIT_PLUS:
        pytest.skip("the stock edit pipeline does not run without a picture")
    ours = pictures(bundle, "a beach", [], [5])
    np.testing.assert_allclose(ours, stock("a beach", [], [5]), atol=TOLERANCE)


def test_same_noise_levels_as_the_stock_pipeline(bundle, stock):
    stock("two people", portraits(0), [1])
    torch.testing.assert_close(
        bundle.backbone.sigmas(STEPS, HEIGHT, WIDTH), bundle.pipeline.scheduler.sigmas, rtol=0, atol=0
    )


def test_encoding_a_picture_and_back_is_what_the_vae_does(bundle):
    backbone, vae = bundle.backbone, bundle.pipeline.vae
    pixels = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode(pixels)
    assert latents.shape[1:] == backbone.latent_shape(HEIGHT, WIDTH)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    with torch.no_grad():
        theirs = vae.decode((latents * std + mean).unsqueeze(2)).sample[:, :3, 0]
    torch.testing.assert_close(backbone.decode(latents).clamp(0, 1), (theirs + 1) / 2, rtol=0, atol=1e-5)


def test_encoding_and_decoding_carry_gradients(bundle):
    pixels = torch.rand(1, 3, HEIGHT, WIDTH, requires_grad=True)
    bundle.backbone.decode(bundle.backbone.encode(pixels)).square().mean().backward()
    assert pixels.grad.abs().max() > 0


def test_decoding_passes_gradients_beyond_the_range_of_pictures(bundle):
    latents = 30 * initial_noise([0], bundle.backbone.latent_shape(HEIGHT, WIDTH))
    latents.requires_grad_()
    decoded = bundle.backbone.decode(latents)
    outside = (decoded - 0.5).abs() > 0.5
    assert outside.any()
    decoded[outside].sum().backward()
    assert latents.grad.abs().max() > 0


# --- training on a shared prefix
# -------------------------------------------------------------------------------------


def targets(bundle: Bundle, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = bundle.backbone.latent_shape(HEIGHT, WIDTH)
    return initial_noise(range(batch), shape), torch.linspace(0.1, 0.9, batch)


def transformer_gradients(bundle: Bundle, loss: torch.Tensor) -> torch.Tensor:
    parameters = list(bundle.backbone.transformer.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in gradients if g is not None])


@pytest.fixture
def trainable(bundle):
    bundle.backbone.transformer.requires_grad_(True)
    yield bundle
    bundle.backbone.transformer.requires_grad_(False)


def test_one_prefix_serves_several_noise_levels(trainable):
    backbone = trainable.backbone
    conditioning = backbone.encode_prompt("two people", portraits(0))
    x_t, sigma = targets(trainable, 3)

    def one_by_one() -> torch.Tensor:
        rows = [backbone.velocity(backbone.prefill(conditioning), x_t[i : i + 1], sigma[i : i + 1]) for i in range(3)]
        return torch.cat(rows)

    shared = backbone.velocity(backbone.prefill(conditioning), x_t, sigma)
    separate = one_by_one()
    torch.testing.assert_close(shared, separate, rtol=0, atol=1e-5)
    ours = transformer_gradients(trainable, shared.square().mean())
    theirs = transformer_gradients(trainable, separate.square().mean())
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize("weight", [1.0, 0.4, 0.0])
def test_rows_of_a_batch_of_prompts_do_not_touch_each_other(bundle, weight):
    backbone = bundle.backbone
    long, short, other = (
        backbone.encode_prompt(prompt, portraits(i))
        for i, prompt in enumerate(["a man with a red hat and a woman on the beach", "two people", "waving"])
    )
    x_t, sigma = targets(bundle, 6)

    def velocities(rows: list[Conditioning], targets: slice) -> torch.Tensor:
        prefix = backbone.prefill(backbone.stack(rows))
        return backbone.velocity(prefix, x_t[targets], sigma[targets], reference_weight=weight)

    with torch.no_grad():
        together = velocities([long, short, other], slice(0, 6))
        torch.testing.assert_close(velocities([long], slice(0, 2)), together[:2], rtol=0, atol=1e-5)
        pair = velocities([long, short], slice(0, 4))
        torch.testing.assert_close(pair, together[:4], rtol=0, atol=1e-5)


def test_padding_is_never_attended_to(bundle):
    backbone = bundle.backbone
    batch = backbone.stack(
        [backbone.encode_prompt(p, portraits(0)) for p in ("two", "a man with a red hat and a woman")]
    )
    x_t, sigma = targets(bundle, 2)
    noise = torch.where(batch.valid[..., None], 0.0, torch.randn_like(batch.embeddings))
    without = batch.without_references
    spoiled = Conditioning(
        embeddings=batch.embeddings + noise,
        picture_slots=batch.picture_slots,
        reference_latents=batch.reference_latents,
        valid=batch.valid,
        without_references=without,
    )
    assert noise.abs().max() > 0
    with torch.no_grad():
        for weight in (1.0, 0.5):
            clean = backbone.velocity(backbone.prefill(batch), x_t, sigma, reference_weight=weight)
            other = backbone.velocity(backbone.prefill(spoiled), x_t, sigma, reference_weight=weight)
            torch.testing.assert_close(clean, other, rtol=0, atol=0)


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
def test_padding_of_a_single_prompt_is_left_out_of_its_prefix(bundle, kind, weight):
    backbone = bundle.backbone
    if kind == EDIT_PLUS:
        pytest.skip("this family has no prefix to leave anything out of")
    plain = backbone.encode_prompt("two people", portraits(0))
    tokens = len(plain.picture_slots)
    padded = plain.padded(tokens + 19, backbone.text_first)
    # in a batch padding is masked, row by row
    masked = backbone.prefill(backbone.stack([padded, padded]))
    alone = backbone.prefill(padded)
    assert alone.valid is None
    assert alone.keys[0].shape[1] == masked.keys[0].shape[1] - 19 == backbone.prefill(plain).keys[0].shape[1]
    x_t, sigma = targets(bundle, 2)
    with torch.no_grad():
        ours, expected = (backbone.velocity(prefix, x_t, sigma, reference_weight=weight) for prefix in (alone, masked))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_gradient_checkpointing_changes_nothing(trainable):
    backbone, transformer = trainable.backbone, trainable.backbone.transformer
    conditioning = backbone.encode_prompt("two people", portraits(0))
    x_t, sigma = targets(trainable, 2)

    def gradients() -> torch.Tensor:
        v_pred = backbone.velocity(backbone.prefill(conditioning), x_t, sigma, reference_weight=0.5)
        return transformer_gradients(trainable, v_pred.square().mean())

    plain = gradients()
    transformer.enable_gradient_checkpointing()
    try:
        torch.testing.assert_close(gradients(), plain, rtol=1e-4, atol=1e-7)
    finally:
        transformer.disable_gradient_checkpointing()


# --- bad input
# -------------------------------------------------------------------------------------------------------


def test_sizes_and_references_out_of_range_are_refused(bundle):
    backbone = bundle.backbone
    with pytest.raises(ValueError, match=r"height is 50 px.*multiples of"):
        backbone.latent_shape(50, 96)
    with pytest.raises(ValueError, match=r"5 reference pictures.*at most 4"):
        backbone.encode_prompt("five people", portraits(0, 5))
    with pytest.raises(ValueError, match="Reference 2 has the shape"):
        backbone.encode_prompt("two people", [*portraits(0, 1), np.zeros((8, 8), np.uint8)])
    with pytest.raises(ValueError, match="too narrow"):
        backbone.encode_prompt("one person", [np.zeros((2000, 8, 3), np.uint8)])
    with pytest.raises(ValueError, match="reserved"):
        backbone.encode_prompt("<|image_pad|>", portraits(0))
    with pytest.raises(ValueError, match="steps is 1"):
        backbone.sigmas(1, HEIGHT, WIDTH)


def test_rows_that_cannot_be_stacked_are_refused(bundle):
    backbone = bundle.backbone
    one, two = (backbone.encode_prompt("people", portraits(0, count)) for count in (1, 2))
    with pytest.raises(ValueError, match="same number and sizes of references"):
        backbone.stack([one, two])
    x_t, sigma = targets(bundle, 3)
    with pytest.raises(ValueError, match="3 targets cannot share 2 prefixes"):
        backbone.velocity(backbone.prefill(backbone.stack([one, one])), x_t, sigma)


def test_prompts_are_padded_to_a_stride_before_the_pictures(bundle, kind, monkeypatch):
    if kind != TEXT_FIRST:
        pytest.skip("only prompts before pictures are padded")
    plain = bundle.backbone.encode_prompt("two people", portraits(1))
    monkeypatch.setattr(bundle.backbone, "text_stride", 32)
    padded = bundle.backbone.encode_prompt("two people", portraits(1))
    assert int(padded.picture_slots.nonzero()[0]) % 32 == 0
    assert padded.embeddings.shape[1] > plain.embeddings.shape[1]
    assert torch.equal(padded.embeddings[padded.valid], plain.embeddings[0])
    assert torch.equal(padded.picture_slots[padded.valid[0]], plain.picture_slots)


def test_patches_embedded_as_a_product_equal_the_stock_convolution():
    config = Qwen3VLVisionConfig(hidden_size=24, patch_size=4, temporal_patch_size=2, num_heads=2, depth=1)
    stock = Qwen3VLVisionPatchEmbed(config)
    patches = torch.randn(5, 3 * 2 * 4 * 4)
    expected = stock(patches)
    stock.__class__ = PatchEmbedAsProduct
    assert torch.allclose(stock(patches), expected, atol=1e-6)
