"""Latents and prompts of the mini trainers: what is stored equals what the bundle computes."""

import numpy as np
import pytest
import torch

from core.pixels import to_tensor
from tests.trainers.mini_parts import config, run, untrained_backbone
from tests.trainers.mini_shards import make_shard
from trainers.mini import latents
from trainers.mini.curriculum import Stage
from trainers.mini.data import Example, Shard, shard_paths
from trainers.mini.feeding import Feeder
from trainers.mini.geometry import TEXT_STRIDE
from trainers.mini.latents import READ_WITH_PICTURES, LatentStore, prompt_for, stack_texts
from trainers.runs import step_generator

pytestmark = pytest.mark.usefixtures("small_references")


def test_stored_batches_equal_what_the_backbone_encodes(feeder, parts):
    feeder, backbone = feeder
    batch = feeder.draw("group-2", 1, step_generator(0, 3), dropout=False)
    stored = batch.conditioning.embeddings[batch.conditioning.valid]  # without the padding
    shard = Shard.load(shard_paths(parts / "shards", "train")[0])

    def matches(row: int, example: Example) -> bool:
        direct = backbone.encode_prompt(prompt_for(row, example), [shard.portraits[i] for i in example.references])
        picture = to_tensor(shard.pictures[example.size][example.picture][None])
        pairs = [
            (direct.embeddings[0], stored),
            (backbone.encode(picture), batch.target),
            *zip(direct.reference_latents, batch.conditioning.reference_latents, strict=True),
        ]
        return all(a.shape == b.shape and torch.allclose(a, b, atol=2e-2) for a, b in pairs)

    rows = [row for row, example in enumerate(shard.examples) if len(example.people) == 2]
    assert [matches(row, shard.examples[row]) for row in rows].count(True) == 1


def test_joined_shards_keep_their_own_references(parts, tmp_path):
    make_shard(np.random.default_rng(5), 6).save(tmp_path / "pictures" / "train-0001")
    paths = [parts / "shards" / "train-0000", tmp_path / "pictures" / "train-0001"]
    backbone = untrained_backbone(parts)
    store = LatentStore(tmp_path / "cache")
    both, second = (store.load(chosen, backbone, with_text=True) for chosen in (paths, paths[1:]))
    assert len(both.examples) == 18
    for row in range(6):
        assert both.examples[12 + row] == second.examples[row]
        for joined, alone in zip(both.references[12 + row], second.references[row], strict=True):
            assert torch.equal(both.portraits[joined], second.portraits[alone])
        assert torch.equal(both.texts[12 + row].embeddings, second.texts[row].embeddings)


def test_many_prompts_read_at_once_equal_prompts_read_one_by_one(parts, tmp_path):
    """All words; what stands behind them is read for a few examples only."""
    backbone = untrained_backbone(parts)
    shard = make_shard(np.random.default_rng(2), 20)
    shard.save(tmp_path / "pictures" / "train-0000")
    found = LatentStore(tmp_path / "cache").load([tmp_path / "pictures" / "train-0000"], backbone, with_text=True)
    for number, (example, text) in enumerate(zip(shard.examples, found.texts, strict=True)):
        portraits = [shard.portraits[index] for index in example.references]
        direct = backbone.encode_prompt(prompt_for(number, example), portraits)
        assert torch.equal(direct.picture_slots, text.picture_slots)
        words = slice(None) if number < READ_WITH_PICTURES else slice(0, int(text.picture_slots.int().argmax()))
        assert torch.allclose(direct.embeddings[0, words], text.embeddings[words].float(), atol=2e-2)


def test_latents_computed_by_several_processes_are_what_the_trainer_computes(parts, tmp_path, monkeypatch):
    for part in ("1/2", "2/2"):
        arguments = ["--pictures", parts / "shards", "--vae", parts / "vae", "--vlm", parts / "vlm"]
        arguments += ["--cache", tmp_path / "run" / "cache", "--part", part]
        monkeypatch.setattr("sys.argv", ["latents", *map(str, arguments)])
        latents.main()
    made = {path.name: path.read_bytes() for path in (tmp_path / "run" / "cache").iterdir()}
    assert sorted(made) == [
        f"{n}-0000.{kind}.safetensors" for n in ("held_out", "train") for kind in ("latents", "text")
    ]
    run(parts, tmp_path / "run")
    run(parts, tmp_path / "other")
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "other" / "cache").iterdir()}


def test_padded_texts_stand_before_the_pictures(feeder):
    feeder, _ = feeder
    texts = [t for t in feeder._data.texts if int(t.picture_slots.sum()) == 2]
    longest = max(texts, key=lambda t: len(t.picture_slots))
    shortest = min(texts, key=lambda t: len(t.picture_slots))
    embeddings, slots, valid, _ = stack_texts([longest, shortest])
    first = int(slots.int().argmax())
    assert first % TEXT_STRIDE == 0
    for row, text in enumerate((longest, shortest)):
        assert int(valid[row].sum()) == len(text.picture_slots)
        assert valid[row, first:].all()
        assert torch.equal(slots[valid[row]], text.picture_slots)
        assert torch.equal(embeddings[row][valid[row]], text.embeddings.float())


def test_a_batch_is_whole_and_of_one_size_where_shards_hold_several(parts, tmp_path):
    square = (64, 64)
    for number, size in enumerate(((32, 64), square)):
        make_shard(np.random.default_rng(number), 12, size=size).save(tmp_path / f"train-000{number}")
    backbone = untrained_backbone(parts)
    data = LatentStore(tmp_path / "cache").load(shard_paths(tmp_path, "train"), backbone, with_text=True)
    feeder = Feeder(data, backbone, Stage(name="both", steps=1, mix=("group-2",)), config())
    batches = [feeder.draw("group-2", 3, step_generator(0, step)) for step in range(20)]
    found = [tuple(16 * side for side in batch.target.shape[2:]) for batch in batches]
    assert {len(batch.target) for batch in batches} == {3}
    assert 4 < found.count(square) < 16  # they are as many as the others


def test_portraits_in_a_row_show_their_references_people(parts, tmp_path):
    backbone = untrained_backbone(parts)
    data = LatentStore(tmp_path).load(shard_paths(parts / "shards", "train"), backbone, with_text=False)
    stage = Stage(name="row", steps=1, mix=("row-2",), copy_share=1.0, with_text=False)
    batch = Feeder(data, backbone, stage, config()).draw("row-2", 4, step_generator(0, 0))
    references = torch.cat(batch.conditioning.reference_latents, dim=3)
    assert torch.equal(batch.target, references)  # copies: the target is the references themselves
    assert not torch.equal(batch.conditioning.reference_latents[0], batch.conditioning.reference_latents[1])
    assert batch.conditioning.embeddings.abs().max() == 0
