"""The mini VAE: it starts as exactly a PCA, training improves it, a killed run continues as if it had not been."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import trainers.mini
from trainers.config import from_table, load_config
from trainers.mini.averaging import MovingAverage
from trainers.mini.data import Pictures
from trainers.mini.models import LATENT_CHANNELS, VaeSize, build_vae
from trainers.mini.vae import (
    VaeConfig,
    decode,
    encode,
    psnr,
    reconstruction_loss,
    sample_patches,
    seam_ratio,
    start_from_pca,
    train,
)
from trainers.runs import RunError, learning_rate_factor, step_generator

SMALL = VaeSize(encoder_width=132, decoder_width=132)
CPU = torch.device("cpu")


def config(**changes) -> VaeConfig:
    return VaeConfig(size=SMALL, steps=4, batch=2, warmup=1, picture_every=100, **changes)


def test_start_is_the_pca_of_the_patches(shards):
    pictures = Pictures.load(shards, "train")
    patches = sample_patches(pictures, 3.0, step_generator(0, 0), count=400)
    vae = build_vae(SMALL)
    start_from_pca(vae, patches)
    picture, _ = pictures.batch(2, step_generator(0, 1), CPU)
    with torch.no_grad():
        decoded = decode(vae, encode(vae, picture))

    # oracle: numpy's SVD on patches cut with plain slicing
    def cut(p):
        p = np.concatenate([p, np.ones_like(p[:1])]) * 2 - 1
        return np.stack(
            [
                p[:, r : r + 16, c : c + 16].transpose(0, 2, 1).ravel()
                for r in range(0, p.shape[1], 16)
                for c in range(0, p.shape[2], 16)
            ]
        )

    mean = patches.numpy().mean(0)
    basis = np.linalg.svd(patches.numpy() - mean, full_matrices=False)[2][:LATENT_CHANNELS]
    mine = np.concatenate([cut(p) for p in decoded.numpy()]).reshape(-1, 4, 256)[:, :3]
    truth = np.concatenate([cut(p) for p in picture.numpy()])
    wanted = ((truth - mean) @ basis.T @ basis + mean).reshape(-1, 4, 256)[:, :3]
    # the RMS norm is nearly constant: about two percent of the deviation from the mean are lost
    assert np.abs(mine - wanted).mean() < 0.02
    assert np.corrcoef(mine.ravel(), wanted.ravel())[0, 1] > 0.999


def test_latents_are_normalised_and_the_posterior_is_its_mode(shards):
    vae = build_vae(SMALL)
    start_from_pca(vae, sample_patches(Pictures.load(shards, "train"), 0.0, step_generator(0, 0), count=400))
    picture, _ = Pictures.load(shards, "train").batch(4, step_generator(0, 1), CPU)
    with torch.no_grad():
        posterior = vae.encode(torch.cat([picture, torch.ones(4, 1, *picture.shape[2:])], 1).unsqueeze(2) * 2 - 1)
    assert posterior.latent_dist.std.max() < 0.01
    assert 0.3 < posterior.latent_dist.mode().std() < 3


def test_training_improves_on_the_start(shards, tmp_path):
    train(VaeConfig(size=SMALL, steps=40, batch=4, warmup=4, picture_every=20), shards, tmp_path, CPU)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 40
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert (tmp_path / "held_out_000020.png").exists()


def test_a_killed_run_continues_exactly(shards, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config(checkpoint_minutes=1e-9), shards, whole, CPU)

    class Killed(BaseException):
        pass

    real = MovingAverage.update

    def update(self, model, step):
        if step == 2:
            raise Killed
        real(self, model, step)

    with monkeypatch.context() as patch:
        patch.setattr(MovingAverage, "update", update)
        with pytest.raises(Killed):
            train(config(checkpoint_minutes=1e-9), shards, killed, CPU)
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')  # the line a kill cut off
    train(config(checkpoint_minutes=1e-9), shards, killed, CPU)

    first, second = (torch.load(folder / "checkpoint.pt") for folder in (whole, killed))
    assert all(torch.equal(first["decoder"][name], second["decoder"][name]) for name in first["decoder"])
    steps = [[json.loads(line)["step"] for line in (f / "log.jsonl").read_text().splitlines()] for f in (whole, killed)]
    assert steps[0] == steps[1]


def test_a_run_of_other_settings_is_not_continued(shards, tmp_path):
    train(config(), shards, tmp_path, CPU)
    with pytest.raises(RunError, match="learning_rate"):
        train(config(learning_rate=1e-5), shards, tmp_path, CPU)


def test_seam_ratio_and_psnr_of_known_errors():
    target = torch.rand(1, 3, 32, 32, generator=step_generator(0, 0))
    assert psnr(target + 0.1 * torch.where(target > 0.5, -1.0, 1.0), target) == pytest.approx(20, abs=0.01)
    smooth = target + 0.01 * torch.arange(32).sin()[None, None, None]
    steps = target + 0.01 * (torch.arange(32) // 16 % 2)[None, None, None] + 0.0001 * torch.rand(32)
    assert seam_ratio(smooth, target) < 3
    assert seam_ratio(steps, target) > 30


def test_jumps_across_the_border_of_tokens_weigh_more():
    target, faces = torch.zeros(1, 3, 32, 32), torch.zeros(1, 32, 32)
    border, inside = target.clone(), target.clone()
    border[..., 16:] = 0.1  # one jump, where two tokens meet
    inside[..., 8:24] = 0.1  # as much error, with two jumps inside tokens
    for seam_weight in (0.0, 4.0):
        settings = config(edge_weight=2.0, seam_weight=seam_weight)
        costs = [reconstruction_loss(decoded, target, faces, settings) for decoded in (border, inside)]
        assert (costs[0] - costs[1]).item() == pytest.approx(2.0 * 0.1 / 31 * (1 + seam_weight - 2), rel=1e-4)


def test_learning_rate_rises_stays_and_falls():
    factors = [learning_rate_factor(s, steps=100, warmup=10, decay_share=0.2) for s in (0, 9, 50, 90, 99)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.05])


def test_configs_of_the_repository_load_and_unknown_keys_are_refused(tmp_path):
    from trainers.mini.curriculum import TransformerConfig
    from trainers.mini.face_detail import FaceDetailConfig
    from trainers.mini.vlm import VlmConfig

    folder = Path(trainers.mini.__file__).parent / "configs"
    kinds = {"vae": VaeConfig, "vlm": VlmConfig, "transformer": TransformerConfig, "face": FaceDetailConfig}
    for path in folder.glob("*.toml"):
        load_config(path, kinds[path.stem.split("_")[0]])
    with pytest.raises(ValueError, match="stepz"):
        from_table(VaeConfig, {"stepz": 3})
    (tmp_path / "bad.toml").write_text("[size]\nencoder_width = 3\n")
    with pytest.raises(ValueError, match=r"bad\.toml.*encoder_width is 3"):
        load_config(tmp_path / "bad.toml", VaeConfig)


def test_shards_survive_a_round_trip(shards, tmp_path):
    from trainers.mini.data import Shard, shard_paths

    shard = Shard.load(shard_paths(shards, "train")[0])
    shard.save(tmp_path / "train-0000")
    again = Shard.load(tmp_path / "train-0000")
    assert again.examples == shard.examples
    assert all(np.array_equal(again.pictures[size], shard.pictures[size]) for size in shard.pictures)
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError, match="no train shard"):
        shard_paths(tmp_path, "train")
