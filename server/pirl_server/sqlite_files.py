"""What every SQLite file of the server has: transactions, a version of its tables, and which errors are the disk's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

_REJECTED = {
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
}  # fmt: skip
Result = TypeVar("Result")


def transact(connection: sqlite3.Connection, action: Callable[[sqlite3.Connection], Result]) -> Result:
    """Run `action` in one transaction, which is on the disk when this returns, and gone when it raises.

    IMMEDIATE: a transaction that begins by reading can't wait for its turn to write.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = action(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def make_tables(connection: sqlite3.Connection, schema: str, version: int) -> bool:
    """Make the tables of an empty file; return whether it was empty. `schema` sets `user_version`.

    Raises sqlite3.DatabaseError for a file of another version.
    """

    def make(rows: sqlite3.Connection) -> int:
        if (found := _version(rows)) == 0:
            for statement in schema.split(";\n"):
                rows.execute(statement)
        return found

    found = _version(connection) or transact(connection, make)  # which another process may have made meanwhile
    if found not in (0, version):
        raise sqlite3.DatabaseError(f"version {found}, this server writes {version}")
    return found == 0


def rejected(error: sqlite3.Error) -> bool:
    """Whether the disk, or another process, does not allow it now; else the file is not what was written to it."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _REJECTED and code != sqlite3.SQLITE_IOERR_SHORT_READ  # that is a file that was cut short


def _version(connection: sqlite3.Connection) -> int:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)
