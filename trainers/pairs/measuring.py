"""The pictures of the store as pairs need them: pixels, faces and the four metrics, each read and measured once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from core.clip import ClipScorer
from core.faces import Face, FaceAnalyzer
from core.identity import FaceReport, ReferenceRow, measure_faces
from core.images import read_picture
from core.metrics import Measure, measure_picture
from core.portraits import Person, largest_face, prepare_person
from core.recently_used import RecentlyUsed
from studio.store import Store
from studio.store.models import Candidate, Generation, Portrait


class Gallery:
    """Reads and measures candidates of a store.

    analyzer, clip: None where there is no such model; what needs it is absent then.
    make_room: called before everything that keeps the device busy; may wait, or raise to end it all.
    """

    def __init__(
        self,
        store: Store,
        analyzer: FaceAnalyzer | None,
        clip: ClipScorer | None,
        *,
        make_room: Callable[[], None] | None = None,
    ) -> None:
        self._store, self._analyzer, self._clip = store, analyzer, clip
        self._make_room = make_room or (lambda: None)
        self._pictures = RecentlyUsed(32)
        self._known: dict[tuple[str, str], Any] = {}

    def picture(self, sha256: str) -> np.ndarray:
        """Pixels (H, W, 3) uint8 RGB; raises StoreError when the file is gone."""
        return self._pictures.get(sha256, lambda: read_picture(self._store.media.path(sha256)))

    def measures(self, candidate: Candidate, generation: Generation) -> dict[str, Measure]:
        """The metrics of a candidate, from its stored face report where that is of the same face pack."""
        return self._once(
            ("measures", candidate.id),
            lambda: self.measures_of(
                self.picture(candidate.media_sha256), generation, _stored_report(candidate, self._pack)
            ),
        )

    def measures_of(
        self, picture: np.ndarray, generation: Generation, report: FaceReport | None = None
    ) -> dict[str, Measure]:
        """The metrics of any picture made for a generation."""
        self._make_room()
        if report is None and self._analyzer is not None:
            report = self._report(generation, self._analyzer.analyze(picture))
        return measure_picture(picture, generation.prompt.text, report, pack=self._pack or "", clip=self._clip)

    def faces(self, candidate: Candidate) -> list[Face]:
        """The faces of a candidate; none without a face pack."""
        if self._analyzer is None:
            return []
        return self._once(("faces", candidate.media_sha256), lambda: self._faces_of(candidate.media_sha256))

    def person(self, portrait: Portrait, number: int, side: int) -> Person:
        """A portrait as the model reads it (`core.portraits.prepare_person`)."""
        self._make_room()
        return prepare_person(self.picture(portrait.picture_sha256), number, self._analyzer, side)

    @property
    def _pack(self) -> str | None:
        return None if self._analyzer is None else self._analyzer.name

    def _faces_of(self, sha256: str) -> list[Face]:
        self._make_room()
        return self._analyzer.analyze(self.picture(sha256))

    def _report(self, generation: Generation, faces: list[Face]) -> FaceReport | None:
        people = [self._embedding(reference.portrait) for reference in generation.references]
        if not people or any(embedding is None for embedding in people):
            return None
        order = generation.options.get("expected_order")
        threshold = self._analyzer.same_person_threshold
        return measure_faces(np.stack(people), faces, threshold=threshold, expected_order=order)

    def _embedding(self, portrait: Portrait) -> np.ndarray | None:
        if portrait.face_pack == self._pack and portrait.embedding is not None:
            return portrait.embedding
        faces = self._once(("faces", portrait.picture_sha256), lambda: self._faces_of(portrait.picture_sha256))
        face = largest_face(faces)
        return face and face.embedding

    def _once(self, key: tuple[str, str], compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _stored_report(candidate: Candidate, pack: str | None) -> FaceReport | None:
    stored = candidate.face_report or {}
    if "rows" not in stored or pack is None or stored.get("pack") != pack:
        return None
    rows = tuple(ReferenceRow(**{**row, "box": row["box"] and tuple(row["box"])}) for row in stored["rows"])
    known = {field.name: stored[field.name] for field in fields(FaceReport) if field.name != "rows"}
    return FaceReport(**known, rows=rows)
