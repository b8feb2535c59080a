"""Parsed YAML to frozen dataclasses, strictly: no unknown key, no missing key, no silent conversion."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints


def build(kind: Any, raw: Any, where: str) -> Any:
    """Return `raw` as a `kind`: a dataclass, tuple, Literal, str, bool, int or finite float.

    ValueError in one line that begins with `where` and the key at fault.
    """
    if is_dataclass(kind):
        return _section(kind, raw, where)
    if get_origin(kind) is tuple:
        if not isinstance(raw, list):
            raise ValueError(f"{where}: expected a list, got {raw!r}")
        return tuple(build(get_args(kind)[0], entry, f"{where}[{index}]") for index, entry in enumerate(raw))
    if get_origin(kind) is Literal:
        if raw not in get_args(kind):
            raise ValueError(f"{where}: {raw!r} is not one of {', '.join(get_args(kind))}")
        return raw
    if kind is float and isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    if kind is not float and type(raw) is kind:
        return raw
    raise ValueError(f"{where}: expected a {'finite number' if kind is float else kind.__name__}, got {raw!r}")


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
