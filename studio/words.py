"""Measurements and settings in words and markup, escaped: what a person typed never becomes HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """(kind, words) for one row of a face report: kind is `good`, `weak` or `bad`, for the colour of the label."""
    if row["face"] is None:
        return "bad", "missing: no face was left for this person"
    if row["duplicated"]:
        return "bad", "duplicate: two faces claim this person"
    if row["covered"]:
        return "good", "recognised"
    return "weak", "present, but not recognised as this person"


def face_strip(
    report: Mapping[str, Any] | None, names: Sequence[str], reference_urls: Sequence[str], picture_url: str
) -> str:
    """Reference beside matched face for every person of a candidate, with similarity and verdict.

    The matched face is cut out of the picture by the browser, so nothing more is stored. `report` is a face report as
    JSON with the name of its pack under `pack` and the picture's `width` and `height`; None shows why nothing is there.
    """
    if report is None:
        return '<p class="faces-absent">Faces were not measured: there is no face pack, or a portrait has no face.</p>'
    how = (
        f"Cosine similarity of face embeddings by {report['pack']}; from {report['threshold']:.2f} on two faces "
        "count as the same person."
    )
    rows = "".join(
        _face_row(row, name, url, report, picture_url, how)
        for row, name, url in zip(report["rows"], names, reference_urls, strict=True)
    )
    return f'<ul class="faces">{rows}</ul>{_summary(report, how)}'


def _face_row(
    row: Mapping[str, Any],
    name: str,
    reference_url: str,
    report: Mapping[str, Any],
    picture_url: str,
    how: str,
) -> str:
    kind, words = verdict(row)
    similarity = f"{row['similarity']:.2f}" if row["face"] is not None else "none"
    return (
        f'<li class="{kind}"><img src="{escape(reference_url)}" alt="portrait of {escape(name)}">'
        f"{_cut_face(row['box'], report['width'], report['height'], picture_url)}"
        f'<span class="who">{escape(name)}</span>'
        f'<span class="similarity" title="{escape(how)}">{similarity}</span>'
        f'<span class="verdict">{escape(words)}</span></li>'
    )


def _cut_face(box: Sequence[float] | None, width: int, height: int, picture_url: str) -> str:
    if box is None:
        return '<span class="cut empty" role="img" aria-label="no face"></span>'
    left, top, right, bottom = box
    side = max(right - left, bottom - top, 1.0) * 1.3
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    return (
        f'<svg class="cut" viewBox="{x:.1f} {y:.1f} {side:.1f} {side:.1f}" role="img" aria-label="matched face">'
        f'<image href="{escape(picture_url)}" width="{width}" height="{height}"/></svg>'
    )


def _summary(report: Mapping[str, Any], how: str) -> str:
    people = len(report["rows"])
    faces = "1 face" if report["face_count"] == 1 else f"{report['face_count']} faces"
    parts = [
        f"FaceSim {report['face_sim']:.2f}",
        f"{sum(row['covered'] for row in report['rows'])} of {people} recognised",
        faces if report["count_correct"] else f"{faces} for {people} people",
    ]
    if report["swaps"]:
        parts.append(f"swapped: {report['swaps']} stand the wrong way round")
    return f'<p class="faces-summary" title="{escape(how)}">{escape(" · ".join(parts))}</p>'
