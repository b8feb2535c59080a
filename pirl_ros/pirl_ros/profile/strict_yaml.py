"""Parsed YAML to frozen dataclasses, strictly: no unknown key, no missing key, no silent conversion."""

from __future__ import annotations

import math
import re
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_EXPECTED = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text"}
_NUMBER = re.compile(r"([-+]?)(\d*)(?:\.(\d*))?(?:e([-+]?)(\d+))?", re.IGNORECASE)


def build(kind: Any, raw: Any, where: str) -> Any:
    """Return `raw` as a `kind`: a dataclass, tuple, Literal, str, bool, int or finite float; or one or a list of them.

    ValueError in one line that begins with `where` and the key at fault, and says what to write where YAML 1.1 reads a
    spelling in a way of its own.
    """
    if get_origin(kind) in (types.UnionType, Union):
        return build(_chosen(kind, raw), raw, where)
    if is_dataclass(kind):
        return _section(kind, raw, where)
    if get_origin(kind) is tuple:
        if not isinstance(raw, list):
            raise ValueError(f"{where}: expected a list, got {raw!r}: write [a, b]")
        return tuple(build(get_args(kind)[0], entry, f"{where}[{index}]") for index, entry in enumerate(raw))
    if get_origin(kind) is Literal:
        if raw not in get_args(kind):
            raise ValueError(f"{where}: {raw!r} is not one of {', '.join(filter(None, get_args(kind)))}")
        return raw
    if kind is float and isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    if kind is not float and type(raw) is kind:
        return raw
    raise ValueError(f"{where}: expected {_EXPECTED[kind]}, got {raw!r}{_fix(kind, raw)}")


def _chosen(kind: Any, raw: Any) -> Any:
    """Of `single | tuple[single, ...]` the one that `raw` is written as."""
    lists = [each for each in get_args(kind) if get_origin(each) is tuple]
    return next(each for each in get_args(kind) if (each in lists) == isinstance(raw, list))


def _section(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: expected keys and values, got {raw!r}")
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(map(str, raw)) - set(known)):
        raise ValueError(f"{where}: unknown key '{unknown[0]}'; known are {', '.join(known)}")
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in raw]:
        raise ValueError(f"{where}: '{missing[0]}' is missing")
    hints = get_type_hints(kind)
    values = {name: build(hints[name], value, f"{where}: {name}") for name, value in raw.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _fix(kind: type, raw: Any) -> str:
    """Return what to write for a `raw` that YAML 1.1 made another type of; '' when nothing better is known."""
    if raw is None:
        return ": give it a value, or leave the key out"
    if kind is float and isinstance(raw, str):
        return _number_fix(raw)
    if kind is str:
        words = " (YAML 1.1 reads yes, no, on and off as true and false)" if isinstance(raw, bool) else ""
        return f": put it in quotes{words}"
    if kind is bool:
        return ": write true or false, without quotes"
    if kind is int and isinstance(raw, float) and raw.is_integer():
        return f": write {int(raw)}"
    return ""


def _number_fix(raw: str) -> str:
    found = _NUMBER.fullmatch(raw)
    if not found or not (found[2] or found[3]):
        return ""
    sign, whole, part, exponent_sign, exponent = found.groups()
    number = f"{sign}{whole or 0}.{part or 0}" + (f"e{exponent_sign or '+'}{exponent}" if exponent else "")
    if not exponent:
        return f": write {number}, without quotes"
    return f": YAML 1.1 reads an exponent without a point or a sign as text: write {number}"
