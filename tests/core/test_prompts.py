"""Templates, writer, ambiguities and refusals; oracle: sentences a person would judge the same way."""

from types import SimpleNamespace

import numpy as np
import pytest

from core.prompt_writer import PromptWriter
from core.prompts import (
    AmbiguityKind,
    PromptRefused,
    Task,
    Writing,
    find_ambiguities,
    refuse_unsafe,
    static_prompt,
    writer_instruction,
)


def kinds(prompt: str, people: int) -> list[tuple[AmbiguityKind, str]]:
    return [(a.kind, prompt[a.start : a.end]) for a in find_ambiguities(prompt, people)]


CLEAR = (
    "The woman from image 1 on the left wears a red dress and the man from image 2 on the right "
    "wears a blue shirt. Both smile in the soft light of a park at sunset."
)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("people", [1, 2, 3, 5])
def test_static_prompt_names_every_image_and_is_unambiguous(task, people):
    prompt = static_prompt(task, people, "in a park at sunset")
    assert all(f"image {k}" in prompt for k in range(1, people + 1))
    assert "in a park at sunset" in prompt
    assert find_ambiguities(prompt, people) == []
    refuse_unsafe(prompt, children=task is Task.CHILD)


def test_static_prompt_of_the_child_task_says_children():
    assert "children" in static_prompt("child", 2, "")
    assert "child" not in static_prompt("group", 2, "")


def test_ages_are_said_where_they_were_asked_for():
    mixed = static_prompt("child", 3, "", [6, None, 70])
    assert "the 6-year-old child from image 1 on the left" in mixed
    assert "the child from image 2 in the middle" in mixed
    assert "the 70-year-old person from image 3" in mixed
    assert "at another age" in mixed
    assert "as children" in static_prompt("child", 2, "", [6, 9])
    assert "Image 2 is 9 years old" in writer_instruction("child", 2, "", [None, 9])
    assert static_prompt("group", 2, "", [6, 9]) == static_prompt("group", 2, "")
    assert find_ambiguities(mixed, 3) == []
    with pytest.raises(ValueError, match="age 120"):
        static_prompt("child", 1, "", [120])
    with pytest.raises(ValueError, match="2 ages for 1"):
        static_prompt("child", 1, "", [6, 7])


def test_templates_refuse_no_people_and_unknown_tasks():
    with pytest.raises(ValueError, match="people is 0"):
        static_prompt("group", 0, "")
    with pytest.raises(ValueError, match="wedding"):
        static_prompt("wedding", 2, "")
    with pytest.raises(ValueError, match="people is 0"):
        find_ambiguities("x", 0)


# --- ambiguities


def test_clear_prompt_has_no_ambiguity():
    assert kinds(CLEAR, 2) == []


def test_bare_people_are_unbound_and_missing_images_are_named():
    found = kinds("A man and a woman in coats stand in the sun.", 2)
    assert (AmbiguityKind.UNBOUND_PERSON, "man") in found
    assert (AmbiguityKind.UNBOUND_PERSON, "woman") in found
    assert found.count((AmbiguityKind.UNBOUND_PERSON, "")) == 2


def test_pronoun_is_bound_by_one_person_and_open_between_two():
    single = "The man from image 1 in a suit smiles and he waves. Warm light."
    two = "The man from image 1 in a suit meets the man from image 2 in a coat. He waves. Warm light."
    assert kinds(single, 1) == []
    assert kinds(two, 2) == [(AmbiguityKind.UNBOUND_PRONOUN, "He")]


def test_they_is_open_when_it_can_be_some_of_them():
    prompt = "The people from images 1 and 2 wear coats. They laugh. Image 3 wears a suit in the sun."
    assert kinds(prompt, 3) == [(AmbiguityKind.UNBOUND_PRONOUN, "They")]
    assert kinds(prompt.split(" Image 3")[0] + " Soft light.", 2) == []


def test_missing_light_points_at_the_end():
    prompt = "The person from image 1 wears a green sweater"
    (found,) = find_ambiguities(prompt, 1)
    assert (found.kind, found.start, found.end) == (AmbiguityKind.MISSING_LIGHT, len(prompt), len(prompt))


def test_missing_clothing_points_at_the_person():
    prompt = "The person from image 1 wears a coat beside the person from image 2 in the sun."
    assert kinds(prompt, 2) == [(AmbiguityKind.MISSING_CLOTHING, "image 2")]


def test_clothing_for_everyone_dresses_everyone():
    assert kinds("The people from image 1 and image 2 stand close in the sun. Both wear black suits.", 2) == []


@pytest.mark.parametrize(
    ("light", "second"),
    [
        ("at sunset under the moonlight", "moonlight"),
        ("in soft light with hard shadows", "hard shadows"),
        ("with light from the left and light from the right", "light from the right"),
    ],
)
def test_contradictory_light_marks_the_second_word(light, second):
    prompt = f"The person from image 1 wears a coat {light}."
    assert kinds(prompt, 1) == [(AmbiguityKind.CONTRADICTORY_LIGHT, second)]


def test_attribute_of_nobody_and_unknown_image():
    prompt = "The person from image 1 wears a coat in the sun. A red hat. The person from image 4 wears a suit."
    assert kinds(prompt, 1) == [
        (AmbiguityKind.UNBOUND_ATTRIBUTE, "hat"),
        (AmbiguityKind.UNKNOWN_IMAGE, "image 4"),
    ]


def test_images_can_be_named_in_words_and_by_order():
    assert kinds("The person from the first portrait in a coat and picture two in a suit, in the sun.", 2) == []


# --- refusals


@pytest.mark.parametrize(
    "prompt",
    [
        "two nude people",
        "a couple having SEX",
        "porn",
        "explicit NSFW group picture",
        "topless on the beach",
        "both without any clothes",
        "a see-through blouse",
        "see through dress",
        "in lingerie",
        # spelling tricks
        "N U D E",
        "n ude",
        "n.u.d.e",
        "n_a_k_e_d",
        "nu-de",
        "nuuuuude",
        "s3x",
        "$ex",
        "p0rn",
        "p*rn",
        "n4k3d",
        "t1ts",
        "pôrn",
        "ＮＵＤＥ",
        "𝓷𝓾𝓭𝓮",
        "n​u​d​e",
        "nаkеd",  # Cyrillic a and e
        "ρоrn",  # Greek rho, Cyrillic o
        "nude lipstick on a nude woman",
        "loli",
    ],
)
def test_sexual_content_is_refused_for_everybody(prompt):
    for children in (False, True):
        with pytest.raises(PromptRefused):
            refuse_unsafe(prompt, children=children)


@pytest.mark.parametrize(
    "prompt",
    [
        "in bikinis at the pool",
        "a kiss",
        "a romantic dinner",
        "in underwear",
        "in a bathtub",
        "shirtless",
        "k1ss",
        "breastfeeding",
    ],
)
def test_swimwear_and_romance_are_refused_with_children_only(prompt):
    refuse_unsafe(prompt, children=False)
    with pytest.raises(PromptRefused):
        refuse_unsafe(prompt, children=True)


@pytest.mark.parametrize(
    "who",
    [
        "two girls",
        "the boy from image 1",
        "a teenager",
        "kids",
        "a 9-year-old",
        "12 years old",
        "k1ds",
        "a schoolgirl",
    ],
)
def test_naming_a_child_is_enough_for_the_stricter_list(who):
    refuse_unsafe(f"{who} in raincoats", children=False)
    with pytest.raises(PromptRefused):
        refuse_unsafe(f"{who} in a bikini", children=False)


@pytest.mark.parametrize(
    "prompt",
    [
        "in Sussex, Essex and Middlesex",
        "with a cocktail and a peacock",
        "a grape, a therapist and a drapery",
        "Scunthorpe, analysis of documents, the class of assassins, a bass on the grass",
        "nude lipstick and a pencil skirt",
        "a sunset to the naked eye",
        "the opposite sex",
        "a same-sex couple in suits",
        "chicken breast on the grill",
        "a double-breasted jacket with a breast pocket",
        "Hello! See you @ 5, Anna's ex-neighbour",
        "a sextant and a sextet",
        "a condominium in the sun",
        "",
    ],
)
def test_innocent_words_pass(prompt):
    refuse_unsafe(prompt, children=False)


@pytest.mark.parametrize(
    "prompt",
    [
        "as children in blue T-shirts at a birthday party",
        "in a rain shower with umbrellas",
        "sun-kissed grapes and passion fruit",
        "in a garden, on a bed of flowers, with bare feet in the grass",
        "in Sussex with assistants, classes and buttons",
    ],
)
def test_innocent_pictures_of_children_pass(prompt):
    refuse_unsafe(prompt, children=True)


def test_a_refusal_says_what_and_where():
    prompt = "In the park, both N-a-k-e-d."
    with pytest.raises(PromptRefused, match="nudity") as refused:
        refuse_unsafe(prompt, children=False)
    assert prompt[refused.value.start : refused.value.end] == "N-a-k-e-d"
    assert refused.value.category == "nudity"


# --- the writer, on a tiny random model of the real classes


@pytest.fixture(scope="module")
def writer_parts():
    from trainers.mini.models import VlmSize, build_processor, build_tokenizer, build_vlm

    size = VlmSize(hidden_size=64, layers=2, heads=2, vision_hidden_size=64, vision_layers=2, vocabulary=512)
    corpus = ["Write the prompt for a picture of these people, image 1 to image 2."] * 20
    tokenizer = build_tokenizer(corpus, size)
    return SimpleNamespace(text_encoder=build_vlm(tokenizer, size).eval(), processor=build_processor(tokenizer))


PORTRAITS = [np.random.default_rng(k).integers(0, 255, (64, 64, 3), dtype=np.uint8) for k in range(2)]


def test_greedy_writing_repeats_and_matches_generate(writer_parts):
    import torch

    writer = PromptWriter(writer_parts)
    greedy = Writing(temperature=0, max_tokens=12)
    pieces = list(writer.write(PORTRAITS, "group", "in a park", writing=greedy))
    again = "".join(writer.write(PORTRAITS, "group", "in a park", writing=greedy))
    processor, model = writer_parts.processor, writer_parts.text_encoder
    content = [
        {"type": "text", "text": writer_instruction("group", 2, "in a park")},
        {"type": "image"},
        {"type": "image"},
    ]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[text], images=PORTRAITS, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "".join(pieces) == again == processor.tokenizer.decode(ids, skip_special_tokens=True)


def test_sampling_follows_the_seed_and_leaves_the_global_generator_alone(writer_parts):
    import torch

    writer = PromptWriter(writer_parts)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    texts = ["".join(writer.write(PORTRAITS, "child", "", writing=Writing(seed=s, max_tokens=12))) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(before, torch.get_rng_state())


def test_closing_the_stream_stops_the_model(writer_parts):
    import threading

    writer = PromptWriter(writer_parts)
    stream = writer.write(PORTRAITS, "group", "", writing=Writing(temperature=1.5, max_tokens=4000))
    next(stream)
    stream.close()
    assert not any(thread.name == "prompt-writer" for thread in threading.enumerate())


def test_unsafe_scene_words_are_refused_before_writing(writer_parts):
    with pytest.raises(PromptRefused):
        PromptWriter(writer_parts).write(PORTRAITS, "child", "at the beach in bikinis")


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"max_tokens": 0}])
def test_writing_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Writing(**bad)
