"""Drafts: the transformer's own denoising of noised true latents, and a decoder that learns to mend what it does."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from core.backbones.bundles import load_bundle
from core.pixels import to_tensor
from tests.tiny_bundles import write_tiny_bundle
from tests.trainers.mini_shards import PICTURE, make_shard
from trainers.mini import drafts
from trainers.mini.data import Pictures, Shard, shard_paths, sized
from trainers.mini.drafts import START_SIGMAS, Drafts, draw_again
from trainers.mini.models import VaeSize, build_vae
from trainers.mini.vae import VaeConfig, encode, sample_patches, start_from_pca, train
from trainers.runs import step_generator

CPU = torch.device("cpu")
SIGMAS = torch.linspace(1, 0, 13)
LATENTS, EXAMPLE = sized("latents", PICTURE), sized("example", PICTURE)


def knows_the_truth(x0, *, scale=1.0, without=0.0):
    """A bundle whose velocity leads to `x0`, and without the references is off by `without`."""

    def velocity(prefix, x_t, sigma, *, reference_weight=1.0):
        return (x_t - x0) / sigma[:, None, None, None] + (1 - reference_weight) * without

    backbone = SimpleNamespace(prefill=lambda conditioning: None, velocity=velocity)
    return SimpleNamespace(backbone=backbone, card=SimpleNamespace(identity_guidance=scale))


def test_a_perfect_model_draws_the_truth_again_from_every_sigma():
    x0 = torch.randn(1, 4, 2, 3, generator=step_generator(0, 0))
    drawn = draw_again(knows_the_truth(x0), None, x0, SIGMAS, step_generator(0, 1))
    assert torch.allclose(drawn, x0.expand(3, -1, -1, -1), atol=1e-5)


def test_identity_guidance_goes_on_in_the_direction_of_the_references():
    x0 = torch.zeros(1, 4, 2, 3)
    drawn = draw_again(knows_the_truth(x0, scale=3.0, without=0.5), None, x0, SIGMAS, step_generator(0, 1))
    # the last step forgets all but itself: sigma_last * (scale - 1) * 0.5, with the sign of going away from "without"
    assert torch.allclose(drawn, torch.full((3, 4, 2, 3), 1 / 12 * 2 * 0.5), atol=1e-5)


def test_a_draft_begins_at_its_own_noise_level():
    x0, levels = torch.zeros(1, 4, 8, 8), []

    def velocity(prefix, x_t, sigma, *, reference_weight=1.0):
        levels.append((sigma[0].item(), x_t.std(dim=(1, 2, 3)).tolist()))
        return torch.zeros_like(x_t)  # nothing is denoised

    bundle = knows_the_truth(x0)
    bundle.backbone.velocity = velocity
    draw_again(bundle, None, x0, SIGMAS, step_generator(0, 1))
    assert [len(noise) for _, noise in levels] == [1, 1, 2, 2, 3, 3, 3, 3, 3]
    assert levels[0][0] == pytest.approx(0.75)
    assert levels[-1][1] == pytest.approx([9 / 12, 7 / 12, 5 / 12], rel=0.2)


def test_the_command_keeps_what_is_finished_and_its_drafts_know_their_truth(shards, tmp_path, monkeypatch):
    bundle, out = write_tiny_bundle(tmp_path / "bundle"), tmp_path / "drafts"
    arguments = ["--bundle", bundle, "--pictures", shards, "--out", out, "--examples", 3]
    monkeypatch.setattr(sys, "argv", ["drafts", *map(str, arguments)])
    drafts.main()
    finished = sorted(out.iterdir())
    assert [path.name for path in finished] == ["held_out-0000.safetensors", "train-0000.safetensors"]
    kept = finished[0].stat().st_mtime_ns
    finished[1].unlink()
    drafts.main()
    assert finished[0].stat().st_mtime_ns == kept
    assert finished[1].exists()

    assert len(Drafts.load(out, shards, "train")) == 3 * len(START_SIGMAS)
    # from the lowest sigma on, a draft is more like its own picture's latents than like those of other pictures
    stored, shard = load_file(finished[1]), Shard.load(shard_paths(shards, "train")[0])
    lowest, shown = (stored[name][len(START_SIGMAS) - 1 :: len(START_SIGMAS)] for name in (LATENTS, EXAMPLE))
    own = load_bundle(str(bundle)).backbone.encode(to_tensor(shard.pictures[PICTURE][shown.numpy()]))
    likeness = F.cosine_similarity(lowest.float().flatten(1)[:, None], own.flatten(1)[None], dim=-1)
    assert likeness.argmax(1).tolist() == [0, 1, 2]


def test_drafts_of_several_sizes_are_drawn_by_their_number_and_with_their_own_truth(tmp_path):
    sizes, kept = (PICTURE, (64, 32)), (9, 3)
    for number, (size, count) in enumerate(zip(sizes, kept, strict=True)):
        shard = make_shard(np.random.default_rng(number), 4, size=size)
        shard.save(tmp_path / "pictures" / f"train-{number}")
        shown = torch.arange(count) % 4
        means = torch.from_numpy(shard.pictures[size]).float().mean((1, 2, 3))[shown]
        latents = means[:, None, None, None].expand(-1, 4, size[0] // 16, size[1] // 16)
        (tmp_path / "drafts").mkdir(exist_ok=True)
        stored = {sized("latents", size): latents.half().contiguous(), sized("example", size): shown}
        save_file(stored, tmp_path / "drafts" / f"train-{number}.safetensors")
    found = Drafts.load(tmp_path / "drafts", tmp_path / "pictures", "train")
    assert len(found) == 12
    batches = [found.batch(2, step_generator(0, step), CPU) for step in range(200)]
    wide = sum(pictures.shape[-2:] == PICTURE for _, pictures, _ in batches)
    assert 120 < wide < 180  # three quarters
    for latents, pictures, faces in batches:
        assert pictures.shape[-2:] == faces.shape[-2:] == (16 * latents.shape[2], 16 * latents.shape[3])
        assert torch.allclose(latents[:, 0, 0, 0], 255 * pictures.mean((1, 2, 3)), atol=0.1)


def test_without_drafts_the_folder_says_how_to_make_some(shards, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no train draft in .*python -m trainers\.mini\.drafts"):
        Drafts.load(tmp_path, shards, "train")


def test_a_decoder_learns_to_mend_the_fault_of_its_drafts(shards, tmp_path):
    size = VaeSize(encoder_width=132, decoder_width=132)
    vae = build_vae(size)
    start_from_pca(vae, sample_patches(Pictures.load(shards, "train"), 0.0, step_generator(0, 0), 300))
    vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "drafts").mkdir()
    for split in ("train", "held_out"):
        path = shard_paths(shards, split)[0]
        shard = Shard.load(path)
        with torch.no_grad():
            faded = 0.6 * encode(vae, to_tensor(shard.pictures[PICTURE]))
        stored = {LATENTS: faded.half().contiguous(), EXAMPLE: torch.arange(len(shard.examples))}
        save_file(stored, tmp_path / "drafts" / f"{path.name}.safetensors")

    config = VaeConfig(size=size, steps=60, batch=4, warmup=4, average_decay=0.8, picture_every=5, draft_share=0.8)
    train(config, shards, tmp_path / "run", CPU, tmp_path / "vae", tmp_path / "drafts")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    psnr = [line["draft_psnr"] for line in lines if "draft_psnr" in line]
    assert psnr[-1] > psnr[0] + 2
    drafted = sum("draft_loss" in line for line in lines)
    assert 35 <= drafted < 60
    assert sum("loss" in line for line in lines) == 60 - drafted
    assert (tmp_path / "run" / "drafts_000060.png").exists()
