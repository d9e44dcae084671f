"""The four metrics: numbers by hand, pictures painted on purpose, the published heads where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from core.clip import ClipScorer, installed_clip, read_head
from core.colours import COLOURS, lab
from core.identity import FaceReport, ReferenceRow
from core.metrics import Measure, clothing, colours_said, differences, identity, measure_picture
from core.prompts import static_prompt
from tests.shared import SHARED

HEADS = SHARED / "real" / "aesthetic"


def report(*rows: ReferenceRow) -> FaceReport:
    return FaceReport(
        face_sim=0.0,
        coverage=0.0,
        duplicates=0,
        swaps=0,
        face_count=len(rows),
        count_correct=True,
        threshold=0.5,
        rows=rows,
    )


def row(reference: int, similarity: float = 0.8, *, left: float | None = None, **faults: bool) -> ReferenceRow:
    box = None if left is None else (left, 10.0, left + 20.0, 34.0)
    return ReferenceRow(reference, None if box is None else reference, similarity, covered=True, box=box, **faults)


def test_identity_counts_missing_doubled_and_swapped_people_as_zero():
    assert identity(report(row(0, 0.9), row(1, 0.5)), "pack").value == pytest.approx(0.7)
    faulty = report(row(0, 0.9), row(1, 0.5, duplicated=True), row(2, 0.7, swapped=True), row(3, 0.0))
    assert identity(faulty, "pack").value == pytest.approx(0.9 / 4)
    assert "pack" in identity(faulty, "pack").how


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (
            "The man from image 1 wears a navy knitted sweater. The woman from image 2 wears a red dress.",
            ["navy", "red"],
        ),
        (
            "The man in the blue shirt from image 1 stands beside the woman in the red dress from image 2.",
            ["blue", "red"],
        ),
        ("The man from image 1 in a light blue hoodie; the woman from image 2 has red hair.", ["light blue", None]),
        ("Image 1 wears a navy jacket over a white shirt. Image 2 a red and white striped T-shirt.", [None, None]),
        (static_prompt("group", 2, "in a red barn"), [None, None]),
    ],
)
def test_colours_that_a_prompt_says(prompt, said):
    assert colours_said(prompt, 2) == said


def painted(*colours: str) -> np.ndarray:
    """Plain coloured stripes, one for each person of 40 px."""
    return np.concatenate([np.full((80, 40, 3), COLOURS[c], np.uint8) for c in colours], axis=1)


def test_clothes_of_the_colour_that_was_said():
    prompt = "The man from image 1 wears a green shirt. The woman from image 2 wears a red dress."
    faces = report(row(0, left=10.0), row(1, left=50.0))
    assert clothing(painted("green", "red"), prompt, faces).value == pytest.approx(1.0, abs=1e-6)
    # by hand: the distance of white and red in L*a*b*, over 100
    far = 1 - np.linalg.norm(lab(COLOURS["white"]) - lab(COLOURS["red"])) / 100
    assert clothing(painted("green", "white"), prompt, faces).value == pytest.approx((1 + max(0, far)) / 2, abs=1e-6)
    assert clothing(painted("green", "red"), prompt, report(row(0, left=10.0), row(1))).value == pytest.approx(0.5)
    assert clothing(painted("green", "red")[:30], prompt, faces) is None  # ends above the clothes
    assert clothing(painted("green", "red"), static_prompt("group", 2, ""), faces) is None


def test_lab_of_known_colours():
    """Oracle: published L*a*b* (D65) of the sRGB primaries."""
    np.testing.assert_allclose(lab((255, 255, 255)), (100, 0, 0), atol=0.05)
    np.testing.assert_allclose(lab((255, 0, 0)), (53.24, 80.09, 67.20), atol=0.1)
    np.testing.assert_allclose(lab((0, 0, 255)), (32.30, 79.19, -107.86), atol=0.1)


def test_what_has_no_model_is_absent():
    picture = painted("red", "blue")
    assert measure_picture(picture, "a prompt", None) == {}
    faces = report(row(0, left=10.0))
    assert measure_picture(picture, "a prompt", faces, pack="tiny").keys() == {"identity"}


def test_values_of_different_instruments_are_not_subtracted():
    chosen = {"identity": Measure(0.75, "pack one"), "object": Measure(0.5, "x")}
    rejected = {"identity": Measure(0.25, "pack one"), "object": Measure(0.25, "y")}
    assert differences(chosen, rejected) == {"identity": 0.5}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """A random CLIP of the real classes, as transformers saves one."""
    folder = tmp_path_factory.mktemp("clip")
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    vocabulary |= {f"{letter}</w>": len(vocabulary) + i for i, letter in enumerate(letters)}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    text = {**sizes, "vocab_size": len(vocabulary), "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    return folder


def test_clip_scores_prompts_by_sentence(tiny_clip):
    scorer = ClipScorer(tiny_clip)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(2)]
    first, second = (scorer.semantic("Two people. They laugh!", picture) for picture in pictures)
    assert first != second
    alone = [scorer.semantic(sentence, pictures[0]) for sentence in ("Two people.", "They laugh!")]
    assert first == pytest.approx(np.mean(alone), abs=1e-5)
    assert scorer.aesthetic(pictures[0]) is None
    assert measure_picture(pictures[0], "Two people.", None, clip=scorer).keys() == {"semantic"}


def test_clip_is_found_where_the_environment_says(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("IDGLOW_CLIP", str(tmp_path))
    assert installed_clip() is None
    monkeypatch.setenv("IDGLOW_CLIP", "nobody/has-this-model")
    assert installed_clip() is None
    weights = {"weight": torch.ones(1, 16), "bias": torch.tensor([2.0])}
    torch.save(weights, tmp_path / "head.pth")
    monkeypatch.setenv("IDGLOW_CLIP", str(tiny_clip))
    monkeypatch.setenv("IDGLOW_AESTHETIC_HEAD", str(tmp_path / "head.pth"))
    scorer = installed_clip()
    picture = np.full((32, 32, 3), 90, np.uint8)
    assert scorer.aesthetic(picture) == pytest.approx(float(scorer._features(picture).sum()) + 2, abs=1e-5)
    found = measure_picture(picture, "A prompt.", None, clip=scorer)
    assert found["aesthetic"].how.startswith("head on ")


def test_other_heads_are_refused(tmp_path):
    torch.save({"layers.0.weight": torch.ones(1, 4)}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match="none of the two aesthetic heads"):
        read_head(tmp_path / "head.pth", 4)
    torch.save({"weight": torch.ones(1, 4), "bias": torch.ones(1)}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match="features of 4 numbers, CLIP gives 8"):
        read_head(tmp_path / "head.pth", 8)


@pytest.mark.shared
@pytest.mark.skipif(not HEADS.is_dir(), reason="the published aesthetic heads are not here")
def test_the_published_heads():
    """The first head rates the features that LAION published for each rating in their order."""
    features = [
        torch.from_numpy(np.load(HEADS / "laion_v1" / "vit_l_14_embeddings" / f"rating{k}.npy"))[0] for k in range(10)
    ]
    first = read_head(HEADS / "laion_v1" / "sa_0_4_vit_l_14_linear.pth", 768)
    ratings = [float(first(feature)) for feature in features]
    assert ratings[9] > ratings[0] + 2
    assert np.corrcoef(ratings, range(10))[0, 1] > 0.9
    improved = HEADS / "improved_v2" / "sac+logos+ava1-l14-linearMSE.pth"
    weights = torch.load(improved, map_location="cpu", weights_only=True)
    expected = features[5]
    for number in (0, 2, 4, 6, 7):
        expected = weights[f"layers.{number}.weight"] @ expected + weights[f"layers.{number}.bias"]
    torch.testing.assert_close(read_head(improved, 768)(features[5]), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="none of the two"):
        read_head(HEADS / "improved_v2" / "ava+logos-l14-reluMSE.pth", 768)
