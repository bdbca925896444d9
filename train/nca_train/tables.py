"""A table of TOML or JSON becomes a dataclass; every key is known and typed, and an error names its place."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from nca_edge.errors import UsageError


def build(kind: Any, table: dict[str, Any], where: str) -> Any:
    """Fill the dataclass ``kind``; ``where`` is what stands before its keys in errors.

    Raises
    ------
    UsageError
    """
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in table:
        if key not in known:
            raise UsageError(f"recipe: unknown key {where}{key}; known here: {', '.join(known)}.")
    values: dict[str, Any] = {}
    for name, spec in known.items():
        if name in table:
            values[name] = _value(hints[name], table[name], where + name)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise UsageError(f"recipe: {where}{name} is missing.")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"recipe: {where} must be a table.")
        return build(hint, value, where + ".")
    plain = typing.get_origin(hint) or hint
    if plain is float and type(value) is int:
        value = float(value)
    if plain is float and isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"recipe: {where} must be a finite number, not {value!r}.")
    if type(value) is not plain:
        raise UsageError(f"recipe: {where} must be {plain.__name__}, not {value!r}.")
    if plain is list:
        (item,) = typing.get_args(hint)
        return [_value(item, entry, f"{where}[{n}]") for n, entry in enumerate(value)]
    if plain is dict:
        return {key: _value(str, entry, f"{where}.{key}") for key, entry in value.items()}
    return value
