"""What is said about a comparison once it is decided: where its pictures came from and who is recognised."""

from __future__ import annotations

from html import escape

from studio.adapter_choice import adapter_name
from studio.context import Studio
from studio.judging import REASONS, Judging
from studio.panels import results
from studio.store.models import Candidate, Generation, Outcome, Pick

LETTERS = "ABCD"


def reveal_html(studio: Studio, judging: Judging, pick: Pick) -> str:
    """Where the pictures of the pair just judged came from; nothing where they may come back blind."""
    if judging.session is not None and studio.store.sessions.get(judging.session).repeat_share > 0:
        return '<p class="reveal-none">Sources stay hidden in this session, because comparisons may come back.</p>'
    by_id = {candidate.id: candidate for candidate in pick.comparison.candidates}
    cards = "".join(
        _card(studio, by_id[candidate_id], LETTERS[position], _place(pick, candidate_id, position))
        for position, candidate_id in enumerate(pick.shown)
    )
    details = [decision_words(pick)]
    if pick.latency_ms is not None:
        details.append(f"{pick.latency_ms / 1000:.1f} s")
    details += [REASONS.get(reason, reason) for reason in pick.reasons]
    if pick.note:
        details.append(f"“{pick.note}”")
    words = escape(" · ".join(details))
    return (
        f'<section class="reveal"><p class="reveal-title"><b>The one before, saved.</b> {words}</p>'
        f'<div class="reveal-cards">{cards}</div></section>'
    )


def decision_words(pick: Pick) -> str:
    """A decision in the letters that stood under the pictures."""
    letters = dict(zip(pick.shown, LETTERS, strict=False))
    if pick.outcome is Outcome.RANKING:
        return " > ".join(" = ".join(letters[one] for one in group) for group in pick.ranking)
    return {
        Outcome.LEFT: "A better than B",
        Outcome.RIGHT: "B better than A",
        Outcome.TIE: "tie",
        Outcome.BOTH_BAD: "all bad" if pick.size > 2 else "both bad",
    }[pick.outcome]


def _place(pick: Pick, candidate_id: str, position: int) -> str:
    if pick.outcome is Outcome.RANKING:
        place = next(place for place, group in enumerate(pick.ranking, start=1) if candidate_id in group)
        return f"place {place}"
    if pick.winner_id is None:
        return "tie" if pick.outcome is Outcome.TIE else "bad"
    return "chosen" if pick.winner_id == candidate_id else ""


def _card(studio: Studio, candidate: Candidate, letter: str, place: str) -> str:
    row = candidate.generation
    url = escape(studio.media_url(candidate.media_sha256))
    strip = results.strip_html(studio, row, candidate)
    best = " best" if place in ("chosen", "place 1") else ""
    label = f'<span class="reveal-place">{place}</span>' if place else ""
    return (
        f'<article class="reveal-card{best}"><img src="{url}" alt="picture {letter}">'
        f"<div><p><b>{letter}</b> {label}</p><p>{escape(source_words(studio, row))}</p>"
        f"<p>seed {candidate.seed}, {row.steps} steps</p>"
        f"<details><summary>Faces</summary>{strip}</details></div></article>"
    )


def source_words(studio: Studio, row: Generation) -> str:
    """Schedule and adapter of a generation in a line."""
    strength = "" if row.strength == 1 else f", strength {row.strength:g}"
    return f"{row.schedule}{strength} · {adapter_name(studio.store, row.adapter_id)}"
