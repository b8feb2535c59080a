"""Reads a foreign folder as data: plain files inside it only, every fault one ValueError with the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def plain_file(folder: Path, name: str) -> Path:
    """The file of that name. Raises ValueError for a name with a path in it, a link that leaves, or no file."""
    if not name or name in (".", "..") or any(sign in name for sign in "/\\\0"):
        raise ValueError(f"{name!r} must be the plain name of a file in '{folder}'")
    return inside(folder, folder / name)


def inside(folder: Path, path: Path) -> Path:
    """The path itself. Raises ValueError unless it is a file that, links followed, lies below the folder."""
    try:
        real = path.resolve(strict=True)
        if not real.is_file():
            raise ValueError(f"'{path}' is not a file")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"'{path}' is missing or can't be opened") from error
    if not real.is_relative_to(folder.resolve()):
        raise ValueError(f"'{path}' is a link to outside its folder: copy the files instead of linking them")
    return path


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError that names the file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not JSON: {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"'{path}' must hold a JSON object, not {type(raw).__name__}")
    return raw


def parse(model: type[Model], raw: object, where: str) -> Model:
    """Check data against its types. Raises ValueError that names the key at fault."""
    try:
        return model.model_validate(raw)
    except (ValidationError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise ValueError(f"{where}: nested too deeply") from error
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{where}: {key[:200]!r}: {one_line(fault['msg'])}") from error


def one_line(error: object) -> str:
    """An error's text without line breaks, at most 200 characters."""
    return " ".join(str(error).split())[:200]
