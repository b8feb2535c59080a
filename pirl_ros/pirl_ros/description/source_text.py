"""The text of a robot description file; xacro is expanded where the package `xacro` is installed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from pirl_ros.description.urdf import XACRO_FIX

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def description_text(path: str) -> str:
    """Return URDF text. Raises ValueError: not readable, or xacro that cannot be expanded here, with the command."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    # What xacro writes keeps the comments of its source, commented-out calls of macros among them.
    if not (path.endswith(".xacro") or "<xacro:" in _COMMENT.sub("", text)):
        return text
    try:
        xacro = importlib.import_module("xacro")
    except ModuleNotFoundError:
        raise ValueError(f"{path} is xacro, no URDF: {XACRO_FIX}") from None
    try:
        expanded: str = xacro.process_file(path).toxml()
    except Exception as error:  # of a dozen types, whatever xacro and the packages it looks for raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: xacro failed: {reason}; with arguments expand it yourself: {XACRO_FIX}") from None
    return expanded
