"""Annotators, consents, people and their portraits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select, update
from sqlalchemy.orm import joinedload, selectinload

from studio.store.engine import Database, StoreError
from studio.store.models import (
    Annotator,
    AnnotatorOrigin,
    Consent,
    Person,
    Portrait,
    PortraitOrigin,
)

MAX_NAME = 200


@dataclass(frozen=True, kw_only=True)
class NewPortrait:
    """One face to store. `picture_sha256` and `crop_sha256` come from `store.media.add`."""

    picture_sha256: str
    """The reference picture the model reads."""
    crop_sha256: str
    """The face alone, for showing."""
    box: Sequence[float]
    """x0, y0, x1, y1 in pixels of the reference picture."""
    landmarks: Sequence[Sequence[float]]
    """Five [x, y] points in pixels of the reference picture."""
    embedding: np.ndarray | None = None
    """(D,) float."""
    face_pack: str | None = None
    detection_score: float | None = None
    source_sha256: str | None = None
    """Hash of the uploaded file."""
    hints: Sequence[str] = field(default_factory=tuple)
    origin: PortraitOrigin | str = PortraitOrigin.UPLOAD
    consent_id: str | None = None
    """Needed for uploads; bundled examples are rendered people and need none."""


class People:
    """Who labels, who agreed to what, and who is in the portraits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def annotator(self, name: str, origin: AnnotatorOrigin | str = AnnotatorOrigin.TYPED) -> Annotator:
        """The annotator of that name and origin, made on first use. Raises StoreError for an empty name."""
        name = _clean_name(name, "annotator")
        origin = AnnotatorOrigin(origin)
        query = select(Annotator).where(Annotator.name == name, Annotator.origin == origin)
        with self._database.read() as session:
            found = session.scalar(query)
        if found is not None:
            return found
        with self._database.write() as session:
            self._database.serialise(session, "annotators")
            found = session.scalar(query)
            if found is None:
                found = Annotator(name=name, origin=origin)
                session.add(found)
            return found

    def annotators(self, ids: Collection[str] | None = None) -> list[Annotator]:
        """Those with these ids, or everybody, by name."""
        query = select(Annotator).order_by(Annotator.name)
        if ids is not None:
            query = query.where(Annotator.id.in_(ids))
        with self._database.read() as session:
            return list(session.scalars(query))

    def give_consent(self, text: str, given_by: str | None = None) -> Consent:
        """Record that somebody agreed to the sentence `text`; its id goes with every portrait uploaded under it."""
        with self._database.write() as session:
            consent = Consent(text=text, given_by=given_by)
            session.add(consent)
            return consent

    def latest_consent(self, given_by: str, text: str) -> Consent | None:
        """The consent that annotator gave to exactly this sentence, if any."""
        query = select(Consent).where(Consent.given_by == given_by, Consent.text == text).order_by(Consent.id.desc())
        with self._database.read() as session:
            return session.scalar(query.limit(1))

    def add_person(self, name: str, *, owner_id: str | None = None) -> Person:
        with self._database.write() as session:
            person = Person(name=_clean_name(name, "person"), owner_id=owner_id)
            session.add(person)
            return person

    def rename(self, person_id: str, name: str) -> None:
        with self._database.write() as session:
            self._changed(
                session.execute(
                    update(Person).where(Person.id == person_id).values(name=_clean_name(name, "person"))
                ).rowcount,
                person_id,
            )

    def add_portrait(self, person_id: str, new: NewPortrait) -> Portrait:
        """Store a face of a person. Raises StoreError when an upload comes without a consent."""
        origin = PortraitOrigin(new.origin)
        if origin is PortraitOrigin.UPLOAD and new.consent_id is None:
            raise StoreError("A portrait was uploaded without a consent; record one with give_consent first.")
        embedding = None
        if new.embedding is not None:
            embedding = np.ascontiguousarray(new.embedding, dtype="<f4").reshape(-1).tobytes()
        with self._database.write() as session:
            if session.get(Person, person_id) is None:
                raise StoreError(f"Person {person_id!r} does not exist; add the person first.")
            last = session.scalar(
                select(Portrait.position)
                .where(Portrait.person_id == person_id)
                .order_by(Portrait.position.desc())
                .limit(1)
            )
            portrait = Portrait(
                person_id=person_id,
                position=0 if last is None else last + 1,
                origin=origin,
                picture_sha256=new.picture_sha256,
                crop_sha256=new.crop_sha256,
                source_sha256=new.source_sha256,
                box=[float(value) for value in new.box],
                landmarks=[[float(value) for value in point] for point in new.landmarks],
                embedding_bytes=embedding,
                face_pack=new.face_pack,
                detection_score=new.detection_score,
                hints=list(new.hints),
                consent_id=new.consent_id,
            )
            session.add(portrait)
            return portrait

    def list(self, *, owner_id: str | None = None) -> list[Person]:
        """People with their portraits, newest first; all of them, or those of one annotator."""
        query = select(Person).options(selectinload(Person.portraits)).order_by(Person.id.desc())
        if owner_id is not None:
            query = query.where(Person.owner_id == owner_id)
        with self._database.read() as session:
            return list(session.scalars(query))

    def get(self, person_id: str) -> Person:
        """A person with portraits. Raises StoreError when there is none."""
        query = select(Person).options(selectinload(Person.portraits)).where(Person.id == person_id)
        with self._database.read() as session:
            person = session.scalar(query)
        if person is None:
            raise StoreError(f"Person {person_id!r} does not exist; it may have been deleted.")
        return person

    def portraits(self, portrait_ids: Sequence[str]) -> list[Portrait]:
        """Portraits with their person, in the order asked for. Raises StoreError when one is gone."""
        query = select(Portrait).options(joinedload(Portrait.person)).where(Portrait.id.in_(portrait_ids))
        with self._database.read() as session:
            found = {portrait.id: portrait for portrait in session.scalars(query)}
        missing = [portrait_id for portrait_id in portrait_ids if portrait_id not in found]
        if missing:
            raise StoreError(f"Portrait {missing[0]!r} does not exist; it may have been deleted.")
        return [found[portrait_id] for portrait_id in portrait_ids]

    def references_from(self, source_sha256: Collection[str]) -> set[str]:
        """`picture_sha256` of every portrait that was made from one of these files."""
        query = select(Portrait.picture_sha256).where(Portrait.source_sha256.in_(source_sha256))
        with self._database.read() as session:
            return set(session.scalars(query))

    @staticmethod
    def _changed(count: int, person_id: str) -> None:
        if not count:
            raise StoreError(f"Person {person_id!r} does not exist; it may have been deleted.")


def _clean_name(name: str, what: str) -> str:
    cleaned = " ".join(name.split())
    if not cleaned:
        raise StoreError(f"The {what} has no name; give one.")
    if len(cleaned) > MAX_NAME:
        raise StoreError(f"The {what}'s name has {len(cleaned)} characters; {MAX_NAME} are the most.")
    return cleaned
