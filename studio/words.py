"""Measurements and settings in words and markup, escaped: what a person typed never becomes HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Any

import numpy as np


def verdict(row: Mapping[str, Any], changed_places_with: Sequence[str] = ()) -> tuple[str, str]:
    """(kind, words) for one row of a face report: kind is `good`, `weak` or `bad`, for the colour of the label.

    `changed_places_with`: names of the people on whose wrong side this one stands.
    """
    if row["face"] is None:
        return "bad", "missing: no face was left for this person"
    if row["duplicated"]:
        return "bad", "duplicate: two faces claim this person"
    if changed_places_with:
        return "bad", f"swapped: on the wrong side of {' and '.join(changed_places_with)}"
    if row["covered"]:
        return "good", "recognised"
    return "weak", "present, but not recognised as this person"


def face_strip(
    report: Mapping[str, Any] | None,
    names: Sequence[str],
    reference_urls: Sequence[str],
    picture_url: str,
    *,
    order: Sequence[int] = (),
) -> str:
    """Reference beside matched face for every person of a candidate, with similarity and verdict.

    The matched face is cut out of the picture by the browser, so nothing more is stored. `report` is a face report as
    JSON with the name of its pack under `pack` and the picture's `width` and `height`; None shows why nothing is there.
    `reference_urls`: an empty one where the portrait is gone.
    `order`: people from left to right as the prompt places them; empty where it does not.
    """
    if report is None:
        return '<p class="faces-absent">Faces were not measured: there is no face pack, or a portrait has no face.</p>'
    how = (
        f"Cosine similarity of face embeddings by {report['pack']}; from {report['threshold']:.2f} on two faces "
        "count as the same person."
    )
    rows = "".join(
        _face_row(row, names, url, report, picture_url, how, wrong)
        for row, url, wrong in zip(report["rows"], reference_urls, _swapped(report["rows"], order), strict=True)
    )
    return f'<ul class="faces">{rows}</ul>{_summary(report, how)}'


def _face_row(
    row: Mapping[str, Any],
    names: Sequence[str],
    reference_url: str,
    report: Mapping[str, Any],
    picture_url: str,
    how: str,
    wrong: Sequence[int],
) -> str:
    name = names[row["reference"]]
    kind, words = verdict(row, [names[other] for other in wrong])
    similarity = f"{row['similarity']:.2f}" if row["face"] is not None else "none"
    portrait = f'<img src="{escape(reference_url)}" alt="portrait of {escape(name)}">' if reference_url else ""
    return (
        f'<li class="{kind}">{portrait or "<span></span>"}'
        f"{_cut_face(row['box'], report['width'], report['height'], picture_url)}"
        f'<span class="who">{escape(name)}</span>'
        f'<span class="similarity" title="{escape(how)}">{similarity}</span>'
        f'<span class="verdict">{escape(words)}</span></li>'
    )


def _swapped(rows: Sequence[Mapping[str, Any]], order: Sequence[int]) -> list[list[int]]:
    """For each person, those on whose wrong side they stand, as `core.matching` counts swaps."""
    wrong: list[list[int]] = [[] for _ in rows]
    placed = [(one, sum(rows[one]["box"][::2])) for one in order if rows[one]["covered"]]
    for (left, left_place), (right, right_place) in combinations(placed, 2):
        if left_place > right_place:
            wrong[left].append(right)
            wrong[right].append(left)
    return wrong


def similarity_table(
    names: Sequence[str],
    reference_urls: Sequence[str],
    boxes: Sequence[Sequence[float]],
    similarity: np.ndarray,
    *,
    threshold: float,
    picture_url: str,
    size: tuple[int, int],
) -> str:
    """Every person against every face of a picture, as a table; the best face of each person is marked.

    Args:
        boxes: left, top, right, bottom of the M faces, in pixels of the picture, left to right.
        similarity: (N people, M faces), cosines.
        threshold: from which two faces count as the same person.
        size: width and height of the picture in pixels.
    """
    if not len(boxes):
        return '<p class="faces-absent">No face was found in this picture.</p>'
    head = "".join(f'<th scope="col">{_cut_face(box, *size, picture_url)}</th>' for box in boxes)
    rows = []
    for name, url, line in zip(names, reference_urls, similarity, strict=True):
        cells = "".join(
            f'<td class="{"good" if value >= threshold else "weak"}{" best" if face == line.argmax() else ""}" '
            f'style="--share:{max(0.0, float(value)):.2f}">{value:.2f}</td>'
            for face, value in enumerate(line)
        )
        rows.append(f'<tr><th scope="row"><img src="{escape(url)}" alt=""><span>{escape(name)}</span></th>{cells}</tr>')
    return (
        f'<div class="matrix"><table><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f"<p>Cosine similarity of every portrait with every face; {threshold:.2f} and above is the same person.</p>"
        "</div>"
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
