"""Who is in the pictures, who labels, which files exist, what was agreed to."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
from sqlalchemy import JSON, CheckConstraint, ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from studio.store.models.base import Base, Created, Id, Sha256, enum_column, owned_by, refers_to


class AnnotatorOrigin(StrEnum):
    TYPED = "typed"
    LOGIN = "login"
    HUGGINGFACE = "huggingface"
    SIMULATED = "simulated"
    IMPORTED = "imported"


class PortraitOrigin(StrEnum):
    UPLOAD = "upload"
    EXAMPLE = "example"


class Annotator(Base):
    """Somebody who uses the studio: owns uploads, makes generations and picks."""

    __tablename__ = "annotators"
    __table_args__ = (UniqueConstraint("name", "origin"),)

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(String(200))
    origin: Mapped[AnnotatorOrigin] = mapped_column(enum_column(AnnotatorOrigin))
    created_at: Mapped[Created]


class Consent(Base):
    """The sentence somebody agreed to before uploading portraits."""

    __tablename__ = "consents"

    id: Mapped[Id]
    text: Mapped[str]
    given_by: Mapped[str | None] = refers_to("annotators.id")
    given_at: Mapped[Created]


class Media(Base):
    """A file under `media/`, named by the SHA-256 of its content."""

    __tablename__ = "media"

    sha256: Mapped[Sha256] = mapped_column(primary_key=True)
    suffix: Mapped[str] = mapped_column(String(16))
    size: Mapped[int]
    added_at: Mapped[Created]
    """When the content was last given to the store."""


class Person(Base):
    """Somebody who appears in portraits."""

    __tablename__ = "people"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(String(200))
    owner_id: Mapped[str | None] = refers_to("annotators.id", index=True)
    created_at: Mapped[Created]

    portraits: Mapped[list[Portrait]] = relationship(
        back_populates="person", order_by="Portrait.position, Portrait.id", lazy="raise", passive_deletes=True
    )


class Portrait(Base):
    """One face of a person, as references need it."""

    __tablename__ = "portraits"
    __table_args__ = (CheckConstraint("origin = 'example' OR consent_id IS NOT NULL", name="consent_given"),)

    id: Mapped[Id]
    person_id: Mapped[str] = owned_by("people.id", index=True)
    position: Mapped[int] = mapped_column(default=0)
    origin: Mapped[PortraitOrigin] = mapped_column(enum_column(PortraitOrigin))
    picture_sha256: Mapped[str] = mapped_column(String(64), ForeignKey("media.sha256"), index=True)
    """The reference picture the model reads."""
    crop_sha256: Mapped[str] = mapped_column(String(64), ForeignKey("media.sha256"), index=True)
    """The face alone, for showing."""
    source_sha256: Mapped[str | None] = mapped_column(String(64))
    """Hash of the uploaded file, which itself is not kept."""
    box: Mapped[list[Any]] = mapped_column(JSON)
    """x0, y0, x1, y1 in pixels of the reference picture."""
    landmarks: Mapped[list[Any]] = mapped_column(JSON)
    """Five [x, y] points in pixels of the reference picture."""
    embedding_bytes: Mapped[bytes | None] = mapped_column(LargeBinary)
    face_pack: Mapped[str | None] = mapped_column(String(100))
    """Name of the face models that made box, landmarks and embedding."""
    detection_score: Mapped[float | None]
    hints: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Sentences about the quality of the picture: tiny, blurred, turned away."""
    consent_id: Mapped[str | None] = refers_to("consents.id")
    created_at: Mapped[Created]

    person: Mapped[Person] = relationship(back_populates="portraits", lazy="raise")

    @property
    def embedding(self) -> np.ndarray | None:
        """The ArcFace embedding as float32 (D,), or None where the face pack had none."""
        return None if self.embedding_bytes is None else np.frombuffer(self.embedding_bytes, dtype="<f4")


class Preference(Base):
    """A setting changed in the app, kept over restarts."""

    __tablename__ = "preferences"

    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)
    updated_at: Mapped[datetime]
