"""Creates a folder atomically."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pirl_server.interchange.checkpoints.source_folder import one_line


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place at the end; nothing stays when the body raises.

    Raises ValueError when `out` is there already, or for what the disk rejects.
    """
    if out.exists() or out.is_symlink():
        raise ValueError(f"'{out}' already exists: give a new folder")
    folder = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        folder.mkdir(parents=True)
        yield folder
        os.rename(folder, out)
    except OSError as error:
        raise ValueError(f"'{out}' can't be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
