"""Captions of rendered pictures, good and bad, from what is known to be in them (IdGlow section 3.2).

Rich captions bind every attribute to "image k", the portrait of the person it belongs to; `read_facts` reads them
back. Bad ones have one fault of the paper's taxonomy on purpose, and name it: attribute leakage, lighting
inconsistency, detail omission. Together they train the prompt writer and its preference alignment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from core.colours import COLOURS
from core.prompts import static_prompt
from trainers.people.accessories import FRAME_COLOURS, FRAMES, HATS
from trainers.people.beard import BEARDS
from trainers.people.cloth import GARMENTS
from trainers.people.daylight import LIGHTS
from trainers.people.hairstyles import STYLES
from trainers.people.identity import EXPRESSIONS
from trainers.people.indoors import BACKDROPS
from trainers.people.places import PLACES, place_words
from trainers.people.record import POSITIONS, SceneRecord, article, hair_words, noun
from trainers.people.scene import INTERACTIONS

Fault = Literal["attribute leakage", "lighting inconsistency", "detail omission"]
Order = Sequence[int]

EXPRESSION_WORDS = {
    "neutral": ("has a calm expression", "looks calm"),
    "smile": ("smiles", "has a gentle smile"),
    "grin": ("grins", "laughs"),
    "serious": ("looks serious", "frowns a little"),
    "surprised": ("looks surprised", "has a surprised look"),
}
_HAIR_COLOURS = ("black", "dark brown", "brown", "auburn", "red", "dark blond", "blond", "grey", "white")
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBERS += ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen")
_CLASHING_LIGHT = {
    "midday": ("night", "dusk"), "morning": ("night", "sunset"), "sunset": ("midday", "overcast"),
    "overcast": ("midday", "sunset"), "dusk": ("midday", "morning"), "night": ("midday", "overcast"),
    "window": ("night", "lamp"), "lamp": ("midday", "window"),
    "softbox": ("sunset", "night"), "side": ("overcast", "dusk"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PersonFacts:
    """What a caption says of one person. image: number of the portrait, from 1; child_years: set where the picture
    shows somebody as a child, else None; expression: key of EXPRESSIONS; the rest in words, None where nothing is
    said."""

    image: int
    noun: str
    hair: str | None
    clothes: str | None
    beard: str | None
    glasses: str | None
    hat: str | None
    expression: str | None
    position: str | None
    child_years: int | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a caption says: people by the number of their image, place and light in words, what they do as a key."""

    people: tuple[PersonFacts, ...]
    place: str | None
    light: str | None
    interaction: str | None


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption and, for those that are bad on purpose, its fault and one word on how it came about."""

    text: str
    fault: Fault | None = None
    variety: str | None = None


def facts_of(record: SceneRecord, order: Order | None = None, *, as_children: bool = False) -> Facts:
    """The facts of a picture. `order[i]` is the number of the image that shows the i-th person from the left, 1, 2,
    ... in that order when not given. `as_children`: the images show the people as adults, the picture as children."""
    order = list(order or range(1, len(record.people) + 1))
    if sorted(order) != list(range(1, len(record.people) + 1)):
        raise ValueError(f"order is {order}: it names each of the images 1 to {len(record.people)} once.")
    people = [
        PersonFacts(
            image=image,
            noun=p.noun,
            hair=p.hair,
            clothes=p.clothes_words,
            beard=p.beard,
            glasses=p.glasses,
            hat=p.hat,
            expression=p.expression,
            position=p.position,
            child_years=max(1, round(p.age)) if as_children and p.age < 18 else None,
        )
        for image, p in zip(order, record.people, strict=True)
    ]
    return Facts(
        people=tuple(sorted(people, key=lambda p: p.image)),
        place=record.setting.place_words,
        light=record.setting.light_words,
        interaction=record.interaction,
    )


# Good captions --------------------------------------------------------------------------------------------------------


def rich_caption(facts: Facts, seed: int) -> Caption:
    """Every attribute bound to its image, place, light and interaction said once; one of many phrasings."""
    rng = np.random.default_rng([seed, 0xCA])
    sentences = [_person_sentence(p, rng) for p in facts.people]
    ending = _scene_sentence(facts, rng)
    if rng.random() < 0.25:
        sentences.insert(0, ending)
    else:
        sentences.append(ending)
    return Caption(text=" ".join(s for s in sentences if s))


def static_caption(facts: Facts) -> Caption:
    """The app's template with this picture's place and light."""
    task = "child" if any(p.child_years for p in facts.people) else "group"
    return Caption(text=static_prompt(task, len(facts.people), f"{facts.place}, in {facts.light}"))


def user_words(record: SceneRecord, seed: int) -> str:
    """What somebody in a hurry types: "beach, golden sunset light", "In a park at sunset", "us on a city street"."""
    rng = np.random.default_rng([seed, 0xCB])
    setting = record.setting
    key = setting.place if setting.place != "night" else "city at night"
    place = str(rng.choice([setting.place_words, key, *PLACES[setting.place].asked]))
    light = str(rng.choice([setting.light_words, *LIGHTS[setting.light].asked]))
    forms = [place, f"{place}, {light}", f"{place} {light}", f"{light}, {place}"]
    if len(record.people) > 1:
        forms += [f"us {place}", f"all of us {place}, {light}", f"together {place}"]
    words = str(rng.choice(forms))
    return words[0].upper() + words[1:] if rng.random() < 0.3 else words


def _subject(person: PersonFacts, rng: np.random.Generator) -> str:
    link = rng.choice(["in", "from"])
    if person.child_years is None:
        return f"the {person.noun} {link} image {person.image}"
    form = rng.choice(["as a {years}-year-old {noun}", "now a {noun} of {years}"])
    years = _NUMBERS[person.child_years - 1]
    words = form.format(years=years, noun=person.noun)
    if form.startswith("as"):
        words = words.replace("as a ", f"as {article(years)} ")
    return f"the person {link} image {person.image}, {words}"


def _features(person: PersonFacts) -> str:
    return _listed([f for f in (person.hair, person.beard, person.glasses) if f])


def _outfit(person: PersonFacts) -> str:
    worn = [f"{article(w)} {w}" for w in (person.clothes, person.hat) if w]
    return " and ".join(worn)


def _expression(person: PersonFacts, rng: np.random.Generator) -> str:
    return str(rng.choice(EXPRESSION_WORDS[person.expression])) if person.expression else ""


def _person_sentence(person: PersonFacts, rng: np.random.Generator) -> str:
    subject, features, outfit = _subject(person, rng), _features(person), _outfit(person)
    expression, position = _expression(person, rng), person.position
    has, wears = f"has {features}", f"wears {outfit}" if outfit else ""
    pause = ", " if person.child_years else " "
    form = int(rng.integers(4))
    if form == 0:
        parts = [subject, f"with {features}", _listed([w for w in (wears, expression) if w]), position]
    elif form == 1:
        parts = [position, f"{subject}{pause}{_listed([w for w in (has, wears, expression) if w])}"]
    elif form == 2:
        parts = [subject, f"in {outfit}" if outfit else "", f"with {features}", position, expression]
    else:
        dressed = f"is dressed in {outfit}" if outfit else ""
        parts = [subject, position, _listed([w for w in (expression, dressed, has) if w])]
        if not position:
            parts = [f"{subject}{pause}{parts[2]}"]
    text = ", ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."


def _scene_sentence(facts: Facts, rng: np.random.Generator) -> str:
    several = len(facts.people) > 1
    act = INTERACTIONS[facts.interaction] if facts.interaction else ("are" if several else "is")
    where = [facts.place or "", f"in {facts.light}" if facts.light else ""]
    where = ", ".join(w for w in where if w)
    if not where and not facts.interaction:
        return ""
    images = _listed([f"image {p.image}" for p in facts.people])
    who = f"the people in {images}" if several else f"the person in {images}"
    form = int(rng.integers(3))
    if form == 0:
        text = (
            f"{'All of them' if len(facts.people) > 2 else 'Both'} {act} {where}"
            if several
            else f"The picture is taken {where}"
        )
    elif form == 1:
        text = f"{who} {act} {where}"
    else:
        text = f"A photo {where}" + (f": {who} {act}" if facts.interaction else "")
    text = text.strip()
    return f"{text[0].upper()}{text[1:]}."


def _listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if not parts:
        return ""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# Bad captions ---------------------------------------------------------------------------------------------------------


def bad_captions(facts: Facts, record: SceneRecord, seed: int) -> list[Caption]:
    """One caption of each kind that can go wrong with this picture: no leakage where there is nobody to leak to."""
    rng = np.random.default_rng([seed, 0xCC])
    made = [
        _two_lights(facts, record, rng),
        _bare(facts, record, rng),
        _without_clothes(facts, rng),
        _without_light(facts, rng),
    ]
    if len(facts.people) > 1:
        made += [_pronouns(facts, rng), _merged(facts, rng)]
        if (swapped := _swapped(facts, rng)) is not None:
            made.append(swapped)
    return made


def _text(facts: Facts, rng: np.random.Generator) -> str:
    return rich_caption(facts, int(rng.integers(2**31))).text


def _swapped(facts: Facts, rng: np.random.Generator) -> Caption | None:
    """Two people have exchanged clothes, hair or glasses; None when they have all of it alike."""
    first, second = (int(k) for k in rng.choice(len(facts.people), 2, replace=False))
    one, other = facts.people[first], facts.people[second]
    differing = [f for f in ("clothes", "hair", "glasses", "expression") if getattr(one, f) != getattr(other, f)]
    if not differing:
        return None
    field = str(rng.choice(differing))
    people = list(facts.people)
    people[first] = replace(one, **{field: getattr(other, field)})
    people[second] = replace(other, **{field: getattr(one, field)})
    text = _text(replace(facts, people=tuple(people)), rng)
    return Caption(text=text, fault="attribute leakage", variety=f"swapped {field}")


def _pronouns(facts: Facts, rng: np.random.Generator) -> Caption:
    """Attributes bound to he, she and "one of them" instead of images."""
    people = [facts.people[k] for k in rng.permutation(len(facts.people))]
    parts = [f"{_NUMBERS[len(people) - 1].capitalize()} people {facts.place}, in {facts.light}."]
    for person in people:
        female = person.noun.endswith(("woman", "girl"))
        who = str(
            rng.choice(["One of them", "Another" if person is not people[0] else "One", "She" if female else "He"])
        )
        parts.append(f"{who} {_expression(person, rng)} and has {_features(person)} and wears {_outfit(person)}.")
    return Caption(text=" ".join(parts), fault="attribute leakage", variety="unbound")


def _merged(facts: Facts, rng: np.random.Generator) -> Caption:
    """One person's attributes given to everybody."""
    donor = facts.people[int(rng.integers(len(facts.people)))]
    images = _listed([f"image {p.image}" for p in facts.people])
    text = f"The people in {images} have {_features(donor)} and wear {_outfit(donor)}. {_scene_sentence(facts, rng)}"
    return Caption(text=text, fault="attribute leakage", variety="merged")


def _two_lights(facts: Facts, record: SceneRecord, rng: np.random.Generator) -> Caption:
    other = LIGHTS[str(rng.choice(_CLASHING_LIGHT[record.setting.light]))]
    words = str(rng.choice(other.words))
    image = int(rng.integers(len(facts.people))) + 1
    extra = rng.choice(
        [f"The person in image {image} is lit by {words}.", f"{words[0].upper()}{words[1:]} falls on the scene."]
    )
    return Caption(text=f"{_text(facts, rng)} {extra}", fault="lighting inconsistency", variety="two lights")


def _without_clothes(facts: Facts, rng: np.random.Generator) -> Caption:
    people = tuple(replace(p, clothes=None, hat=None) for p in facts.people)
    return Caption(text=_text(replace(facts, people=people), rng), fault="detail omission", variety="clothing")


def _without_light(facts: Facts, rng: np.random.Generator) -> Caption:
    return Caption(text=_text(replace(facts, light=None), rng), fault="detail omission", variety="light")


def _bare(facts: Facts, record: SceneRecord, rng: np.random.Generator) -> Caption:
    """The instruction as the user typed it."""
    text = user_words(record, int(rng.integers(2**31)))
    return Caption(text=f"{text[0].upper()}{text[1:]}.", fault="detail omission", variety="bare instruction")


# Reading them back ----------------------------------------------------------------------------------------------------


def read_facts(text: str) -> Facts:
    """The facts that a rich caption states, read from its words: the check that a caption says what is there."""
    people, rest = [], []
    for sentence in re.findall(r"[^.]+\.", text):
        images = [int(k) for k in re.findall(r"image (\d+)", sentence)]
        if len(images) == 1 and not re.search(r"^\s*(A photo|The person in image \d+ is [io]n)", sentence):
            people.append(_read_person(sentence, images[0]))
        else:
            rest.append(sentence)
    scene = " ".join(rest)
    interactions = [key for key, words in INTERACTIONS.items() if words in scene]
    return Facts(
        people=tuple(sorted(people, key=lambda p: p.image)),
        place=_longest(_place_vocabulary(), scene),
        light=_longest([w for light in LIGHTS.values() for w in light.words], scene),
        interaction=interactions[0] if interactions else None,
    )


def _read_person(sentence: str, image: int) -> PersonFacts:
    sentence = sentence.strip()
    lower = sentence[0].lower() + sentence[1:]
    years = re.search(rf"as an? ({'|'.join(_NUMBERS)})-year-old", lower) or re.search(
        rf"now a [a-z ]+ of ({'|'.join(_NUMBERS)})\b", lower
    )
    expressions = [key for key in EXPRESSIONS if any(words in lower for words in EXPRESSION_WORDS[key])]
    return PersonFacts(
        image=image,
        noun=_longest(_nouns(), lower) or "",
        hair=_longest(_hair_vocabulary(), lower),
        clothes=_longest(_clothes_vocabulary(), lower),
        beard=_longest([b.words for b in BEARDS.values()], lower),
        glasses=_longest(_glasses_vocabulary(), lower),
        hat=_longest([f"{colour} {hat}" for colour in COLOURS for hat in HATS.values()], lower),
        expression=expressions[0] if expressions else None,
        position=_longest([p for row in POSITIONS.values() for p in row if p], lower),
        child_years=_NUMBERS.index(years[1]) + 1 if years else None,
    )


def _longest(vocabulary: Sequence[str], text: str) -> str | None:
    """The longest of the words that stand in the text, whole: "red T-shirt" is not in "dark-red T-shirts"."""
    inside = (words for words in vocabulary if words in text)
    found = [words for words in inside if re.search(rf"(?<![\w-]){re.escape(words)}(?![\w-])", text)]
    return max(found, key=len) if found else None


@cache
def _nouns() -> tuple[str, ...]:
    return tuple({noun(female=f, age=a) for f in (True, False) for a in (1, 8, 15, 25, 45, 75)})


@cache
def _hair_vocabulary() -> tuple[str, ...]:
    return tuple({hair_words(style.words, colour) for style in STYLES.values() for colour in _HAIR_COLOURS})


@cache
def _clothes_vocabulary() -> tuple[str, ...]:
    plain = [f"{c} {g}" for c in COLOURS for k, g in GARMENTS.items() if k not in ("striped t-shirt", "jacket")]
    pairs = [(a, b) for a in COLOURS for b in COLOURS]
    striped = [f"{a} and {b} striped T-shirt" for a, b in pairs]
    return tuple(plain + striped + [f"{a} jacket over a {b} shirt" for a, b in pairs])


@cache
def _glasses_vocabulary() -> tuple[str, ...]:
    return ("sunglasses", *(f"{frame} {colour} glasses" for frame in FRAMES for colour in FRAME_COLOURS))


@cache
def _place_vocabulary() -> tuple[str, ...]:
    plain = [place_words(words, None) for name, p in PLACES.items() for words in p.words if name != "studio"]
    return tuple(plain + [place_words(words, paper) for words in PLACES["studio"].words for paper in BACKDROPS])
