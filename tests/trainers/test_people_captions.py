"""Captions of rendered pictures: what they say is what is there, and bad ones have the fault they name."""

import pytest

from core.prompts import AmbiguityKind, find_ambiguities
from trainers.mini.obedience import light_said
from trainers.people.captions import (
    bad_captions,
    facts_of,
    read_facts,
    rich_caption,
    static_caption,
    user_words,
)
from trainers.people.daylight import LIGHTS
from trainers.people.places import PLACES
from trainers.people.record import Face, describe
from trainers.people.scene import plan_group

FACE = Face(box=(0.0, 0.0, 9.0, 9.0), landmarks=((1.0, 1.0),) * 5, visible=1.0)


def record_of(seed, **arguments):
    scene = plan_group(seed, **arguments)
    return describe(scene, [FACE] * len(scene.members), 256)


RECORDS = [record_of(seed) for seed in range(60)]
GROUPS = [record for record in RECORDS if len(record.people) > 1]


@pytest.mark.parametrize("phrasing", range(4))
def test_a_rich_caption_says_exactly_the_facts(phrasing):
    for number, record in enumerate(RECORDS):
        order = list(range(len(record.people), 0, -1)) if number % 2 else None
        facts = facts_of(record, order)
        assert read_facts(rich_caption(facts, 10 * number + phrasing).text) == facts


def test_a_caption_of_children_says_their_years():
    for seed in range(20):
        record = record_of(seed, ages=[4.2, 9.6])
        facts = facts_of(record, as_children=True)
        assert [p.child_years for p in facts.people] == [4, 10]
        text = rich_caption(facts, seed).text
        assert read_facts(text) == facts
        assert text.count("The person in image 1,") + text.count("he person from image 1,") == 1


def test_rich_captions_leave_nothing_open():
    for record in RECORDS:
        for seed in range(3):
            text = rich_caption(facts_of(record), seed).text
            assert find_ambiguities(text, len(record.people)) == [], text


def test_the_order_binds_images_to_people():
    record = record_of(1, people=3)
    facts = facts_of(record, [2, 3, 1])
    by_image = {p.image: p for p in facts.people}
    assert by_image[2].clothes == record.people[0].clothes_words
    assert by_image[1].position == "on the right"
    with pytest.raises(ValueError, match="names each of the images 1 to 3 once"):
        facts_of(record, [1, 1, 2])


def test_phrasings_vary_and_repeat_with_their_seed():
    facts = facts_of(GROUPS[0])
    assert rich_caption(facts, 4) == rich_caption(facts, 4)
    assert len({rich_caption(facts, seed).text for seed in range(30)}) > 15


def test_static_and_user_words_name_place_or_light():
    for record in RECORDS:
        text = static_caption(facts_of(record)).text
        assert record.setting.place_words in text
        assert record.setting.light_words in text
        words = user_words(record, 3)
        assert len(words) < 90
        setting = record.setting
        named = (setting.place_words, setting.place, "city at night", *PLACES[setting.place].asked)
        assert any(phrase.lower() in words.lower() for phrase in named)


def test_people_in_a_hurry_ask_for_the_same_in_many_ways():
    record = next(one for one in RECORDS if one.setting.light == "sunset")
    asked = {user_words(record, seed) for seed in range(200)}
    assert any("at sunset" in words for words in asked)
    assert any("golden sunset light" in words or "warm evening sun" in words for words in asked)
    assert any(words[0].isupper() for words in asked)
    assert {light_said(words) for words in asked} == {"sunset", None}


def bad(record, variety, seed=0):
    return [c for c in bad_captions(facts_of(record), record, seed) if c.variety.startswith(variety)]


def kinds(caption, record):
    return {ambiguity.kind for ambiguity in find_ambiguities(caption.text, len(record.people))}


def test_every_fault_of_the_taxonomy_is_made():
    for record in GROUPS:
        faults = {c.fault for c in bad_captions(facts_of(record), record, 1)}
        assert faults == {"attribute leakage", "lighting inconsistency", "detail omission"}


def test_nothing_leaks_where_there_is_nobody_to_leak_to():
    alone = next(r for r in RECORDS if len(r.people) == 1)
    assert all(c.fault != "attribute leakage" for c in bad_captions(facts_of(alone), alone, 0))


def test_swapped_attributes_are_wrong_for_two_people_and_right_for_the_rest():
    seen = set()
    for seed, record in enumerate(GROUPS):
        facts = facts_of(record)
        for caption in bad(record, "swapped", seed):
            field = caption.variety.split()[1]
            seen.add(field)
            back = read_facts(caption.text)
            wrong = [a.image for a, b in zip(facts.people, back.people, strict=True) if a != b]
            assert len(wrong) == 2, caption.text
            values = {getattr(p, field) for p in facts.people if p.image in wrong}
            assert values == {getattr(p, field) for p in back.people if p.image in wrong}
            assert (back.place, back.light) == (facts.place, facts.light)
    assert {"clothes", "hair"} <= seen


def test_unbound_captions_name_no_image():
    for record in GROUPS:
        (caption,) = bad(record, "unbound")
        assert "image" not in caption.text
        assert {AmbiguityKind.UNBOUND_PERSON, AmbiguityKind.UNBOUND_PRONOUN} & kinds(caption, record)


def test_merged_captions_give_one_outfit_to_everybody():
    for record in GROUPS:
        (caption,) = bad(record, "merged")
        assert sum(p.clothes_words in caption.text for p in record.people) >= 1
        assert caption.text.startswith("The people in image 1")


def test_two_lights_contradict():
    for record in RECORDS:
        (caption,) = bad(record, "two lights")
        said = [name for name, light in LIGHTS.items() if any(words in caption.text.lower() for words in light.words)]
        assert record.setting.light in said
        assert len(said) == 2


def test_omissions_leave_out_what_they_say():
    for record in RECORDS:
        facts = facts_of(record)
        (dressed,), (lit,) = bad(record, "clothing"), bad(record, "light")
        back = read_facts(dressed.text)
        assert {(p.clothes, p.hat) for p in back.people} == {(None, None)}
        assert [p.hair for p in back.people] == [p.hair for p in facts.people]
        assert read_facts(lit.text).light is None
        assert read_facts(lit.text).people == facts.people
        (bare,) = bad(record, "bare")
        assert not any(p.clothes_words in bare.text for p in record.people)
