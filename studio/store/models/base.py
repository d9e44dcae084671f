"""What every table shares: ids, times, enumerations and constraint names."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from sqlalchemy import JSON, DateTime, Enum, ForeignKey, MetaData, String
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator


def new_id() -> str:
    """32 hexadecimal characters: milliseconds since 1970, then 80 random bits.

    Ids sort by time and never collide between studios, so an archive can be imported into another data folder as it is.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in Python, UTC without a zone in the database, on every dialect alike."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()} has no time zone; use studio.store.models.utc_now()")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def enum_column(kind: type[StrEnum]) -> Enum:
    """A text column that accepts the values of `kind` only, checked by the database as well."""
    return Enum(
        kind,
        name=f"{kind.__name__.lower()}_known",
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """Rows are handed out detached: read them freely, change them through the store only."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads this class attribute
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


Id = Annotated[str, mapped_column(String(32), primary_key=True, default=new_id)]
Created = Annotated[datetime, mapped_column(default=utc_now)]
Sha256 = Annotated[str, mapped_column(String(64))]


def owned_by(target: str, **options: Any) -> Any:
    """A foreign key whose row goes when `target` goes."""
    return mapped_column(String(32), ForeignKey(target, ondelete="CASCADE"), **options)


def refers_to(target: str, **options: Any) -> Any:
    """A foreign key to a row that must not disappear under it."""
    return mapped_column(String(32), ForeignKey(target), **options)
