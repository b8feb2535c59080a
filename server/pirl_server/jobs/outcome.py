"""What the process of a job leaves in its folder when it ends: a result, or why there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import read_json

RESULT, ERROR = "result.json", "error.txt"
LOG_TAIL_BYTES, MAX_ERROR_BYTES = 64 * 1024, 4096


def read_result(path: Path) -> dict[str, Any] | None:
    """Return what the process left; None where it left nothing. Raises ValueError when that can't be read."""
    if not path.exists():
        return None
    result = read_json(path)
    if not isinstance(result, dict):
        raise ValueError(f"'{path}' can't be read: it holds no JSON object")
    return result


def why_it_failed(directory: Path, code: int) -> str:
    """Return one line: what the process said about its failure, else how it ended."""
    if (directory / ERROR).exists():
        with (directory / ERROR).open("rb") as said:
            return said.read(MAX_ERROR_BYTES).decode(errors="replace")
    if code < 0:
        return f"its process was killed by signal {-code}"
    last = _last_line(directory / "log.txt") or _last_line(directory / "log.1.txt")
    return last or f"its process ended with status {code} without a message"


def _last_line(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
