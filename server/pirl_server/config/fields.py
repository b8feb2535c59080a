"""Fields of a configuration: description, unit and range beside the type, and errors that name the field and the fix.

One definition serves the REST API with its OpenAPI document, the command line and what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from reprlib import repr as short
from typing import Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

ConfigT = TypeVar("ConfigT")
CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""of every configuration: no unknown key, no NaN, no infinity"""
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
MAX_FAULTS = 20
"""that one error lists"""


def about(description: str, unit: str | None = None, **constraints: Any) -> Any:
    """Describe a field whose type alone says what it can be, such as a Literal."""
    return Field(description=description, json_schema_extra={"unit": unit} if unit else None, **constraints)


def number(description: str, unit: str, **bounds: float) -> Any:
    """Describe a number: its unit, and pydantic's `gt`, `ge`, `lt`, `le`. Strict: 3.0 is no int, True no number."""
    return about(description, unit, strict=True, **bounds)


def flag(description: str) -> Any:
    """Describe a switch. Strict: neither 1 nor "yes" is true."""
    return about(description, strict=True)


def text(description: str, pattern: str) -> Any:
    """Describe a text. The pattern is also what rejects lone surrogates."""
    return about(description, strict=True, pattern=pattern)


def _off(value: object) -> object:
    return None if value == "" or (value == 0 and not isinstance(value, bool)) else value


OFF = BeforeValidator(_off)
"""Reads 0 and an empty text as None: what an earlier version stored for off, or for what the checkpoint says."""


Loc = tuple[int | str, ...]
"""where in the input a fault is, in pydantic's form"""


def quoted(loc: Loc) -> str:
    """Name a field as `'config.steps'`; empty for the whole."""
    return f"'{'.'.join(map(str, loc))}'" if loc else ""


def parse(kind: type[ConfigT], values: Mapping[str, Any], named: Callable[[Loc], str] = quoted) -> ConfigT:
    """Make a configuration from its fields by name; those that are left out have their defaults.

    Raises ValueError with one line that says of every field at fault, as `named` calls it, what it must be.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        raise ValueError(one_line(error, lambda _: known, named)) from None


def one_line(error: ValidationError, known: Callable[[Loc], Sequence[str]], named: Callable[[Loc], str]) -> str:
    """List the faults. `known` and `named` give, for a fault's location, the fields there and what to call it."""
    faults = error.errors()
    lines = []
    for fault in faults[:MAX_FAULTS]:
        name = "" if fault["type"] == "value_error" else named(fault["loc"])
        lines.append(f"{name} {message(fault, known(fault['loc']))}".strip())
    more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    return "; ".join(lines + more)


def message(fault: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """Say what a value must be, and what it was; `known` are the fields where an unknown key stands."""
    if fault["type"] in UNKNOWN_KEY:
        close = get_close_matches(str(fault["loc"][-1])[:40], known)
        names = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(sorted(known))}"
        return f"is not known; {names}" if known else "is not known: leave it out"
    if fault["type"] == "missing":
        return "is missing"
    if fault["type"] == "string_unicode":
        return "must be Unicode: it has a lone surrogate"
    if fault["type"] == "union_tag_invalid":
        return f"must have as kind one of {fault['ctx']['expected_tags']}, got {short(fault['ctx']['tag'])}"
    if fault["type"] == "union_tag_not_found":
        return "must have a kind"
    said = str(fault["msg"]).removeprefix("Value error, ").replace("Input should", "must", 1)
    said = said.replace("String should", "must", 1)
    given = fault.get("input")
    scalar = fault["type"] != "value_error" and isinstance(given, str | int | float | None)
    return f"{said}, got {short(given)}" if scalar else said
