"""Portraits to candidates, on tiny random weights with a real, tiny face pack."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.adapters import AdapterCard, add_adapter, save_adapter
from core.backbones.bundles import Bundle, load_bundle
from core.faces import FaceAnalyzer
from core.generate import GenerationRequest, generate
from core.generate_command import main
from core.identity import measure_faces
from core.portraits import largest_face
from core.prompts import PromptRefused, Task
from core.provenance import read_settings
from core.sampler import Cancelled
from core.schedule import IdentitySchedule
from tests.core.face_models import write_pack
from tests.tiny_bundles import write_tiny_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory) -> FaceAnalyzer:
    # A detector with fixed answers for this one size of view.
    pack = write_pack(tmp_path_factory.mktemp("packs") / "pack")
    return FaceAnalyzer(pack, detection_sizes=((128, 128),), threads=1)


@pytest.fixture
def bundle(folder, analyzer) -> Bundle:
    bundle = load_bundle(folder)
    bundle.__dict__["face_analyzer"] = analyzer  # where functools.cached_property keeps it
    return bundle


def portrait(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (128, 128, 3), np.uint8)


REQUEST = GenerationRequest(
    prompt="the man from image 1 and the woman from image 2",
    portraits=(portrait(0), portrait(1)),
    seeds=(3, 4),
    height=128,
    width=128,
    expected_order=(0, 1),
)


@pytest.fixture
def vlm_runs(bundle) -> list[int]:
    """One entry for every run of the VLM."""
    runs: list[int] = []
    bundle.text_encoder.register_forward_hook(lambda *_: runs.append(1))
    return runs


def test_a_candidate_for_each_seed_with_all_it_takes_to_make_it_again(bundle, analyzer):
    candidates = generate(bundle, REQUEST)
    assert [candidate.seed for candidate in candidates] == [3, 4]
    first = candidates[0]
    assert first.picture.shape == (128, 128, 3)
    assert first.picture.dtype == np.uint8
    assert not np.array_equal(first.picture, candidates[1].picture)
    assert set(first.seconds) == {"faces", "encode", "sample", "decode", "measure"}
    record = json.loads(json.dumps(first.record()))
    assert record["bundle"] == "tiny"
    assert record["revision"] == bundle.revision
    assert record["schedule"] == "constant"
    assert (record["seed"], record["steps"], record["adapter"]) == (3, 4, None)
    assert record["precision"] == "float32"

    again = dataclasses.replace(
        REQUEST,
        prompt=record["prompt"],
        seeds=(record["seed"],),
        schedule=IdentitySchedule.parse(record["schedule"]),
        steps=record["steps"],
    )
    repeated = generate(bundle, again)[0].picture.astype(int)
    assert np.abs(repeated - first.picture).max() <= 1


def test_the_table_of_faces_is_that_of_the_picture(bundle, analyzer):
    candidate = generate(bundle, REQUEST)[0]
    references = [largest_face(analyzer.analyze(picture)).embedding for picture in REQUEST.portraits]
    expected = measure_faces(
        np.stack(references),
        analyzer.analyze(candidate.picture),
        threshold=analyzer.same_person_threshold,
        expected_order=(0, 1),
    )
    assert candidate.faces == expected
    assert len(candidate.faces.rows) == 2
    assert candidate.record()["faces"]["rows"][1]["reference"] == 1


def test_without_a_face_pack_nothing_about_faces_is_claimed(folder):
    bare = load_bundle(folder)
    bare = dataclasses.replace(bare, face_pack=folder / "no-such-pack")
    candidate = generate(bare, REQUEST)[0]
    assert candidate.faces is None
    assert "Faces are not measured" in candidate.notes[0]
    assert "no face pack" in candidate.notes[1]


def test_moving_a_slider_encodes_nothing_again(bundle, vlm_runs):
    generate(bundle, REQUEST)
    assert len(vlm_runs) == 1
    sliders = dataclasses.replace(REQUEST, seeds=(9,), schedule=IdentitySchedule.gate(), strength=0.5, steps=3)
    generate(bundle, sliders)
    assert len(vlm_runs) == 1
    generate(bundle, dataclasses.replace(REQUEST, prompt="on the beach"))
    assert len(vlm_runs) == 2
    generate(bundle, dataclasses.replace(REQUEST, portraits=REQUEST.portraits[::-1]))
    assert len(vlm_runs) == 3
    bundle.encodings.clear()
    generate(bundle, REQUEST)
    assert len(vlm_runs) == 4


def test_order_and_content_of_portraits_matter(bundle):
    pictures = [
        generate(bundle, dataclasses.replace(REQUEST, portraits=portraits))[0].picture.astype(int)
        for portraits in (REQUEST.portraits, REQUEST.portraits[::-1], (portrait(0), portrait(2)))
    ]
    assert np.abs(pictures[0] - pictures[1]).max() > 10
    assert np.abs(pictures[0] - pictures[2]).max() > 10


def test_another_face_of_a_portrait_is_another_person(bundle):
    shown = portrait(1)
    faces = bundle.face_analyzer.analyze(shown)
    assert len(faces) > 1
    pictures = [
        generate(
            bundle,
            GenerationRequest(
                prompt="the man from image 1", portraits=(shown,), steps=2, face_boxes=(tuple(face.box.tolist()),)
            ),
        )[0].picture
        for face in faces[:2]
    ]
    assert not np.array_equal(*pictures)
    with pytest.raises(ValueError, match="2 face boxes for 1 portraits"):
        GenerationRequest(prompt="the man from image 1", portraits=(shown,), face_boxes=(None, None))


def test_the_adapter_in_use_is_recorded_and_acts(bundle, tmp_path):
    before = generate(bundle, REQUEST)[0]
    transformer = load_bundle(bundle.folder).backbone.transformer
    add_adapter(transformer, "policy", rank=2)
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    card = AdapterCard(name="round 1", base="tiny", base_revision=bundle.revision)
    card = save_adapter(transformer, "policy", tmp_path, card)
    bundle.adapters.swap(tmp_path, scale=0.8)
    after = generate(bundle, REQUEST)[0]
    assert after.settings["adapter"] == {"name": "round 1", "digest": card.digest, "scale": 0.8}
    assert np.abs(after.picture.astype(int) - before.picture).max() > 5


@pytest.mark.parametrize("task", [Task.GROUP, "child"])
def test_sexual_content_is_refused_before_anything_runs(bundle, vlm_runs, task):
    with pytest.raises(PromptRefused):
        generate(bundle, dataclasses.replace(REQUEST, prompt="a naked man and a woman", task=task))
    with pytest.raises(PromptRefused):
        generate(bundle, dataclasses.replace(REQUEST, negative_prompt="nude", task=task))
    assert not vlm_runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"portraits": ()}, "no portrait"),
        ({"portraits": (portrait(0),) * 5}, "at most 4"),
        ({"height": 100}, "height is 100 px"),
        ({"seeds": ()}, "No seed"),
        ({"guidance": 0.0}, "guidance is 0"),
    ],
)
def test_requests_out_of_range_are_refused(bundle, changes, message):
    with pytest.raises(ValueError, match=message):
        generate(bundle, dataclasses.replace(REQUEST, **changes))
    with pytest.raises(ValueError, match="not a valid Task"):
        dataclasses.replace(REQUEST, task="adult")


def test_what_is_not_asked_for_is_the_bundles_own(bundle):
    card = dataclasses.replace(bundle.card, guidance=2.0, guidance_above=0.6, identity_guidance=3.0)
    bundle = dataclasses.replace(bundle, card=card)
    own = generate(bundle, REQUEST)[0]
    used = [own.settings[name] for name in ("guidance", "guidance_above", "identity_guidance")]
    assert used == [2.0, 0.6, 3.0]
    asked = generate(bundle, dataclasses.replace(REQUEST, guidance=2.0, identity_guidance=3.0))[0]
    without = generate(bundle, dataclasses.replace(REQUEST, guidance=1.0))[0]
    assert np.array_equal(own.picture, asked.picture)
    assert not np.array_equal(own.picture, without.picture)
    with pytest.raises(ValueError, match=r"guidance is 0\.5"):
        dataclasses.replace(bundle.card, guidance=0.5)
    with pytest.raises(ValueError, match=r"guidance_above is 1\.0"):
        dataclasses.replace(bundle.card, guidance_above=1.0)


def test_the_age_task_may_have_its_own_guidance_towards_the_prompt(bundle):
    card = dataclasses.replace(bundle.card, guidance=3.0, child_guidance=1.5)
    bundle = dataclasses.replace(bundle, card=card)
    used = [generate(bundle, dataclasses.replace(REQUEST, task=task))[0].settings["guidance"] for task in Task]
    assert used == [3.0, 1.5]
    assert dataclasses.replace(card, child_guidance=None).guidance_of("child") == 3.0


def test_cancel_reaches_the_loop(bundle):
    steps: list[int] = []
    with pytest.raises(Cancelled):
        generate(bundle, REQUEST, on_step=lambda r: steps.append(r.step), cancel=lambda: len(steps) >= 1)
    assert steps == [1]


def test_the_command_writes_pictures_that_say_how_they_were_made(folder, tmp_path):
    files = [tmp_path / f"{name}.png" for name in "ab"]
    for seed, file in enumerate(files):
        Image.fromarray(portrait(seed)).save(file)
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "core.generate", "--bundle", folder, "--portraits", *files, "--out", out),
        *("--task", "child", "--scene", "in a park at sunset", "--schedule", "gate-0.3-0.6"),
        *("--seed", "5", "--candidates", "2", "--threads", "1"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    settings = read_settings(out / "seed-6.png")
    assert settings["task"] == "child"
    assert settings["schedule"] == "gate-0.3-0.6"
    assert "in a park at sunset" in settings["prompt"]
    results = json.loads((out / "results.json").read_text())
    assert [result["seed"] for result in results] == [5, 6]
    assert results[1] == settings


def test_the_command_says_in_one_sentence_what_is_wrong(folder, tmp_path, capsys):
    text = tmp_path / "a.png"
    text.write_text("no picture")
    arguments = ["--bundle", folder, "--portraits", text, "--out", tmp_path / "out"]
    assert main([str(argument) for argument in arguments]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: a.png")
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_bundle_of_few_sizes_says_so_of_others(bundle):
    card = bundle.card
    sizes = ((card.height, card.width), (card.height + 64, card.width))
    small = dataclasses.replace(bundle, card=dataclasses.replace(card, trained_sizes=sizes))

    def notes_of(bundle, height) -> str:
        request = dataclasses.replace(REQUEST, height=height, width=card.width)
        return " ".join(generate(bundle, request)[0].notes)

    known = f"{card.width} x {card.height} px and {card.width} x {card.height + 64} px alone"
    assert f"pictures of {known}" in notes_of(small, card.height + 32)
    for of, height in ((small, card.height), (small, card.height + 64), (bundle, card.height + 32)):
        assert "alone" not in notes_of(of, height)
