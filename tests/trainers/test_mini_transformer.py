"""The mini transformer: batches, loss, the gaps it reports, continuation after a kill, the assembled bundle."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.backbones.bundles import load_bundle
from core.backbones.protocol import Conditioning
from core.backbones.qwen_image_21 import QwenImage21Backbone
from core.flow import velocity_target
from core.sampler import sample
from tests.trainers.mini_parts import SMALL, STAGES, THREE_LEVELS, config, run
from tests.trainers.mini_shards import PICTURE, SIDE, make_shard, write_shards
from trainers.mini.assemble import assemble
from trainers.mini.attention import speed_up_training
from trainers.mini.curriculum import Stage, TransformerConfig
from trainers.mini.examine import PROMPT_SIGMA, prompt_gaps, reference_gaps
from trainers.mini.feeding import Ahead
from trainers.mini.latents import LatentStore
from trainers.mini.models import (
    Offset,
    TransformerSize,
    build_transformer,
    grow,
    look_at_references,
)
from trainers.mini.transformer import flow_loss
from trainers.runs import step_generator

pytestmark = pytest.mark.usefixtures("small_references")


def test_loss_of_a_zero_model_is_the_energy_of_the_target(feeder):
    feeder, backbone = feeder
    batch = feeder.draw("group-2", 2, step_generator(0, 1))
    plain = config(face_weight=0.0)
    generator = step_generator(0, 2)
    loss = flow_loss(backbone, batch, THREE_LEVELS, plain, generator).loss  # proj_out starts at zero, so v_pred is zero
    generator = step_generator(0, 2)
    torch.rand(len(batch.target), 3, generator=generator)
    x0 = batch.target.repeat_interleave(3, dim=0)
    noise = torch.randn(x0.shape, generator=generator)
    assert loss.item() == pytest.approx(velocity_target(x0, noise).square().mean().item(), rel=1e-5)


def test_a_stage_can_weigh_the_clothes_and_draw_other_noise_levels(feeder):
    feeder, backbone = feeder
    batch = feeder.draw("group-2", 2, step_generator(0, 1))
    # faces from row 8 to 24, so clothes begin at row 28; the picture ends at 32
    assert batch.clothes[0, :, 0].max() == 0
    assert batch.clothes[0, :, 1].flatten().tolist() == pytest.approx(
        [0.2031, 0.2031, 0, 0, 0, 0, 0.2031, 0.2031], abs=1e-3
    )

    stage = replace(THREE_LEVELS, face_weight=0.0, clothes_weight=1e9, sigma_shift=9.0)
    found = flow_loss(backbone, batch, stage, config(), step_generator(0, 2))
    plain = flow_loss(backbone, batch, THREE_LEVELS, config(sigma_shift=9.0), step_generator(0, 2))
    assert torch.equal(found.sigma, plain.sigma)
    assert found.sigma.min() > 0.5
    generator = step_generator(0, 2)
    torch.rand(len(batch.target), 3, generator=generator)
    x0 = batch.target.repeat_interleave(3, dim=0)
    energy = velocity_target(x0, torch.randn(x0.shape, generator=generator)).square().mean(1)
    weight = batch.clothes.amax(1).repeat_interleave(3, dim=0)
    assert found.loss.item() == pytest.approx(float((energy * weight).sum() / weight.sum()), rel=1e-4)


def test_the_gap_of_prompts_counts_clothes_alone(feeder):
    feeder, backbone = feeder
    assert abs(prompt_gaps(backbone, feeder, STAGES[1], config())["words_group-2"]) < 1e-5

    class Reads:
        """Knows the clothes if it reads the right prompt; of the rest it knows nothing."""

        device = torch.device("cpu")

        def prefill(self, conditioning):
            return conditioning.embeddings

        def velocity(self, prefix, x_t, sigma):
            clothes = (batch.clothes.amax(1, keepdim=True) > 0) if torch.equal(prefix, own) else 0
            return (x_t - truth * clothes) / sigma.view(-1, 1, 1, 1)

    batch = feeder.first("group-2", 2)
    own, truth = batch.conditioning.embeddings, batch.target
    assert prompt_gaps(Reads(), feeder, THREE_LEVELS, config())["words_group-2"] == pytest.approx(1.0, abs=1e-3)
    assert 0.5 < PROMPT_SIGMA < 1


def test_gaps_are_zero_before_training_and_open_for_a_model_that_copies(feeder):
    feeder, backbone = feeder
    gaps = reference_gaps(backbone, feeder, STAGES[1], config())
    assert all(abs(gap) < 1e-5 for gap in gaps.values())

    class Copies:
        """Knows the picture if it sees the references, nothing otherwise."""

        device = torch.device("cpu")

        def prefill(self, conditioning):
            return conditioning.reference_latents[0]

        def velocity(self, prefix, x_t, sigma, *, reference_weight):
            right = torch.equal(prefix, own) and reference_weight == 1.0
            return (x_t - (truth if right else 0)) / sigma.view(-1, 1, 1, 1)

    batch = feeder.first("group-2", 2)
    own, truth = batch.conditioning.reference_latents[0], batch.target
    stage = Stage(name="s", steps=1, mix=("group-2",))
    opened = reference_gaps(Copies(), feeder, stage, config())
    assert all(gap == pytest.approx(1.0, abs=1e-3) for gap in opened.values())


def test_training_goes_through_its_stages_and_assembles_to_a_bundle(parts, tmp_path):
    folder = run(parts, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines if "loss" in line] == ["portrait"] * 2 + ["groups"] * 2
    assert any({"gap_group-2_0.5", "words_group-2"} <= set(line) for line in lines)
    assert (tmp_path / "run" / "held_out_000004.png").exists()

    assemble(parts / "vae", parts / "vlm", folder, tmp_path / "bundle", steps=2)
    bundle = load_bundle(tmp_path / "bundle")
    assert (bundle.card.height, bundle.card.width, bundle.card.text_first) == (*PICTURE, True)
    reference = np.zeros((SIDE, SIDE, 3), np.uint8)
    conditioning = bundle.backbone.encode_prompt("two people", [reference, reference])
    latents = sample(bundle.backbone, conditioning, seeds=[1], height=PICTURE[0], width=PICTURE[1], steps=2)
    assert bundle.backbone.decode(latents).shape == (1, 3, *PICTURE)


@pytest.mark.slow
def test_command_killed_and_resumed_equals_one_run(parts, tmp_path):
    run(parts, tmp_path / "whole")
    code = (
        "import sys; from pathlib import Path; import trainers.mini.assemble as a; import torch;"
        f"a.REFERENCE_SIDE = {SIDE}; torch.set_num_threads({torch.get_num_threads()});"
        "from tests.trainers.mini_parts import run;"
        "run(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(parts), str(tmp_path / "killed")]
    process = subprocess.Popen(command)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run(parts, tmp_path / "killed")
    first, second = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("whole", "killed"))
    assert second["step"] == 4
    assert all(torch.allclose(first["model"][k], second["model"][k], atol=1e-6) for k in first["model"])


def test_heads_that_look_at_references_find_the_counterpart_of_every_token():
    """Oracle: the references' latents laid out by hand where the pictures' faces stand."""
    found = {looks: _copied(looks) for looks in (True, False)}
    assert min(found[True]) > 0.4
    assert max(abs(value) for value in found[False]) < 0.2


def _copied(looks: bool) -> list[float]:
    """Correlation of what the second block writes with the references of the left and the right person."""
    torch.manual_seed(0)
    model = build_transformer(SMALL, 32)
    offsets = [Offset(frames, -1, columns) for frames, columns in ((21, -3), (9, 3))]
    written = model.transformer_blocks[1].attn.to_out[0].weight
    if looks:
        look_at_references(model, offsets)
    slots = torch.tensor([False] * 5 + [True] * 9 + [False] * 6 + [True] * 9 + [False] * 3)
    references = tuple(torch.randn(1, 64, 6, 6) for _ in range(2))
    conditioning = Conditioning(
        embeddings=torch.randn(1, len(slots), 32), picture_slots=slots, reference_latents=references
    )
    backbone = QwenImage21Backbone(SimpleNamespace(transformer=model), reference_side=96, text_first=False)
    seen = {}
    model.transformer_blocks[1].attn.register_forward_hook(lambda module, args, output: seen.update(output=output[0]))
    with torch.no_grad():
        backbone.velocity(backbone.prefill(conditioning), torch.randn(1, 64, 8, 12), torch.tensor([0.5]))
    grid = (seen["output"] @ written[:, :64].detach()).T.reshape(64, 8, 12)
    correlations = []
    for reference, columns in zip(references, (slice(0, 6), slice(6, 12)), strict=True):
        copied = grid[:, 0:6, columns]
        correlations.append(float((copied * reference[0]).sum() / (copied.norm() * reference.norm())))
    return correlations


def test_stages_and_steps_out_of_range_are_refused():
    with pytest.raises(ValueError, match="quartet"):
        Stage(name="x", steps=1, mix=("quartet-4",))
    with pytest.raises(ValueError, match="empty mix"):
        Stage(name="x", steps=1, mix=())
    with pytest.raises(ValueError, match="past the last of 4"):
        config().stage_at(4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_fast_attention_computes_what_the_stock_blocks_compute(feeder, precision):
    """Loss and every gradient, with padded texts and rows that see no references."""
    feeder, backbone = feeder
    batch = feeder.draw("group-2", 3, step_generator(0, 1))
    assert not bool(batch.conditioning.valid.all())
    transformer = backbone.transformer
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)  # starts at zero, and then no gradient passes it
    results = []
    for fast in (False, True):
        if fast:
            speed_up_training(transformer, compiled=False)
        transformer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
            loss = flow_loss(backbone, batch, THREE_LEVELS, config(reference_dropout=0.5), step_generator(0, 2)).loss
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.flatten() for p in transformer.parameters()])))
    (stock_loss, stock), (fast_loss, fast) = results
    tolerance = 1e-5 if precision is torch.float32 else 2e-2
    assert fast_loss == pytest.approx(stock_loss, rel=tolerance)
    assert float((fast - stock).norm() / stock.norm()) < 5 * tolerance


def test_a_stage_can_teach_to_read(parts, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.mini.reading_term.COVERED", 0.1)  # little is seen of clothes in these pictures
    stage = Stage(name="words", steps=3, mix=("group-2",), batch=4, levels=2, start_reading=True, reading_weight=0.1)
    after = Stage(name="after", steps=1, mix=("group-2",), batch=2, levels=2)
    settings = TransformerConfig(stages=(stage, after), size=SMALL, warmup=1, evaluate_every=100, evaluated=2)
    run(parts, tmp_path / "run", settings=settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    costs = [line["reading"] for line in lines if "loss" in line and "reading" in line]
    assert costs
    assert all(0 < cost < 40 for cost in costs)


def test_a_run_can_go_on_from_the_weights_of_another(parts, tmp_path):
    first = run(parts, tmp_path / "first")
    second = run(parts, tmp_path / "second", start_from=first, learning_rate=1e-12)
    weights = [load_file(folder / "diffusion_pytorch_model.safetensors") for folder in (first, second)]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[0])


def test_a_grown_transformer_computes_the_same_at_first(feeder, parts, tmp_path):
    feeder, backbone = feeder
    small = backbone.transformer
    torch.nn.init.normal_(small.proj_out.weight, std=0.1)
    batch = feeder.draw("group-2", 2, step_generator(0, 1))
    losses = []
    large = build_transformer(replace(SMALL, layers=6), 64)
    for model in (small, large):
        if model is large:
            grow(small, large)
            backbone.pipeline.register_modules(transformer=large)
        losses.append(flow_loss(backbone, batch, THREE_LEVELS, config(), step_generator(0, 2)).loss)
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5)
    losses[1].backward()
    for block in large.transformer_blocks:  # what adds nothing yet learns to
        assert block.attn.to_out[0].weight.grad.abs().max() > 0
        assert block.img_mlp.out.weight.grad.abs().max() > 0

    small.save_pretrained(tmp_path / "small")
    grown = TransformerConfig(
        stages=STAGES, size=replace(SMALL, layers=4), warmup=1, evaluate_every=100, evaluated=2, learning_rate=1e-12
    )
    folder = run(parts, tmp_path / "run", settings=grown, start_from=tmp_path / "small")
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert torch.allclose(
        weights["transformer_blocks.2.attn.to_q.weight"], small.transformer_blocks[2].attn.to_q.weight
    )
    with pytest.raises(ValueError, match="has 6 blocks, the wanted one 3"):
        grow(large, small)
    with pytest.raises(ValueError, match="other sizes"):
        grow(small, build_transformer(TransformerSize(hidden_size=256, layers=4), 64))


def test_shards_finished_meanwhile_are_taken_in(parts, tmp_path):
    pictures = tmp_path / "pictures"
    write_shards(pictures)
    stage = Stage(name="groups", steps=2, mix=("group-2",), batch=2, levels=2, refresh=1)
    settings = TransformerConfig(stages=(stage,), size=SMALL, warmup=1, evaluate_every=1, evaluated=2)
    found = []

    def load(self, paths, *rest, **words):
        found.append([path.name for path in paths])
        if found[-1] == ["train-0000"]:
            make_shard(np.random.default_rng(5), 6).save(pictures / "train-0001")
        return original(self, paths, *rest, **words)

    original = LatentStore.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LatentStore, "load", load)
        run(parts, tmp_path / "run", settings=settings, pictures=pictures)
    assert [names for names in found if names[0].startswith("train")] == [["train-0000"], ["train-0000", "train-0001"]]


def test_batches_drawn_ahead_are_those_of_their_steps(feeder):
    feeder, _ = feeder
    ahead = Ahead(feeder, STAGES[1], seed=3, device=torch.device("cpu"))
    for step in (5, 6, 7, 2):  # the last is none that was drawn ahead
        kind, batch, generator = ahead.take(step)
        own = step_generator(3, step)
        assert kind == STAGES[1].mix[int(torch.randint(2, (1,), generator=own))]
        assert torch.equal(batch.target, feeder.draw(kind, STAGES[1].batch, own).target)
        assert torch.equal(generator.get_state(), own.get_state())
    ahead.stop()
