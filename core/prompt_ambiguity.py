"""What a prompt leaves open, with the place in the text, for the app to underline.

The taxonomy follows the failures of IdGlow section 3.2: attribute leakage (an attribute or pronoun that
belongs to nobody in particular), lighting inconsistency, detail omission (no light, no clothing, a person
never mentioned).
The words are data in `prompt_rules.toml`; the check reads English.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from core.prompt_safety import RULES_FILE


class AmbiguityKind(StrEnum):
    UNBOUND_PRONOUN = "unbound pronoun"
    UNBOUND_PERSON = "unbound person"
    UNKNOWN_IMAGE = "unknown image"
    UNBOUND_ATTRIBUTE = "unbound attribute"
    MISSING_LIGHT = "missing light"
    CONTRADICTORY_LIGHT = "contradictory light"
    MISSING_CLOTHING = "missing clothing"


@dataclass(frozen=True)
class Ambiguity:
    """One open question: the characters prompt[start:end] and a sentence for the one who edits it.

    What is missing altogether points at the place where it would be added: an empty span (start == end) at
    the end of the prompt, or the mention of the person it is missing for.
    """

    kind: AmbiguityKind
    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class _Mention:
    images: frozenset[int]
    start: int
    end: int


@dataclass(frozen=True)
class _Sentence:
    text: str
    start: int
    mentions: tuple[_Mention, ...]


def find_ambiguities(prompt: str, people: int) -> list[Ambiguity]:
    """Name what is open in `prompt` for a picture of `people` references, in the order of the text."""
    if people < 1:
        raise ValueError(f"people is {people}; a prompt is checked for at least one reference")
    words = _lexicon()
    sentences = _sentences(prompt, words, people)
    found = [
        *_people(prompt, sentences, words, people),
        *_pronouns(sentences, words, people),
        *_attributes(sentences, words),
        *_clothing(prompt, sentences, words, people),
        *_light(prompt, words),
    ]
    return sorted(found, key=lambda ambiguity: (ambiguity.start, ambiguity.end))


def words_about(prompt: str, people: int) -> list[str]:
    """For each of `people` references the words of the prompt that are bound to it alone, in their order.

    Of a sentence that names one image, all of it; of one that names several, each part from the noun before its image
    ("the woman in the red dress from image 2 ...") to where the next such part begins.
    """
    words = _lexicon()
    found: list[list[str]] = [[] for _ in range(people)]
    for sentence in _sentences(prompt, words, people):
        if not sentence.mentions:
            continue
        starts, after = [], sentence.start
        for mention in sentence.mentions:
            nouns = [after + noun.start() for noun in words.persons.finditer(prompt[after : mention.start])]
            starts.append(nouns[-1] if nouns else mention.start)
            after = mention.end
        end = sentence.start + len(sentence.text)
        if len({mention.images for mention in sentence.mentions}) == 1:
            parts = [(sentence.mentions[0].images, sentence.text)]
        else:
            stops = [*starts[1:], end]
            parts = [(m.images, prompt[x:y]) for m, x, y in zip(sentence.mentions, starts, stops, strict=True)]
        for images, text in parts:
            if len(images) == 1 and 1 <= min(images) <= people:
                found[min(images) - 1].append(text)
    return [" ".join(texts) for texts in found]


@cache
def clothing_words() -> tuple[str, ...]:
    """Garments, singular, as the rules list them."""
    return tuple(tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))["clothing"]["words"])


def _people(prompt: str, sentences: list[_Sentence], words: _Lexicon, people: int) -> Iterator[Ambiguity]:
    named = {image for sentence in sentences for mention in sentence.mentions for image in mention.images}
    for sentence in sentences:
        for mention in sentence.mentions:
            unknown = sorted(image for image in mention.images if not 1 <= image <= people)
            if unknown:
                given = "1 portrait is" if people == 1 else f"{people} portraits are"
                reason = f"There is no image {unknown[0]}: {given} given."
                yield Ambiguity(AmbiguityKind.UNKNOWN_IMAGE, mention.start, mention.end, reason)
        for person in words.persons.finditer(sentence.text):
            start, end = sentence.start + person.start(), sentence.start + person.end()
            of_everyone = words.everyone.search(prompt[max(sentence.start, start - 12) : start])
            bound = any(_is_bound(sentence, start, end, mention, words) for mention in sentence.mentions)
            if not bound and not of_everyone:
                reason = f"“{person.group()}” is not bound to an image; write “{person.group()} from image 1”."
                yield Ambiguity(AmbiguityKind.UNBOUND_PERSON, start, end, reason)
    for image in sorted(set(range(1, people + 1)) - named):
        reason = f"Nobody is said to be from image {image}."
        yield Ambiguity(AmbiguityKind.UNBOUND_PERSON, len(prompt), len(prompt), reason)


def _is_bound(sentence: _Sentence, start: int, end: int, mention: _Mention, words: _Lexicon) -> bool:
    """ "the woman from image 1" and "image 1, a woman": no other person and no clause end in between."""
    between = (
        sentence.text[end - sentence.start : mention.start - sentence.start]
        if end <= mention.start
        else sentence.text[mention.end - sentence.start : start - sentence.start]
    )
    return ";" not in between and not words.persons.search(between) and len(between.split()) <= 6


def _pronouns(sentences: list[_Sentence], words: _Lexicon, people: int) -> Iterator[Ambiguity]:
    everybody = frozenset(range(1, people + 1))
    previous: frozenset[int] = frozenset()
    for sentence in sentences:
        for pronoun in words.pronouns.finditer(sentence.text):
            start = sentence.start + pronoun.start()
            before = [mention.images for mention in sentence.mentions if mention.end <= start]
            named = frozenset().union(*before) if before else previous
            plural = pronoun.group().lower() in words.plural_pronouns
            everyone = words.everyone.search(sentence.text[: pronoun.start()])
            if len(named) == 1 or (plural and (named == everybody or everyone)):
                continue
            whom = "nobody was named before it" if not named else f"it can be {_any_of(named)}"
            reason = f"“{pronoun.group()}” is open: {whom}. Name the image instead."
            yield Ambiguity(AmbiguityKind.UNBOUND_PRONOUN, start, start + len(pronoun.group()), reason)
        named_here = frozenset().union(*(mention.images for mention in sentence.mentions))
        previous = named_here or (everybody if words.everyone.search(sentence.text) else previous)


def _attributes(sentences: list[_Sentence], words: _Lexicon) -> Iterator[Ambiguity]:
    for sentence in sentences:
        if sentence.mentions or words.everyone.search(sentence.text) or words.pronouns.search(sentence.text):
            continue
        for attribute in words.attributes.finditer(sentence.text):
            start = sentence.start + attribute.start()
            reason = f"“{attribute.group()}” belongs to nobody: this sentence names no image."
            yield Ambiguity(AmbiguityKind.UNBOUND_ATTRIBUTE, start, start + len(attribute.group()), reason)


def _clothing(prompt: str, sentences: list[_Sentence], words: _Lexicon, people: int) -> Iterator[Ambiguity]:
    dressed: set[int] = set()
    first: dict[int, _Mention] = {}
    for sentence in sentences:
        everyone_dressed = words.everyone.search(sentence.text) and words.clothing.search(sentence.text)
        if everyone_dressed and not sentence.mentions:
            dressed |= set(range(1, people + 1))
        for mention, stop in zip(
            sentence.mentions,
            [*(m.start for m in sentence.mentions[1:]), sentence.start + len(sentence.text)],
            strict=False,
        ):
            for image in mention.images:
                first.setdefault(image, mention)
            if words.clothing.search(prompt[mention.end : stop]):
                dressed |= mention.images
        # a sentence about one image dresses it wherever the words stand; "everyone" includes the named ones
        named = frozenset().union(*(mention.images for mention in sentence.mentions))
        if everyone_dressed or (len(named) == 1 and words.clothing.search(sentence.text)):
            dressed |= named if len(named) == 1 else set(range(1, people + 1))
    for image in sorted(set(first) - dressed):
        if 1 <= image <= people:
            reason = f"Nothing is said about the clothes of the person from image {image}."
            yield Ambiguity(AmbiguityKind.MISSING_CLOTHING, first[image].start, first[image].end, reason)


def _light(prompt: str, words: _Lexicon) -> Iterator[Ambiguity]:
    if not words.light.search(prompt):
        yield Ambiguity(AmbiguityKind.MISSING_LIGHT, len(prompt), len(prompt), "Nothing is said about the light.")
    for axis, sets in words.light_axes:
        hits = sorted(
            (found.start(), found.end(), index)
            for index, pattern in enumerate(sets)
            for found in pattern.finditer(prompt)
        )
        for start, end, index in hits[1:]:
            if index != hits[0][2]:
                first = prompt[hits[0][0] : hits[0][1]]
                reason = f"The {axis} contradicts “{first}”; the light must be one and the same for all."
                yield Ambiguity(AmbiguityKind.CONTRADICTORY_LIGHT, start, end, reason)


def _any_of(images: frozenset[int]) -> str:
    return " or ".join(f"image {image}" for image in sorted(images))


def _sentences(prompt: str, words: _Lexicon, people: int) -> list[_Sentence]:
    sentences = []
    for found in re.finditer(r"[^.!?\n]+", prompt):
        mentions = tuple(
            _Mention(images, found.start() + hit.start(), found.start() + hit.end())
            for hit in words.mention.finditer(found.group())
            if (images := words.images_of(hit.group(), people))
        )
        sentences.append(_Sentence(found.group(), found.start(), mentions))
    return sentences


@dataclass(frozen=True)
class _Lexicon:
    mention: re.Pattern[str]
    number_words: dict[str, int]
    everyone: re.Pattern[str]
    persons: re.Pattern[str]
    pronouns: re.Pattern[str]
    plural_pronouns: frozenset[str]
    light: re.Pattern[str]
    light_axes: tuple[tuple[str, tuple[re.Pattern[str], ...]], ...]
    clothing: re.Pattern[str]
    attributes: re.Pattern[str]

    def images_of(self, mention: str, people: int) -> frozenset[int]:
        """ "images 1 and 3" -> {1, 3}; "both images" -> everybody."""
        numbers = [int(digits) for digits in re.findall(r"\d+", mention)]
        numbers += [self.number_words[w] for w in re.findall(r"[a-z]+", mention.lower()) if w in self.number_words]
        if not numbers and re.match(r"(both|all)\b", mention, re.IGNORECASE):
            return frozenset(range(1, people + 1))
        return frozenset(numbers)


@cache
def _lexicon() -> _Lexicon:
    data = tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))
    binding = data["binding"]
    nouns, ordinals = "|".join(binding["nouns"]), "|".join(binding["ordinals"])
    number = r"(?:\d{1,2}|" + "|".join(binding["numbers"]) + ")"
    listed = rf"{number}(?:\s*(?:,|and|&|or)\s*(?:(?:{nouns})\s*)?{number})*"
    mention = rf"<?\b(?:{nouns})\s*#?\s*{listed}\b>?|\b(?:both|all|{ordinals})\s+(?:{nouns})\b"
    number_words = {word: n for n, word in enumerate(binding["numbers"], 1)}
    number_words |= {word: n for n, word in enumerate(binding["ordinals"], 1)}
    return _Lexicon(
        mention=re.compile(mention, re.IGNORECASE),
        number_words=number_words,
        everyone=_any_word(binding["everyone"]),
        persons=_any_word(binding["persons"]),
        pronouns=_any_word([*data["pronouns"]["singular"], *data["pronouns"]["plural"]]),
        plural_pronouns=frozenset(data["pronouns"]["plural"]),
        light=_any_word(data["light"]["words"]),
        light_axes=tuple(
            (axis["name"], tuple(_any_word(words) for words in axis["sets"])) for axis in data["light"]["axes"]
        ),
        clothing=_any_word(data["clothing"]["words"], plural=True),
        attributes=_any_word([*data["attributes"]["words"], *data["clothing"]["words"]]),
    )


def _any_word(words: list[str], *, plural: bool = False) -> re.Pattern[str]:
    joined = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"\b(?:{joined}){'(?:s|es)?' if plural else ''}\b", re.IGNORECASE)
