"""Every round and adapter, newest first, as a list people act on: where it came from, what it is worth, use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from studio.adapter_choice import BASE, BASE_NAME
from studio.panels.evaluation_view import likeness_words
from studio.store import Store
from studio.store.agreement import Share
from studio.store.models import Activation, Adapter, AdapterState, Round, RoundState
from studio.store.round_pairs import PairCounts
from studio.store.rounds import LIVE
from studio.times import duration_words, moment_words

MOST_ROUNDS = 100
NO_COUNTS = PairCounts(kept=0, dropped=0, picks=0)
STATE_WORDS = {
    RoundState.QUEUED: "waiting",
    RoundState.COLLECTING: "collecting pairs",
    RoundState.TRAINING: "training",
    RoundState.EVALUATING: "evaluating",
    RoundState.PROMOTED: "promoted",
    RoundState.CANDIDATE: "candidate",
    RoundState.REJECTED: "rejected",
    RoundState.FAILED: "failed",
    RoundState.CANCELLED: "cancelled",
    AdapterState.BROKEN: "cannot be loaded",
}


@dataclass(frozen=True, kw_only=True)
class History:
    """What the list shows, read once.

    rounds: newest first. adapters: by id. active: id of the adapter in use, None for the base model.
    duels: (adapter, other) -> how often the first was preferred blind; None is the base model.
    """

    rounds: Sequence[Round]
    adapters: Mapping[str, Adapter]
    counts: Mapping[str, PairCounts]
    duels: Mapping[tuple[str | None, str | None], Share]
    activations: Sequence[Activation]

    @property
    def active(self) -> str | None:
        return self.activations[0].adapter_id if self.activations else None

    @classmethod
    def read(cls, store: Store, bundle: str) -> History:
        rounds = store.rounds.list(bundle=bundle, limit=MOST_ROUNDS)
        return cls(
            rounds=rounds,
            adapters={adapter.id: adapter for adapter in store.adapters.list(bundle=bundle)},
            counts=store.rounds.pair_counts([row.id for row in rounds]),
            duels=store.insights.adapter_duels(),
            activations=store.adapters.activations(bundle),
        )

    def name(self, adapter_id: str | None) -> str:
        if adapter_id is None:
            return BASE_NAME
        return self.adapters[adapter_id].name if adapter_id in self.adapters else "an adapter that is gone"


def history_html(history: History, *, shown: str | None, may_act: bool) -> str:
    """The list; `shown` is the round on show above it, and without `may_act` nothing can be pressed but Show."""
    by_round = {adapter.round_id: adapter for adapter in history.adapters.values() if adapter.round_id}
    entries = [(row.created_at, _entry(history, row, by_round.get(row.id), shown, may_act)) for row in history.rounds]
    entries += [
        (adapter.created_at, _entry(history, None, adapter, shown, may_act))
        for adapter in history.adapters.values()
        if adapter.round_id is None
    ]
    listed = "".join(html for _, html in sorted(entries, key=lambda entry: entry[0], reverse=True))
    return f'<ol class="history" aria-label="Rounds and adapters">{listed}{_base(history, may_act)}</ol>'


def activations_html(history: History, people: Mapping[str, str]) -> str:
    """When which adapter was put to use, by whom (`people`: annotator id -> name) and why."""
    if not history.activations:
        return f'<p class="note">The {BASE_NAME} has been in use from the beginning.</p>'
    rows = "".join(
        f"<tr><td>{moment_words(row.created_at)}</td><td>{escape(history.name(row.adapter_id))}</td>"
        f"<td>{escape(people.get(row.by_id, 'somebody') if row.by_id else 'by rule')}</td>"
        f"<td>{escape(row.note)}</td></tr>"
        for row in history.activations
    )
    head = "<tr><th>Since</th><th>In use</th><th>Put there</th><th>Note</th></tr>"
    return f'<table class="plain"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def duels_of(history: History, adapter_id: str | None) -> list[tuple[str, Share]]:
    """(name of the other, how often this one was preferred blind) for each adapter it met, most pairs first."""
    met = [(other, share) for (one, other), share in history.duels.items() if one == adapter_id and share.total]
    return [(history.name(other), share) for other, share in sorted(met, key=lambda duel: -duel[1].total)]


def duel_words(history: History, adapter_id: str | None) -> list[str]:
    """How the adapter did in blind comparisons, a sentence for each one that it met."""
    return [
        f"preferred {share.value:.0%} ({share.low:.0%} to {share.high:.0%}) of {share.total} blind against {name}"
        for name, share in duels_of(history, adapter_id)
    ]


def lineage_words(history: History, adapter: Adapter) -> str:
    """The base model and every ancestor, down to the adapter itself."""
    names, following = [], adapter.id
    while following is not None and following in history.adapters:
        names.append(history.adapters[following].name)
        following = history.adapters[following].parent_id
    return " → ".join([BASE_NAME, *reversed(names)])


def _entry(history: History, row: Round | None, adapter: Adapter | None, shown: str | None, may_act: bool) -> str:
    title = adapter.name if adapter else f"Round {row.number}"
    state = adapter.state if adapter else row.state
    badges = _badge(STATE_WORDS[state], state.value)
    facts = []
    if row is not None:
        counts = history.counts.get(row.id, NO_COUNTS)
        facts.append(f"round {row.number}" if adapter else f"on top of {history.name(row.parent_adapter_id)}")
        facts.append(moment_words(row.created_at))
        if counts.kept or counts.dropped:
            facts.append(f"{counts.kept} pairs from {counts.picks} picks, {counts.dropped} dropped")
        if row.started_at and row.finished_at:
            facts.append(duration_words((row.finished_at - row.started_at).total_seconds()))
    else:
        facts.append(f"added {moment_words(adapter.created_at)}")
    lines = [" · ".join(facts)]
    if adapter is not None:
        lines += [lineage_words(history, adapter), *filter(None, [likeness_words(adapter.evaluation)])]
        lines += duel_words(history, adapter.id) or ["not yet compared blind"]
    if adapter is not None:
        lines += filter(None, [adapter.note, _last_note(history, adapter.id)])
    if adapter is None and row.state not in LIVE and row.message:
        lines.append(row.message)
    if adapter is not None and adapter.data_deleted_at:
        lines.append(f"Trained on pictures of a person who was deleted {moment_words(adapter.data_deleted_at)}.")
    in_use = adapter is not None and adapter.id == history.active
    buttons = []
    if row is not None:
        buttons.append(_button("show", row.id, "Show", pressed=row.id == shown))
    if adapter is not None and adapter.state is not AdapterState.BROKEN and may_act:
        buttons.append(_button("compare", adapter.id, "Compare blind"))
        if not in_use:
            buttons.append(_button("use", adapter.id, "Use this"))
    return _item(title, badges, lines, buttons, in_use=in_use)


def _last_note(history: History, adapter_id: str) -> str:
    """What a person said when they last put the adapter to use."""
    said = (row.note for row in history.activations if row.adapter_id == adapter_id and row.by_id and row.note)
    return f"“{note}”" if (note := next(said, "")) else ""


def _base(history: History, may_act: bool) -> str:
    in_use = history.active is None
    buttons = [] if in_use or not may_act else [_button("use", BASE, "Use this")]
    lines = ["What the models make without any adapter.", *duel_words(history, None)]
    return _item(BASE_NAME.capitalize(), "", lines, buttons, in_use=in_use)


def _item(title: str, badges: str, lines: Sequence[str], buttons: Sequence[str], *, in_use: bool) -> str:
    badges = (_badge("in use", "in-use") if in_use else "") + badges
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return (
        f'<li class="{"in-use" if in_use else ""}"><div><h4>{escape(title)} {badges}</h4>{said}</div>'
        f'<div class="history-buttons">{"".join(buttons)}</div></li>'
    )


def _badge(words: str, kind: str) -> str:
    return f'<span class="badge {escape(kind)}">{escape(words)}</span>'


def _button(action: str, target: str, label: str, *, pressed: bool = False) -> str:
    pressed_words = ' aria-pressed="true"' if pressed else ""
    return f'<button type="button" data-action="{action}" data-id="{escape(target)}"{pressed_words}>{label}</button>'
