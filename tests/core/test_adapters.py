"""LoRA adapters on a tiny transformer: the base is the base, and damage never reaches it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.adapters import (
    CARD_FILE,
    WEIGHTS_FILE,
    AdapterCard,
    AdapterError,
    Adapters,
    adapter_in_use,
    add_adapter,
    save_adapter,
    write_adapter,
)
from core.backbones.bundles import Bundle, load_bundle
from tests.tiny_adapters import set_updates
from tests.tiny_bundles import write_tiny_bundle


@pytest.fixture(scope="module", params=["qwen-image-2.1", "qwen-image-edit-plus"])
def folder(request, tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), family=request.param)


@pytest.fixture(scope="module")
def loaded(folder) -> Bundle:
    return load_bundle(folder)


@pytest.fixture
def bundle(loaded) -> Iterator[Bundle]:
    """The bundle without any adapter, however the test leaves it."""
    yield loaded
    for digest in loaded.adapters.loaded:
        loaded.adapters.unload(digest)
    if getattr(loaded.backbone.transformer, "peft_config", None):
        loaded.backbone.transformer.unload_lora()


def velocity(bundle: Bundle) -> torch.Tensor:
    backbone = bundle.backbone
    conditioning = backbone.encode_prompt("two people", [np.zeros((64, 64, 3), np.uint8)])
    x_t = torch.randn(1, *backbone.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.velocity(backbone.prefill(conditioning), x_t, torch.tensor([0.5]))


@pytest.fixture(scope="module")
def saved(folder, tmp_path_factory) -> dict[int, Path]:
    """Two adapters, saved as a training would, from another copy of the bundle's weights."""
    bundle = load_bundle(folder)
    transformer = bundle.backbone.transformer
    folders = {}
    for seed in (1, 2):
        add_adapter(transformer, f"policy-{seed}", rank=2, alpha=8.0, seed=seed)
        set_updates(transformer, f"policy-{seed}", 0.1 * seed)
        card = AdapterCard(name=f"round {seed}", base=bundle.card.name, base_revision=bundle.revision)
        folders[seed] = tmp_path_factory.mktemp(f"adapter-{seed}")
        save_adapter(transformer, f"policy-{seed}", folders[seed], card)
    return folders


def copy_of(folder: Path, target: Path, **changes) -> AdapterCard:
    """A copy of a saved adapter to damage; `changes` are of its card."""
    shutil.copytree(folder, target)
    card = AdapterCard(**{**json.loads((target / CARD_FILE).read_text()), **changes})
    (target / CARD_FILE).write_text(json.dumps(dataclasses.asdict(card)))
    return card


def test_a_new_adapter_starts_as_the_base_and_alone_is_trainable(bundle):
    base = velocity(bundle)
    transformer = bundle.backbone.transformer
    add_adapter(transformer, "policy", rank=2)
    assert torch.equal(velocity(bundle), base)
    trainable = [name for name, p in transformer.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".lora_" in name and ".policy." in name for name in trainable)


def test_saving_and_loading_keeps_alpha(bundle, tmp_path):
    transformer = bundle.backbone.transformer
    add_adapter(transformer, "policy", rank=2, alpha=8.0)
    set_updates(transformer, "policy", 0.1)
    card = AdapterCard(name="policy", base=bundle.card.name, base_revision=bundle.revision)
    save_adapter(transformer, "policy", tmp_path, card)
    fresh = load_bundle(bundle.folder)
    fresh.adapters.swap(tmp_path)
    assert torch.equal(velocity(fresh), velocity(bundle))


def test_an_adapter_does_the_same_in_half_precision(bundle, saved):
    half = load_bundle(bundle.folder, precision="bfloat16")
    base = velocity(half)
    for each in (bundle, half):
        each.adapters.swap(saved[1])
    expected, found = velocity(bundle), velocity(half)
    assert (found - expected).norm() < 0.25 * (found - base).norm()  # its effect is well above what rounding does
    half.adapters.unload(half.adapters.active.card.digest)
    assert torch.equal(velocity(half), base)


def test_load_use_scale_and_unload(bundle, saved):
    base = velocity(bundle)
    adapters = bundle.adapters

    card = adapters.load(saved[1])
    assert card.name == "round 1"
    assert adapters.active is None
    assert torch.equal(velocity(bundle), base)

    adapters.use(card.digest)
    full = velocity(bundle)
    assert (full - base).abs().max() > 1e-3

    adapters.use(card.digest, scale=0.5)
    assert adapters.active.scale == 0.5
    half = velocity(bundle)
    assert 0 < (half - base).norm() < (full - base).norm()
    adapters.use(card.digest, scale=0.0)
    torch.testing.assert_close(velocity(bundle), base, rtol=0, atol=1e-6)

    adapters.use(None)
    assert torch.equal(velocity(bundle), base)
    adapters.use(card.digest)
    adapters.unload(card.digest)
    assert adapters.active is None
    assert torch.equal(velocity(bundle), base)


def test_swapping_replaces_and_leaves_one_in_memory(bundle, saved):
    first = bundle.adapters.swap(saved[1])
    with_first = velocity(bundle)
    second = bundle.adapters.swap(saved[2])
    assert bundle.adapters.active.card == second
    assert bundle.adapters.loaded == (second.digest,)
    assert (velocity(bundle) - with_first).abs().max() > 1e-3
    bundle.adapters.swap(saved[1])
    assert bundle.adapters.active.card == first
    assert torch.equal(velocity(bundle), with_first)


def test_weights_whose_card_is_kept_elsewhere(bundle, saved, tmp_path):
    card = bundle.adapters.load(saved[1])
    bundle.adapters.unload(card.digest)
    file = Path(shutil.copy(saved[1] / WEIGHTS_FILE, tmp_path / "0123.safetensors"))
    assert bundle.adapters.swap(file, card) == card
    with_file = velocity(bundle)
    assert bundle.adapters.swap(write_adapter(file, card, tmp_path / "again")) == card
    bundle.adapters.swap(saved[1])
    assert torch.equal(velocity(bundle), with_file)
    bundle.adapters.use(None)
    with pytest.raises(AdapterError, match="SHA-256"):
        bundle.adapters.swap(file, dataclasses.replace(card, digest="0" * 64))
    file.unlink()
    with pytest.raises(AdapterError, match=r"0123\.safetensors is missing"):
        bundle.adapters.swap(file, card)
    assert bundle.adapters.active is None


def spoil_header(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"not safetensors")


def cut_short(folder: Path) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-7] ^= 0x40
    (folder / WEIGHTS_FILE).write_bytes(content)


def spoil_card(folder: Path) -> None:
    (folder / CARD_FILE).write_text("{")


def remove_weights(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()


@pytest.mark.parametrize("damage", [spoil_header, cut_short, flip_a_bit, spoil_card, remove_weights])
def test_a_damaged_adapter_is_an_error_and_changes_nothing(bundle, saved, tmp_path, damage):
    good = bundle.adapters.swap(saved[1])
    copy_of(saved[2], tmp_path / "bad")
    before = velocity(bundle)
    damage(tmp_path / "bad")
    with pytest.raises(AdapterError, match=r"damaged|is missing"):
        bundle.adapters.swap(tmp_path / "bad")
    assert bundle.adapters.active.card == good
    assert bundle.adapters.loaded == (good.digest,)
    assert torch.equal(velocity(bundle), before)


def resave(folder: Path, change) -> None:
    """Rewrite an adapter with changed tensors and a card that fits: wrong, not damaged."""
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        metadata = file.metadata()
    save_file(change(load_file(folder / WEIGHTS_FILE)), folder / WEIGHTS_FILE, metadata=metadata)
    card = json.loads((folder / CARD_FILE).read_text())
    card["digest"] = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    (folder / CARD_FILE).write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {k: v.fill_(float("nan")) for k, v in w.items()}, "not finite"),
        (lambda w: {f"nowhere.{k}": v for k, v in w.items()}, "does not have"),
        (lambda w: {k: v.repeat(1, 2) if "lora_A" in k else v for k, v in w.items()}, "does not fit"),
    ],
)
def test_an_adapter_of_other_weights_is_an_error_and_changes_nothing(bundle, saved, tmp_path, change, message):
    base = velocity(bundle)
    copy_of(saved[1], tmp_path / "other")
    resave(tmp_path / "other", change)
    with pytest.raises(AdapterError, match=message):
        bundle.adapters.swap(tmp_path / "other")
    assert bundle.adapters.active is None
    assert torch.equal(velocity(bundle), base)


def test_an_adapter_of_another_bundle_is_refused(bundle, saved, tmp_path):
    copy_of(saved[1], tmp_path / "other", base_revision="another")
    with pytest.raises(AdapterError, match="was trained on tiny"):
        bundle.adapters.load(tmp_path / "other")
    with pytest.raises(AdapterError, match="not loaded"):
        bundle.adapters.use("0" * 64)


def test_reference_policies_for_a_preference_loss(bundle):
    """Base and a second adapter as reference, while the first stays the trainable policy."""
    base = velocity(bundle)
    transformer = bundle.backbone.transformer
    add_adapter(transformer, "reference", rank=2, seed=1)
    add_adapter(transformer, "policy", rank=2, seed=2)
    transformer.set_adapter("policy")
    set_updates(transformer, "policy", 0.1)
    set_updates(transformer, "reference", 0.2)
    policy = velocity(bundle)
    trainable = {name for name, p in transformer.named_parameters() if p.requires_grad}
    assert trainable
    with adapter_in_use(transformer, None):
        assert torch.equal(velocity(bundle), base)
    with adapter_in_use(transformer, "reference"):
        reference = velocity(bundle)
    assert torch.equal(velocity(bundle), policy)
    assert (reference - policy).abs().max() > 1e-3
    assert {name for name, p in transformer.named_parameters() if p.requires_grad} == trainable


def test_adapters_know_nothing_before_the_first(bundle):
    adapters = Adapters(bundle.backbone.transformer, base="tiny", base_revision="1")
    adapters.use(None)
    assert adapters.active is None
    assert adapters.loaded == ()
