"""What changed on held-out people, as a table with a drawing of each interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, EDGE = 160, 22, 8
"""Of the drawing of an interval, in pixels; EDGE is left free on both sides."""
SHARE = "share"


def evaluation_html(evaluation: Mapping[str, Any] | None, *, before: str, after: str) -> str:
    """Table of metrics before and after with their 95 % intervals, and what follows from them.

    `evaluation` is `trainers.evaluation.Evaluation.as_json()`; nothing where it is None. `before` and `after` are the
    names of adapters.
    """
    if evaluation is None:
        return ""
    rows = evaluation.get("changes", ())
    widest = _widest(rows)
    body = "".join(_row(row, widest[_scale(row)]) for row in rows)
    head = (
        f"<tr><th>On held-out people</th><th>{escape(before)}</th><th>{escape(after)}</th><th>Change</th>"
        "<th>95 % interval</th><th>Cases</th></tr>"
    )
    table = (
        f'<table class="evaluation"><thead>{head}</thead><tbody>{body}</tbody></table>'
        if body
        else '<p class="note">Nothing could be measured.</p>'
    )
    return (
        f'<section class="evaluation-box"><h4>Evaluation</h4>{table}<p class="evaluation-notes">{_how(evaluation)}</p>'
        f"{_distance(evaluation)}</section>"
    )


def likeness_words(evaluation: Mapping[str, Any] | None) -> str:
    """The change of FaceSim in a few words; empty where it was not measured."""
    for row in (evaluation or {}).get("changes", ()):
        if row["metric"] == "face_sim":
            interval = "" if row["low"] is None else f" ({row['low']:+.3f} to {row['high']:+.3f})"
            return f"FaceSim {row['before']:.3f} → {row['after']:.3f}, {row['difference']:+.3f}{interval}"
    return ""


def _row(row: Mapping[str, Any], widest: float) -> str:
    kind = "better" if row["better"] else "worse" if row["worse"] else "unclear"
    words = "no change" if row["low"] == row["high"] == 0 else kind
    interval = "too few cases" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
    return (
        f'<tr class="{kind}"><th scope="row">{escape(row["label"])}</th>'
        f'<td data-label="before">{row["before"]:.3f}</td><td data-label="after">{row["after"]:.3f}</td>'
        f'<td data-label="change"><b>{row["difference"]:+.3f}</b> <span>{words}</span></td>'
        f'<td data-label="interval">{_drawing(row, widest)}<span>{interval}</span></td>'
        f'<td data-label="cases">{row["cases"]}</td></tr>'
    )


def _drawing(row: Mapping[str, Any], widest: float) -> str:
    """The interval around the change; the line in the middle is no change."""
    if row["low"] is None:
        return ""
    low, point, high = (_place(row[name], widest) for name in ("low", "difference", "high"))
    middle, y = WIDTH / 2, HEIGHT / 2
    return (
        f'<svg class="interval" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="interval {row["low"]:+.3f} to {row["high"]:+.3f}">'
        f'<line class="zero" x1="{middle}" y1="1" x2="{middle}" y2="{HEIGHT - 1}"/>'
        f'<line class="range" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>'
        f'<circle cx="{point:.1f}" cy="{y}" r="4"/></svg>'
    )


def _place(value: float, widest: float) -> float:
    return WIDTH / 2 + value / widest * (WIDTH / 2 - EDGE)


def _widest(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The largest end of an interval for each scale: shares and similarities share one, years and scores do not."""
    widest: dict[str, float] = {}
    for row in rows:
        ends = (abs(value) for value in (row["low"], row["high"]) if value is not None)
        widest[_scale(row)] = max(widest.get(_scale(row), 0.0), *ends, 1e-6)
    return widest


def _scale(row: Mapping[str, Any]) -> str:
    inside_one = 0 <= row["before"] <= 1 and 0 <= row["after"] <= 1
    return SHARE if inside_one else row["metric"]


def _how(evaluation: Mapping[str, Any]) -> str:
    pack = evaluation.get("face_pack")
    faces = f"Faces by {escape(pack)}." if pack else "No face pack: nothing about faces was measured."
    made = ""
    if "steps" in evaluation:  # evaluations of before did not keep it
        made = f", {evaluation['steps']} steps, identity guidance {evaluation['identity_guidance']:g}"
    return (
        f"{evaluation['cases']} cases, {evaluation['pictures']} pictures a side{made}, same seeds on both. {faces} "
        "Intervals come from resampling the cases; one that crosses the line may be chance."
    )


def _distance(evaluation: Mapping[str, Any]) -> str:
    distance = evaluation.get("picture_distance")
    if not distance:
        return ""
    return (
        f'<p class="evaluation-notes">Distance from the base model\'s pictures: {distance["before"]:.3f} before, '
        f"{distance['after']:.3f} after (root mean square, 0 to 1).</p>"
    )
