"""Reading a trainer's config: a TOML file whose tables are the nested dataclasses, nothing unknown, nothing
guessed."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")


def load_config(path: Path, kind: type[Config]) -> Config:
    """The config in `path`; keys left out keep their defaults.

    Raises:
        ValueError: unknown keys, or values that the dataclass refuses; names the file.
    """
    try:
        return from_table(kind, tomllib.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def from_table(kind: type[Config], table: dict[str, Any]) -> Config:
    types = typing.get_type_hints(kind)
    unknown = sorted(set(table) - set(types))
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(types))}")
    return kind(**{key: _value(types[key], value) for key, value in table.items()})


def _value(wanted: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(wanted):
        return from_table(wanted, value)
    if isinstance(value, list):
        (item, *_) = typing.get_args(wanted) or (None,)
        return tuple(from_table(item, entry) if dataclasses.is_dataclass(item) else entry for entry in value)
    return value
