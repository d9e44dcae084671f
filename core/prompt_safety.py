"""Refusal of prompts with sexual content, always, and by a stricter list where children are in the picture.

The list is data (`prompt_rules.toml`). Before matching, a prompt is read in several ways, so that spelling
tricks do not help: case, accents, zero-width characters, letters of other scripts that look Latin, leetspeak,
separators inside a word, letters spelled one by one, stretched letters. Only whole words and phrases match.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

RULES_FILE = Path(__file__).with_name("prompt_rules.toml")

_LEET = str.maketrans("034578@$!|€£", "oeastbasilel")
_WORD = re.compile(r"[^\W_]+")
_WORD_WITH_SIGNS = re.compile(r"[^\W_]+(?:[@$!|€£*.\-_]+[^\W_]+)*|[@$!|€£][^\W_@$!|€£]*(?:[@$!|€£]+[^\W_]+)*")


class PromptRefused(ValueError):
    """A prompt that must not be drawn. `category` names why, `start` and `end` the place in the prompt."""

    def __init__(self, category: str, excerpt: str, start: int, end: int) -> None:
        self.category, self.excerpt, self.start, self.end = category, excerpt, start, end
        super().__init__(
            f"This prompt is refused because of {category}: “{excerpt}”. "
            "No picture is made from it; please describe the people, their clothes, the place and the light."
        )


def refuse_unsafe(prompt: str, *, children: bool) -> None:
    """Raise `PromptRefused` for sexual content, more strictly with `children` or a child named.

    Args:
        prompt: any text a person or a model wrote; scene words and whole prompts alike.
        children: the picture will show children (the age task).
    """
    rules = _rules()
    text = _Normalised.of(prompt)
    readings = [*text.readings()]
    allowed = [span for span, _ in _find(rules.allowed, readings[:1])]
    strict = (
        children or any(True for _ in _outside(_find(rules.minors, readings), allowed)) or _names_minor_age(text, rules)
    )
    for category, children_only, terms in rules.refusals:
        if children_only and not strict:
            continue
        for (start, end), _ in _outside(_find(terms, readings), allowed):
            raise PromptRefused(category, prompt[start:end], start, end)


@dataclass(frozen=True)
class _Word:
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class _Normalised:
    """The prompt in lower-case Latin letters as far as possible; character i stands at `origin[i]` of it."""

    text: str
    origin: tuple[int, ...]

    @classmethod
    def of(cls, prompt: str) -> _Normalised:
        lookalikes = _lookalikes()
        text, origin = [], []
        for index, character in enumerate(prompt):
            for part in unicodedata.normalize("NFKD", character).casefold().translate(lookalikes):
                if unicodedata.category(part) in ("Mn", "Cf") or part in "'’`":
                    continue
                text.append(part)
                origin.append(index)
        return cls("".join(text), tuple(origin))

    def readings(self) -> Iterator[list[_Word]]:
        """The ways to read the prompt, the plain one first."""
        yield self._words(_WORD)
        signs = self._words(_WORD_WITH_SIGNS)
        for one, repeats in product("il", (3, 1, 2)):
            words = [_Word(_stretched(_unleet(w.text, one), repeats), w.start, w.end) for w in signs]
            yield words
            yield _join_letters(words)

    def _words(self, pattern: re.Pattern[str]) -> list[_Word]:
        return [
            _Word(found.group(), self.origin[found.start()], self.origin[found.end() - 1] + 1)
            for found in pattern.finditer(self.text)
        ]


def _unleet(word: str, one: str) -> str:
    if any(character.isalpha() for character in word):
        word = word.replace("1", one).translate(_LEET)
    return re.sub(r"[^\w]|_", "", word)


def _stretched(word: str, repeats: int) -> str:
    """Three or more equal letters in a row become `repeats` (3 leaves them)."""
    return word if repeats == 3 else re.sub(r"([^\W\d])\1{2,}", r"\1" * repeats, word)


def _join_letters(words: list[_Word]) -> list[_Word]:
    """Letters on their own belong together: "n u d e" is read whole and in parts, "n ude" as one word."""
    joined: list[_Word] = []
    run: list[_Word] = []
    for word in [*words, None]:
        if word is not None and len(word.text) == 1:
            run.append(word)
            continue
        joined += [_merge(run[i:j]) for i in range(len(run)) for j in range(i + 3, len(run) + 1)]
        if word is not None:
            prefix = run if len(run) == 1 and run[0].text not in "ai" else []
            joined.append(_merge([*prefix, word]))
        run = []
    return joined


def _merge(words: list[_Word]) -> _Word:
    return _Word("".join(word.text for word in words), words[0].start, words[-1].end)


def _find(terms: re.Pattern[str], readings: Iterable[list[_Word]]) -> Iterator[tuple[tuple[int, int], str]]:
    for words in readings:
        line, starts = "", []
        for word in words:
            starts.append(len(line))
            line += word.text + " "
        for found in terms.finditer(line):
            covered = [w for w, s in zip(words, starts, strict=True) if found.start() <= s < found.end()]
            yield (covered[0].start, covered[-1].end), found.group()


def _outside(
    found: Iterable[tuple[tuple[int, int], str]], allowed: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], str]]:
    for (start, end), text in found:
        if not any(start < a_end and a_start < end for a_start, a_end in allowed):
            yield (start, end), text


def _names_minor_age(text: _Normalised, rules: _Rules) -> bool:
    ages = re.findall(r"\b(\d{1,3})\s*(?:-|–)?\s*(?:years?|yrs?|yo|y/o)\b", text.text)
    return any(int(age) <= rules.max_minor_age for age in ages)


@dataclass(frozen=True)
class _Rules:
    refusals: tuple[tuple[str, bool, re.Pattern[str]], ...]
    minors: re.Pattern[str]
    allowed: re.Pattern[str]
    max_minor_age: int


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))


@cache
def _lookalikes() -> dict[int, str]:
    return {ord(other): latin for latin, others in _data()["lookalikes"].items() for other in others}


@cache
def _rules() -> _Rules:
    data = _data()
    return _Rules(
        refusals=tuple((r["category"], r["children_only"], _pattern(r["terms"])) for r in data["refusals"]),
        minors=_pattern(data["minors"]["terms"]),
        allowed=_pattern(data["allowed"]["terms"]),
        max_minor_age=data["minors"]["max_age"],
    )


def _pattern(terms: list[str]) -> re.Pattern[str]:
    """Whole words of a line of words separated by single spaces; a trailing * takes any ending."""
    alternatives = []
    for term in terms:
        words = _WORD.findall(_Normalised.of(term.removesuffix("*")).text)
        alternatives.append(" ".join(words) + (r"\w*" if term.endswith("*") else ""))
    return re.compile(r"(?<!\S)(?:" + "|".join(sorted(alternatives, key=len, reverse=True)) + r")(?= )")
