"""The mini VLM: tokenizer, loss mask, scores of written prompts, learning, and exact continuation of a killed run."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3VLForConditionalGeneration

from core.backbones.bundles import load_bundle
from core.prompt_writer import PromptWriter, writer_adapter
from core.prompts import Writing
from tests.trainers.mini_shards import COLOURS
from trainers.mini.assemble import assemble, load_vlm
from trainers.mini.averaging import MovingAverage
from trainers.mini.captions import caption_of, load_captions
from trainers.mini.data import Example, Shard, shard_paths
from trainers.mini.models import (
    TransformerSize,
    VaeSize,
    VlmSize,
    build_processor,
    build_tokenizer,
    build_transformer,
    build_vae,
    build_vlm,
)
from trainers.mini.vision import named_portraits, teach_to_see
from trainers.mini.vlm import VlmConfig, attribute_scores, caption_loss, person_parts, train

SMALL = VlmSize(hidden_size=64, layers=2, heads=2, vision_hidden_size=64, vision_layers=2, vocabulary=400)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer(["The red person from image 1 on the left."] * 20, SMALL))


@pytest.mark.parametrize("text", ["The red person from image 1.", "Żółć 漢字 🙂 <tag>", "  two  spaces\n"])
def test_tokenizer_encodes_any_text_and_gives_it_back(processor, text):
    tokenizer = processor.tokenizer
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_loss_is_the_mean_over_answer_tokens_alone(shards, processor):
    torch.manual_seed(0)
    vlm = build_vlm(processor.tokenizer, SMALL)
    lessons = load_captions(shards, "train", processor)[:3]
    with torch.no_grad():
        together = caption_loss(vlm, lessons, processor).item()
        each = [caption_loss(vlm, [lesson], processor).item() for lesson in lessons]
    weights = [len(lesson.answer) for lesson in lessons]
    expected = sum(w * loss for w, loss in zip(weights, each, strict=True)) / sum(weights)
    assert together == pytest.approx(expected, rel=1e-4)
    assert together == pytest.approx(math.log(vlm.config.text_config.vocab_size), rel=0.2)


def test_words_that_only_the_portraits_tell_can_weigh_more(shards, processor):
    torch.manual_seed(0)
    vlm = build_vlm(processor.tokenizer, SMALL)
    lesson = load_captions(shards, "train", processor)[0]
    seen = processor.tokenizer.decode([t for t, s in zip(lesson.answer, lesson.seen, strict=True) if s])
    # and how the text goes on behind hair: "person", or as much of it as is one token
    assert re.fullmatch("".join(one["hair"] + "p[erson]*" for one in lesson.example.attributes), "".join(seen.split()))
    with torch.no_grad():
        plain, heavy, only = (caption_loss(vlm, [lesson], processor, seen_weight=w).item() for w in (1, 5, 1e6))
    share = sum(lesson.seen) / len(lesson.seen)
    rest = (plain - share * only) / (1 - share)
    assert heavy == pytest.approx((5 * share * only + (1 - share) * rest) / (5 * share + 1 - share), rel=1e-4)


@pytest.mark.parametrize(("scene", "told"), [("park, golden sunset light", "warmeveningsun"), ("park", "")])
def test_the_light_weighs_like_them_where_it_was_asked_for(processor, scene, told):
    one = replace(example({}), scene=scene, prompt="The man in image 1 is in a park, in warm evening sun.")
    lesson = caption_of(one, np.zeros((1, 32, 32, 3), np.uint8), processor)
    seen = processor.tokenizer.decode([t for t, s in zip(lesson.answer, lesson.seen, strict=True) if s])
    assert "".join(seen.split()) == told


def test_the_vision_tower_learns_the_words_of_portraits(shards, processor):
    torch.manual_seed(0)
    vlm = build_vlm(processor.tokenizer, SMALL)
    seen = named_portraits([Shard.load(path) for path in shard_paths(shards, "train")])
    assert {word for words in seen.words for word in words} <= {*" ".join(COLOURS).split()}
    first = teach_to_see(vlm, processor, seen, steps=2, seed=0)
    assert teach_to_see(vlm, processor, seen, steps=80, seed=1) < 0.5 * first


def test_a_writer_goes_on_and_leaves_the_reading_of_prompts_as_it_is(shards, tmp_path):
    whole = VlmConfig(size=SMALL, steps=1, batch=2, sample_every=100, evaluated=1, vision_steps=1)
    first = train(whole, shards, tmp_path / "first", CPU)
    config = VlmConfig(
        size=SMALL, steps=2, batch=2, learning_rate=0.02, warmup=0, sample_every=100, evaluated=1, trained="writer",
        writer_rank=2,
    )  # fmt: skip
    second = train(config, shards, tmp_path / "second", CPU, start_from=first)
    (before, tokenizer), (after, same) = load_vlm(first), load_vlm(second)
    assert tokenizer.tokenizer.get_vocab() == same.tokenizer.get_vocab()
    changed = {n for n, p in after.named_parameters() if not torch.equal(p, before.get_parameter(n))}
    assert changed  # the tower learns from captions too
    assert all("visual" in name for name in changed)

    # a writer goes on from the one it is started from
    third = train(replace(config, learning_rate=0.0), shards, tmp_path / "third", CPU, start_from=second)
    adapters = [load_file(folder / "writer" / "adapter_model.safetensors") for folder in (second, third)]
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])

    # in a bundle: on while writing, off while reading
    vae, size = build_vae(VaeSize(encoder_width=129, decoder_width=129)), TransformerSize(hidden_size=64, layers=1)
    vae.save_pretrained(tmp_path / "vae")
    build_transformer(size, SMALL.hidden_size).save_pretrained(tmp_path / "transformer")
    assemble(tmp_path / "vae", second, tmp_path / "transformer", tmp_path / "bundle")
    model = load_bundle(tmp_path / "bundle").text_encoder
    ids = torch.tensor([same.tokenizer("two people in a park")["input_ids"]])

    def read(vlm) -> torch.Tensor:
        with torch.no_grad():
            return vlm.model(input_ids=ids).last_hidden_state

    with writer_adapter(model):
        written = read(model)
    folder = tmp_path / "bundle" / "text_encoder"
    plain = read(Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32))
    assert torch.equal(read(model), plain)
    assert (written - plain).abs().max() > 1e-3


def test_training_learns_the_captions_and_the_writer_uses_them(shards, tmp_path):
    config = VlmConfig(size=SMALL, steps=60, batch=8, learning_rate=3e-3, warmup=5, sample_every=60, evaluated=1)
    folder = train(config, shards, tmp_path / "run", CPU)
    losses = [json.loads(line).get("loss") for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < 0.5 * losses[0]

    vlm, processor = load_vlm(folder)
    portraits = load_captions(shards, "held_out", processor)[0].portraits
    parts = SimpleNamespace(text_encoder=vlm, processor=processor)
    text = "".join(PromptWriter(parts).write(portraits, "group", "in a park", writing=Writing(temperature=0)))
    assert "person from image 1" in text


def test_a_killed_run_continues_exactly(shards, tmp_path, monkeypatch):
    config = VlmConfig(size=SMALL, steps=4, batch=2, sample_every=100, evaluated=1, checkpoint_minutes=1e-9)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config, shards, whole, CPU)

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
            train(config, shards, killed, CPU)
    train(config, shards, killed, CPU)
    first, second = (torch.load(folder / "checkpoint.pt") for folder in (whole, killed))
    assert all(torch.equal(first["vlm"][name], second["vlm"][name]) for name in first["vlm"])


def example(*attributes: dict[str, str]) -> Example:
    numbers = tuple(range(len(attributes)))
    return Example(
        task="group", people=numbers, references=numbers, picture=0, size=(32, 64), boxes=(), scene="", prompt="",
        landmarks=(),
        attributes=attributes,
    )  # fmt: skip


def test_scores_count_what_is_said_of_each_person():
    truth = example({"hair": "long black hair", "glasses": "round glasses"}, {"hair": "short red hair"})
    right = "The woman from image 1 with long black hair and round glasses. The man from image 2 has short red hair."
    leaked = "The woman from image 1 with short red hair. The man from image 2 has short red hair and round glasses."
    assert attribute_scores(right, truth) == {
        "hair": (2, 2), "glasses": (1, 1), "no glasses": (1, 1), "leakage": (0, 2)
    }  # fmt: skip
    assert attribute_scores(leaked, truth) == {
        "hair": (1, 2), "glasses": (0, 1), "no glasses": (0, 1), "leakage": (1, 2)
    }  # fmt: skip


def test_scores_say_whether_place_and_light_are_those_that_were_asked_for():
    asked = replace(example({"hair": "red hair"}), scene="us on a city street, warm evening sun")
    kept, lost = (
        attribute_scores(f"The man in image 1 has red hair. Taken {scene}.", asked)
        for scene in ("on a city street, in golden sunset light", "in a park, in overcast daylight")
    )
    assert (kept["place"], kept["light"]) == ((1, 1), (1, 1))
    assert (lost["place"], lost["light"]) == ((0, 1), (0, 1))
    nothing_asked = attribute_scores("The man in image 1 stands in a park.", replace(asked, scene="together"))
    assert not {"place", "light"} & set(nothing_asked)


def test_parts_of_a_prompt_go_to_the_image_they_name():
    parts = person_parts("On the left, image 1 in red; on the right, image 2 in blue. Image 9 is nobody.", 2)
    assert "in red" in parts[0]
    assert "blue" not in parts[0]
    assert "in blue" in parts[1]
