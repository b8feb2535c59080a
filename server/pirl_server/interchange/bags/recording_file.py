"""Opens what rosbag2 recorded, whole or not: a folder, or one of its files.

What is not as rosbag2 leaves it is put right in a copy first, and said:

- a folder without metadata.yaml, which a recorder that was killed leaves: its files are read;
- an MCAP file that ends within a record: what lies before the cut is read;
- an MCAP file without chunks whose messages are out of order: they are sorted.

An SQLite file that is damaged is an error: SQLite's own `.recover` puts it right.
"""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import error as ZlibError  # noqa: N812

import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import Writer
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError

from pirl_server.interchange.bags.known_files import (
    MCAP_MAGIC,
    METADATA,
    SQLITE_MAGIC,
    SUFFIXES,
    files_of,
    head_of,
)
from pirl_server.interchange.bags.message_types import types

_BROKEN = (McapError, struct.error, zstandard.ZstdError, ZlibError, UnicodeDecodeError, ValueError, EOFError)
"""what reading a file that is cut, or damaged where it ends, raises"""


@dataclass(frozen=True)
class OpenRecording:
    """A recording that can be read; `lines` say what was put right."""

    reader: AnyReader
    lines: tuple[str, ...]
    files: tuple[Path, ...]
    """as they were found"""


@contextmanager
def opened(path: Path) -> Iterator[OpenRecording]:
    """Open a recording. Raises ValueError that names the file and what to do about it."""
    with ExitStack() as stack:
        files = files_of(path) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"'{path}' holds no recording: no file ends with {' or '.join(SUFFIXES)}")
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pirl-bag-")))
        whole, lines = [], list[str]()
        for file in files:
            mended, line = _mended(file, scratch)
            whole.append(mended)
            lines += [line] if line else []
        described = path.is_dir() and (path / METADATA).is_file()
        if path.is_dir() and not described:
            lines.append(f"'{path}' has no {METADATA}: its {len(files)} files are read")
        reader = _reader([path] if described and whole == files else whole)
        stack.callback(reader.close)
        yield OpenRecording(reader, tuple(lines), tuple(files))


def _reader(paths: list[Path]) -> AnyReader:
    named = ", ".join(f"'{each}'" for each in paths)
    try:
        reader = AnyReader(paths, default_typestore=types())
        reader.open()
    except (AnyReaderError, ReaderError, OSError, sqlite3.Error) as error:
        raise ValueError(f"{named} can't be read: {error}") from None
    return reader


def _mended(file: Path, scratch: Path) -> tuple[Path, str]:
    """The file itself when it is whole, else a copy of what can be read of it, and what was wrong."""
    head = head_of(file)
    with file.open("rb") as opened_file:
        opened_file.seek(-min(len(MCAP_MAGIC), file.stat().st_size), 2)
        ends = opened_file.read() == MCAP_MAGIC
    if head == SQLITE_MAGIC:
        _check_sqlite(file)
        return file, ""
    if not head.startswith(MCAP_MAGIC):
        raise ValueError(f"'{file}' is neither MCAP nor SQLite: is it compressed as a whole? Unpack it first")
    if ends and not _unordered(file):
        return file, ""
    copy = scratch / file.name
    count, read, why = _copy(file, copy)
    if not count:
        raise ValueError(f"'{file}' is cut short, and no message lies before the cut")
    if ends and not why:
        return copy, f"'{file}' has no chunks and messages out of order: they were sorted"
    share = read / file.stat().st_size
    return copy, f"'{file}' is cut short: {count} messages before the cut are read ({share:.0%} of the file)"


def _unordered(file: Path) -> bool:
    """Whether an MCAP file without chunks has a message that was logged after a later one."""
    last = -1
    try:
        with file.open("rb") as stream:
            for record in StreamReader(stream, emit_chunks=True).records:
                if type(record).__name__ in ("Chunk", "DataEnd"):
                    return False
                if isinstance(record, Message):
                    if record.log_time < last:
                        return True
                    last = record.log_time
    except _BROKEN:
        return True
    return False


def _copy(file: Path, target: Path) -> tuple[int, int, str]:
    """Write what can be read into a file with chunks and indexes; return messages, bytes read and why it ended."""
    count, read, why = 0, 0, ""
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    with file.open("rb") as stream, target.open("wb") as out:
        writer = Writer(out)
        writer.start(profile="ros2")
        records = StreamReader(stream).records
        while True:
            try:
                record: Any = next(records)
            except StopIteration:
                break
            except _BROKEN as error:
                why = f"{type(error).__name__}: {error}"
                break
            read = stream.tell()
            if isinstance(record, Schema) and record.id not in schemas:
                schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
            elif isinstance(record, Channel) and record.id not in channels:
                channels[record.id] = writer.register_channel(
                    record.topic, record.message_encoding, schemas[record.schema_id], record.metadata
                )
            elif isinstance(record, Message):
                writer.add_message(
                    channels[record.channel_id], record.log_time, record.data, record.publish_time, record.sequence
                )
                count += 1
        writer.finish()  # type: ignore[no-untyped-call]
    return count, read, why


def _check_sqlite(file: Path) -> None:
    """Raise ValueError for a database that is cut or damaged."""
    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise ValueError(
            f"'{file}' is damaged ({found}): recover it with `sqlite3 {file.name} .recover | sqlite3 whole.db3`, and"
            " import the file that this makes"
        )
