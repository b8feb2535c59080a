"""One line per event, as text or as JSON, with its request and robot."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

from google.protobuf.message import Message

from pirl_server.config.serve import Format
from pirl_server.rpc.interceptor import Call
from pirl_server.telemetry.repeat_filter import Repeats

_LOG = logging.getLogger("pirl.calls")
_MANY = ("Infer", "ReportOutcomes")
_ABOUT: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039  never changed in place


def configure_logs(format: Format, level: int = logging.INFO) -> None:
    """Send every log line of the process to stderr in this form, those of libraries too; repeated ones are counted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Repeats())
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and what it is about.

    A traceback is one string in it: it stays in the log and goes to no client.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _about(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """The same for people; only a record of ours begins a line: what came from outside can't forge one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        words = " ".join(f"{key}={_one_line(value)}" for key, value in _about(record).items())
        head = f"{self.formatTime(record)} {record.levelname} {record.name}: {_one_line(record.getMessage())}"
        lines = [head + (f" [{words}]" if words else "")]
        for text in (record.exc_info and self.formatException(record.exc_info), record.stack_info):
            lines += [f"  {line}" for line in (text or "").splitlines()]
        return "\n".join(map(_printable, lines))


def _one_line(value: Any) -> str:
    return "\\n".join(str(value).splitlines())


def _printable(line: str) -> str:
    """Escape what could move a terminal's cursor or write over a line; tabs stay."""
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() or each == "\t" else repr(each)[1:-1] for each in line)


def _about(record: logging.LogRecord) -> dict[str, Any]:
    return _ABOUT.get() | getattr(record, "about", {})


class CallLog:
    """Logs each call: answered ones that come all the time at DEBUG, the rest at INFO.

    Whatever a handler logs in between names the call's request and robot.
    """

    def began(self, call: Call) -> None:
        """Let lines of this thread name the call."""
        _ABOUT.set({"request_id": call.request_id, "robot_id": call.robot_id})

    def ended(self, call: Call, reply: Message | None, code: str) -> None:
        """Write the call's own line."""
        level = logging.DEBUG if call.rpc in _MANY and code == "OK" else logging.INFO
        if _LOG.isEnabledFor(level):
            milliseconds = round(1000 * call.seconds, 3)
            about = {"request_id": call.request_id, "robot_id": call.robot_id, "rpc": call.rpc, "code": code}
            about |= {"ms": str(milliseconds), "peer": call.peer}
            _LOG.log(level, "%s %s", call.rpc, code, extra={"about": about})
        _ABOUT.set({})
