"""The preference round: against separate forward passes, its pinned trajectory, kill and resume, early stops."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.adapters import WEIGHTS_FILE, AdapterError, read_adapter
from core.backbones.bundles import Bundle, load_bundle
from core.preference import PreferenceLoss
from tests.tiny_bundles import write_tiny_bundle
from tests.trainers.preference_pairs import noise_pairs
from trainers.bench.dpo import straightforward_gradients
from trainers.config import load_config
from trainers.dpo import DpoConfig, TrainingPair, draw_pair, main, step_gradients, train
from trainers.encodings import Encodings
from trainers.policies import Policies, gradient_checkpointing, policy_adapters
from trainers.runs import RunError
from trainers.training_pairs import read_pairs, write_pairs
from trainers.watch import StepOutcome, Watch

FAMILIES = ("qwen-image-2.1", "qwen-image-edit-plus")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(folder) -> Bundle:
    return load_bundle(folder)


def config(**changes) -> DpoConfig:
    values = {"steps": 4, "batch": 4, "rank": 4, "learning_rate": 1e-3, "beta": 200.0, "warmup": 2}
    return DpoConfig(**{**values, "watched_steps": 0, "precision": "float32", **changes})


def weights_of(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / WEIGHTS_FILE)


def assert_same_weights(first: Path, second: Path, **tolerance: float) -> None:
    ours, theirs = weights_of(first), weights_of(second)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], **({"rtol": 0, "atol": 0} | tolerance))


# --- one step


def gradients(bundle, pairs, tmp_path, settings, *, ours: bool) -> dict[str, torch.Tensor]:
    with (
        policy_adapters(bundle, rank=4, alpha=None, seed=0, parent=None),
        gradient_checkpointing(bundle.backbone.transformer, settings.gradient_checkpointing),
    ):
        named = {n: p for n, p in bundle.backbone.transformer.named_parameters() if p.requires_grad}
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # away from the start, where the policy is the base and half of the gradients vanish
            for parameter in named.values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        encodings = Encodings(tmp_path, bundle.backbone, bundle.revision)
        encoded = [encodings.add_pair(pair) for pair in pairs]
        drawn = [draw_pair(position, encoded, encodings, settings) for position in range(len(pairs))]
        if ours:
            policies = Policies(
                bundle.backbone,
                encodings,
                None,
                micro_batch=settings.micro_batch,
                kept_prefixes=1,
                bfloat16=settings.precision == "bfloat16",
            )
            step_gradients(drawn, policies, list(named.values()), settings)
        else:
            by_latents = {keys.chosen: pair for keys, pair in zip(encoded, pairs, strict=True)}
            for noisy in drawn:
                (key,) = [k.chosen for k in encoded if torch.equal(encodings.picture(k.chosen).float(), noisy.chosen)]
                straightforward_gradients(bundle, by_latents[key], noisy, settings, len(drawn))
        return {name: p.grad.clone() for name, p in named.items() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_separate_forward_passes(tmp_path, family):
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle", family=family))
    pairs = noise_pairs(2, 2, people=1 if family == "qwen-image-edit-plus" else 2)
    settings = config(gradient_clip=1e9)
    ours = gradients(bundle, pairs, tmp_path / "ours", settings, ours=True)
    theirs = gradients(bundle, pairs, tmp_path / "theirs", settings, ours=False)
    assert max(gradient.abs().max() for gradient in theirs.values()) > 1e-2
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=2e-3, atol=2e-4)


def test_checkpointed_activations_change_no_gradient(bundle, tmp_path):
    pairs = noise_pairs(1, 2)
    kept = gradients(bundle, pairs, tmp_path, config(), ours=True)
    computed_again = gradients(bundle, pairs, tmp_path, config(gradient_checkpointing=True), ours=True)
    assert not bundle.backbone.transformer.gradient_checkpointing
    for name, gradient in kept.items():
        torch.testing.assert_close(gradient, computed_again[name])


def test_bfloat16_points_the_same_way(bundle, tmp_path):
    pairs = noise_pairs(1, 2)
    exact = gradients(bundle, pairs, tmp_path, config(), ours=True)
    rough = gradients(bundle, pairs, tmp_path, config(precision="bfloat16"), ours=True)
    flat, rough_flat = (torch.cat([g.flatten() for g in grads.values()]) for grads in (exact, rough))
    assert not torch.equal(flat, rough_flat)
    assert torch.cosine_similarity(flat, rough_flat, dim=0) > 0.98


def test_micro_batches_of_four_equal_four_of_one(bundle, tmp_path):
    pairs = noise_pairs(1, 4)
    together = train(config(micro_batch=4), pairs, bundle, tmp_path / "4")
    alone = train(config(micro_batch=1), pairs, bundle, tmp_path / "1")
    assert_same_weights(together.adapter, alone.adapter, rtol=1e-3, atol=2e-5)


def test_a_trajectory_of_twenty_steps_is_what_it_was(bundle, tmp_path):
    """Pinned: whatever moves these numbers changes what rounds learn."""
    losses = []
    result = train(
        config(steps=20),
        noise_pairs(3, 2),
        bundle,
        tmp_path,
        on_step=lambda report: losses.append(report.metrics["loss"]),
    )
    assert losses[0] == pytest.approx(math.log(2))
    assert [losses[4], losses[9], losses[19]] == pytest.approx([0.6858, 0.6458, 0.7708], rel=2e-3)
    assert read_adapter(result.adapter)[0].training["steps"] == 20


# --- the policies


def test_the_policy_starts_at_its_parent_which_is_the_reference(bundle, tmp_path):
    pairs = noise_pairs(2, 1)
    first = train(config(steps=6, batch=2, learning_rate=1e-2), pairs, bundle, tmp_path / "first")
    reports = []
    second = train(
        config(steps=1, batch=2), pairs, bundle, tmp_path / "second", parent=first.adapter, on_step=reports.append
    )
    assert reports[0].metrics["loss"] == pytest.approx(math.log(2))
    assert (reports[0].metrics["d_w"], reports[0].metrics["d_l"]) == (0.0, 0.0)
    card, weights, _ = read_adapter(second.adapter)
    assert card.parent == read_adapter(first.adapter)[0].digest
    moved = [(weight - weights_of(first.adapter)[name]).abs().max() for name, weight in weights.items()]
    assert 0 < max(moved) < 2e-3  # one step of at most the learning rate from the parent, not from zero


def test_a_parent_of_another_rank_is_refused(bundle, tmp_path):
    pairs = noise_pairs(1, 1)
    first = train(config(steps=1, batch=1), pairs, bundle, tmp_path / "first")
    with pytest.raises(AdapterError, match=r"has r 4, this round asks for 8"):
        train(config(steps=1, batch=1, rank=8), pairs, bundle, tmp_path / "second", parent=first.adapter)
    assert bundle.adapters.loaded == ()


def test_the_bundle_is_as_before(bundle, tmp_path):
    pairs = noise_pairs(1, 1)
    used = train(config(steps=2, batch=1, learning_rate=1e-2), pairs, bundle, tmp_path / "used").adapter
    assert not hasattr(bundle.backbone.transformer, "peft_config")
    bundle.adapters.swap(used, scale=0.5)
    backbone = bundle.backbone
    conditioning = backbone.encode_prompt(pairs[0].prompt, pairs[0].references)

    def velocity() -> torch.Tensor:
        x_t = torch.ones(1, *backbone.latent_shape(64, 96))
        with torch.no_grad():
            return backbone.velocity(backbone.prefill(conditioning), x_t, torch.tensor([0.5]))

    def abort(report) -> None:
        raise InterruptedError

    before = velocity()
    with pytest.raises(InterruptedError):
        train(config(batch=1), pairs, bundle, tmp_path / "aborted", parent=used, on_step=abort)
    assert torch.equal(velocity(), before)
    assert bundle.adapters.active.scale == 0.5
    assert not any(parameter.requires_grad for parameter in backbone.transformer.parameters())


# --- the run


def test_the_card_says_how_the_adapter_came_to_be(bundle, tmp_path):
    pairs = noise_pairs(1, 2)
    result = train(config(name="Round 7"), pairs, bundle, tmp_path)
    card, _, _ = read_adapter(result.adapter)
    assert (card.name, card.base, card.base_revision, card.parent) == ("Round 7", "tiny", bundle.revision, None)
    assert card.training["pairs"] == ["0-0", "0-1"]
    assert card.training["config"]["beta"] == 200.0
    assert card.training["metrics"] == result.metrics
    assert card.training["precision"] == "float32"
    assert card.training["versions"]["torch"] == torch.__version__
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert {"loss", "d_w", "d_l", "implicit_accuracy", "gradient_norm", "learning_rate"} <= log[0].keys()


def test_a_stopped_run_goes_on_where_it_was(bundle, tmp_path):
    pairs = noise_pairs(2, 2)
    whole = train(config(), pairs, bundle, tmp_path / "whole")
    answers = iter([False] * len(pairs) + [True])
    stopped = train(config(), pairs, bundle, tmp_path / "stopped", should_stop=lambda: next(answers))
    assert (stopped.steps, stopped.stopped is not None, stopped.adapter.exists()) == (1, True, False)
    reports = []
    resumed = train(config(), pairs, bundle, tmp_path / "stopped", on_step=reports.append)
    assert [report.step for report in reports] == [2, 3, 4]
    assert (resumed.steps, resumed.stopped) == (4, None)
    assert_same_weights(whole.adapter, resumed.adapter)
    again = train(config(), pairs, bundle, tmp_path / "stopped")
    assert again.metrics == resumed.metrics
    assert_same_weights(whole.adapter, again.adapter)


def test_a_run_stops_between_two_pairs_that_are_encoded(bundle, tmp_path):
    first, second = noise_pairs(2, 1)
    answers = iter([False, True])
    stopped = train(config(), [first, second], bundle, tmp_path / "run", should_stop=lambda: next(answers))
    assert (stopped.steps, stopped.stopped is not None) == (0, True)
    alone = Encodings(tmp_path / "alone", bundle.backbone, bundle.revision)
    alone.add_pair(first)
    encoded = {path.name for path in (tmp_path / "run" / "cache").iterdir()}
    assert encoded == {path.name for path in (tmp_path / "alone").iterdir()}
    assert train(config(), [first, second], bundle, tmp_path / "run").steps == 4


def test_other_pairs_settings_or_parents_cannot_go_on_in_a_run(bundle, tmp_path):
    pairs = noise_pairs(1, 2)
    train(config(steps=1), pairs, bundle, tmp_path)
    with pytest.raises(RunError, match="other settings"):
        train(config(steps=2), pairs, bundle, tmp_path)
    with pytest.raises(RunError, match="pairs"):
        train(config(steps=1), pairs[:1], bundle, tmp_path)


def test_a_damaged_checkpoint_is_named_and_a_deleted_one_starts_again(bundle, tmp_path):
    pairs = noise_pairs(1, 1)
    whole = weights_of(train(config(batch=1), pairs, bundle, tmp_path).adapter)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"checkpoint\.pt is damaged"):
        train(config(batch=1), pairs, bundle, tmp_path)
    checkpoint.unlink()
    result = train(config(batch=1), pairs, bundle, tmp_path)
    assert all(torch.equal(weight, whole[name]) for name, weight in weights_of(result.adapter).items())


def test_refusals(bundle, tmp_path):
    with pytest.raises(ValueError, match="no pairs"):
        train(config(), [], bundle, tmp_path)
    with pytest.raises(ValueError, match="batch is 0"):
        config(batch=0)
    with pytest.raises(ValueError, match="learning_rate is nan"):
        config(learning_rate=math.nan)
    with pytest.raises(ValueError, match="precision is 'half'"):
        config(precision="half")
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="need one size"):
        TrainingPair("7", "", (), picture, picture[:32])


# --- as commands


def command(folder: Path, pairs: Path, out: Path, settings: Path, *launcher: str) -> list[str]:
    options = ["--bundle", folder, "--pairs", pairs, "--out", out, "--config", settings, "--device", "cpu"]
    return [*(launcher or (sys.executable,)), "-m", "trainers.dpo", *map(str, options)]


@pytest.fixture
def prepared(tmp_path) -> tuple[Path, Path]:
    write_pairs(tmp_path / "pairs", noise_pairs(2, 2))
    (tmp_path / "dpo.toml").write_text(
        'steps = 12\nbatch = 4\nrank = 4\nbeta = 200.0\nprecision = "float32"\n'
        "watched_steps = 0\ncheckpoint_minutes = 0\n"
    )
    return tmp_path / "pairs", tmp_path / "dpo.toml"


def test_a_killed_command_goes_on_and_ends_with_the_same_weights(folder, bundle, prepared, tmp_path, monkeypatch):
    settings = load_config(prepared[1], DpoConfig)
    whole = train(settings, read_pairs(prepared[0]), bundle, tmp_path / "whole")
    arguments = command(folder, prepared[0], tmp_path / "killed", prepared[1])
    process = subprocess.Popen(arguments)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < done < settings.steps
    monkeypatch.setattr(sys, "argv", arguments[2:])
    main()
    assert_same_weights(whole.adapter, tmp_path / "killed" / "adapter", rtol=1e-4, atol=1e-6)


def test_two_processes_equal_one(folder, bundle, prepared, tmp_path):
    one = train(load_config(prepared[1], DpoConfig), read_pairs(prepared[0]), bundle, tmp_path / "one")
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    launcher += ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    subprocess.run(command(folder, prepared[0], tmp_path / "two", prepared[1], *launcher), check=True, timeout=300)
    assert_same_weights(one.adapter, tmp_path / "two" / "adapter", rtol=1e-3, atol=2e-5)


def test_the_command_says_what_is_wrong(folder, prepared, tmp_path, monkeypatch):
    for arguments, message in (
        (command(folder, tmp_path, tmp_path / "run", prepared[1]), "pairs.jsonl is missing"),
        (command(tmp_path, prepared[0], tmp_path / "run", prepared[1]), "There is no bundle"),
    ):
        monkeypatch.setattr(sys, "argv", arguments[2:])
        with pytest.raises(SystemExit, match=message):
            main()


def test_pairs_survive_their_folder(tmp_path):
    pairs = noise_pairs(2, 2)
    assert write_pairs(tmp_path, pairs) == 4
    for before, after in zip(pairs, read_pairs(tmp_path), strict=True):
        assert (before.id, before.prompt) == (after.id, after.prompt)
        assert np.array_equal(np.stack(before.references), np.stack(after.references))
        assert np.array_equal(before.chosen, after.chosen)
        assert np.array_equal(before.rejected, after.rejected)
    (tmp_path / "pairs.jsonl").write_text('{"id": "1", "prompt": ""}\n')
    with pytest.raises(ValueError, match=r"Line 1 of .* is no pair"):
        read_pairs(tmp_path)


# --- when to stop


def outcome(d_w: list[float], d_l: list[float]) -> StepOutcome:
    sides = torch.tensor(d_w), torch.tensor(d_l)
    return StepOutcome(PreferenceLoss(torch.tensor(0.5), sides[1] - sides[0], *sides), 1.0)


def watched(*outcomes: StepOutcome, steps: int = 3, warmup: int = 1) -> Watch:
    watch = Watch(steps, warmup)
    for one in outcomes:
        watch.add(one)
    return watch


def test_a_round_stops_when_chosen_pictures_get_worse_all_the_time():
    worse = outcome([0.2, -0.1], [0.5, 0.5])  # mean d_w 0.05
    better = outcome([-0.2, 0.1], [0.5, 0.5])
    assert watched(better, worse, worse).reason_to_stop is None  # too early
    assert "d_w was above 0 in each of the last 3 steps" in watched(better, worse, worse, worse).reason_to_stop
    assert watched(worse, worse, better, worse).reason_to_stop is None
    assert watched(worse, worse, worse, worse, steps=0).reason_to_stop is None


def test_a_round_stops_when_most_wins_are_the_rejected_sides_alone():
    half = outcome([-0.5, 0.1], [0.5, 0.5])  # two wins, one of them with a worse chosen side
    most = outcome([-0.5, 0.1, 0.1], [0.5, 0.5, 0.5])
    assert watched(half, half, half, half).reason_to_stop is None
    assert "60% of the pairs won" not in str(watched(half, half, half, half).reason_to_stop)
    assert watched(half, half, most, half).reason_to_stop.startswith("57% of the pairs won")  # 4 of 7


def test_a_harmful_round_ends_early_and_says_why(bundle, tmp_path):
    harmful = config(steps=30, learning_rate=0.3, warmup=0, watched_steps=3)
    result = train(harmful, noise_pairs(1, 4), bundle, tmp_path)
    assert "d_w was above 0" in result.stopped_early
    assert result.steps < 30
    assert read_adapter(result.adapter)[0].training["stopped_early"] == result.stopped_early
    again = train(harmful, noise_pairs(1, 4), bundle, tmp_path)
    assert (again.steps, again.stopped_early) == (result.steps, result.stopped_early)
