"""One round as people read it: how far it is, what it learned from, what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from studio.context import Studio
from studio.panels.adapter_history import STATE_WORDS
from studio.people_shown import people_shown
from studio.store.models import Candidate, Generation, Round, RoundRequest, RoundState
from studio.store.round_pairs import PairCounts
from studio.store.rounds import LIVE
from studio.times import duration_words, moment_words

STAGES = (RoundState.QUEUED, RoundState.COLLECTING, RoundState.TRAINING, RoundState.EVALUATING)
ORIGINS = {
    "pick": "picked by people",
    "rendered": "a rendered group against a generated one",
    "generated": "two generated pictures, told apart by the metrics",
}
LOG_TAIL_BYTES = 12_000
CASES_AT_ONCE = 6
"""Cases of before and after shown without asking for more."""
NOTHING = (
    '<div class="nothing-yet"><p class="nothing-yet-title">No round yet</p><p>A round turns picks into an adapter: it '
    "collects pairs, trains, and is measured on people it never saw. Compare some pictures on the Compare page, then "
    "start one.</p></div>"
)


def round_html(row: Round, parent: str, *, now: datetime, worker: bool) -> str:
    """Title, stages, progress and message of a round.

    `parent`: name of the adapter it goes out from. `worker`: whether this studio trains in the background.
    """
    title = (
        f'<h3>Round {row.number} <span class="badge {row.state.value}">{STATE_WORDS[row.state]}</span></h3>'
        f'<p class="round-facts">on top of {escape(parent)} · asked for {moment_words(row.created_at)}'
        f"{_duration(row, now)}{_attempts(row)}</p>"
    )
    stages = _stages(row) if row.state in LIVE else ""
    says = _waiting_words(row, now, worker) or row.message
    message = f'<p class="round-message" role="status">{escape(says)}</p>' if says else ""
    return f'<section class="round">{title}{stages}{_progress(row)}{message}</section>'


def pairs_html(counts: PairCounts | None, origins: Mapping[str, int], dropped: Mapping[str, int]) -> str:
    """What a round uses by origin, and what it drops by reason; nothing before pairs are collected."""
    if counts is None:
        return ""
    kept = _counted(((ORIGINS.get(origin, _plain(origin)), count) for origin, count in origins.items()), "kept")
    gone = _counted(dropped.items(), "dropped")
    used = kept or '<p class="note">Nothing can be trained on.</p>'
    unused = gone or '<p class="note">Nothing was dropped.</p>'
    return (
        f'<div class="pair-counts"><section><h4>{_number(counts.kept, "pair")} used, from '
        f"{_number(counts.picks, 'pick')}</h4>{used}</section>"
        f"<section><h4>{_number(counts.dropped, 'pair')} dropped</h4>{unused}</section></div>"
    )


def sheet_html(pairs: Sequence[tuple[str, str]]) -> str:
    """Chosen beside rejected, from (address, address)."""
    figures = "".join(
        f'<figure><img src="{escape(chosen)}" alt="chosen" loading="lazy"><img src="{escape(rejected)}" alt="rejected" '
        'loading="lazy"></figure>'
        for chosen, rejected in pairs
    )
    return f'<div class="pair-sheet"><p>Chosen left, rejected right.</p>{figures}</div>' if pairs else ""


def cases_html(studio: Studio, cases: Sequence[tuple[Generation, Generation]]) -> str:
    """(before, after) of held-out cases, picture by picture at the same seeds."""
    if not cases:
        return ""
    shown = [_case(studio, before, after) for before, after in cases]
    more = shown[CASES_AT_ONCE:]
    rest = f"<details><summary>{len(more)} more cases</summary>{''.join(more)}</details>" if more else ""
    return f'<div class="cases">{"".join(shown[:CASES_AT_ONCE])}{rest}</div>'


def log_tail(folder: Path, log_path: str | None) -> str:
    """The end of a round's log; `log_path` is relative to the data folder."""
    if log_path is None:
        return ""
    path = (folder / log_path).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(0, size - LOG_TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return text.split("\n", 1)[-1] if size > LOG_TAIL_BYTES else text


def log_html(text: str) -> str:
    return (
        f'<pre class="log"><code>{escape(text)}</code></pre>' if text else '<p class="note">Nothing was logged yet.</p>'
    )


def _stages(row: Round) -> str:
    here = STAGES.index(row.state)
    items = "".join(
        f'<li class="{"done" if place < here else ""}"{" aria-current=step" if place == here else ""}>'
        f"{STATE_WORDS[stage]}</li>"
        for place, stage in enumerate(STAGES)
    )
    return f'<ol class="round-stages">{items}</ol>'


def _progress(row: Round) -> str:
    if row.state not in LIVE or row.state is RoundState.QUEUED:
        return ""
    step, steps = row.progress.get("step"), row.progress.get("steps")
    if not steps:
        return '<progress aria-label="progress of the round"></progress>'
    left = row.progress.get("seconds_left")
    unit = "Case" if row.state is RoundState.EVALUATING else "Step"
    words = f"{unit} {step} of {steps}" + (f", about {duration_words(left)} left" if left is not None else "")
    return (
        f'<p class="round-steps">{words}</p>'
        f'<progress value="{step}" max="{steps}" aria-label="progress of the round"></progress>'
    )


def _waiting_words(row: Round, now: datetime, worker: bool) -> str:
    """Why nothing moves, where nothing moves."""
    if row.state not in LIVE:
        return ""
    leased = row.lease_expires_at is not None and row.lease_expires_at >= now
    if row.request is RoundRequest.PAUSE:
        return "Pausing after the step it is at." if leased else "Paused. Resume goes on from the last checkpoint."
    if row.request is RoundRequest.CANCEL:
        return "Cancelling after the step it is at."
    if leased:
        return ""
    started = "" if worker else " This studio trains nothing itself; run python -m trainers.worker."
    if row.lease_owner is None:  # never taken up, or given back
        return f"Waiting for a worker.{started}"
    silent = duration_words((now - row.heartbeat_at).total_seconds())
    return f"Its worker was last heard of {silent} ago; the next one goes on from the last checkpoint.{started}"


def _duration(row: Round, now: datetime) -> str:
    if row.started_at is None:
        return ""
    seconds = ((row.finished_at or now) - row.started_at).total_seconds()
    return f" · {'took' if row.finished_at else 'running for'} {duration_words(seconds)}"


def _attempts(row: Round) -> str:
    return f" · taken up {row.attempts} times" if row.attempts > 1 else ""


def _counted(counts: Iterable[tuple[str, int]], kind: str) -> str:
    rows = sorted(counts, key=lambda row: -row[1])
    most = max((count for _, count in rows), default=1)
    listed = "".join(
        f'<li><span class="bar" style="width:{100 * count / most:.0f}%"></span>'
        f"<b>{count:,}</b> <span>{escape(words)}</span></li>"
        for words, count in rows
    )
    return f'<ul class="counts {kind}">{listed}</ul>' if rows else ""


def _case(studio: Studio, before: Generation, after: Generation) -> str:
    references = "".join(
        f'<img src="{escape(person.url)}" alt="{escape(person.name)}" title="{escape(person.name)}">'
        for person in people_shown(studio, before)
        if person.url
    )
    people = f'<div class="case-references">{references}</div>' if references else ""
    old = {candidate.seed: candidate for candidate in before.candidates}
    pictures = "".join(
        f"<figure>{_picture(studio, old[new.seed], 'before')}{_picture(studio, new, 'after')}"
        f"<figcaption>seed {new.seed}</figcaption></figure>"
        for new in after.candidates
        if new.seed in old
    )
    return (
        f'<section class="case">{people}<div class="case-pictures">{pictures}</div>'
        f"<p>{escape(before.prompt.text)}</p></section>"
    )


def _picture(studio: Studio, candidate: Candidate, words: str) -> str:
    url = escape(studio.media_url(candidate.media_sha256))
    likeness = "" if candidate.face_sim is None else f" · FaceSim {candidate.face_sim:.2f}"
    return (
        f'<a href="{url}" target="_blank" rel="noopener"><img src="{url}" alt="{words}" loading="lazy">'
        f"<span>{words}{likeness}</span></a>"
    )


def _number(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _plain(origin: str) -> str:
    return origin.replace("-", " ")
