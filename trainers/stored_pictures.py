"""Generated pictures on their way into the studio's store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from core.generate import Candidate
from core.provenance import encode_png
from studio.store import NewCandidate, Store


def keep_pictures(
    store: Store,
    candidates: Sequence[Candidate],
    *,
    pack: str,
    metrics: Callable[[Candidate], dict[str, float]] = lambda candidate: {},
) -> list[NewCandidate]:
    """Put the pictures of one generation, with their settings in the files, among the media; the rows to make of them.

    `pack`: name of the face pack their faces were measured with; `metrics`: what else was measured on each. Raises
    StoreError where the disk refuses.
    """
    rows = []
    for position, candidate in enumerate(candidates):
        height, width = candidate.picture.shape[:2]
        faces = candidate.faces
        facts = {"pack": pack, "width": width, "height": height}
        measured = metrics(candidate)
        rows.append(
            NewCandidate(
                position=position,
                seed=candidate.seed,
                media_sha256=store.media.add(encode_png(candidate.picture, candidate.record()), ".png"),
                width=width,
                height=height,
                face_report=None if faces is None else {**dataclasses.asdict(faces), **facts},
                face_sim=None if faces is None else faces.face_sim,
                coverage=None if faces is None else faces.coverage,
                aesthetic=measured.get("aesthetic"),
                metrics=measured,
                seconds=sum(candidate.seconds.values()) / len(candidates),
            )
        )
    return rows
