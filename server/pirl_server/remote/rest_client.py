"""A client of the REST API for commands: JSON in and out, errors as the server says them, events through breaks."""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE, TOKEN_VARIABLE = "PIRL_API", "PIRL_TOKEN"
READ_S = 60.0
"""a stream of events has a sign of life every 15 s"""
FIRST_PAUSE_S, PAUSE_S = 0.5, 5.0
ATTEMPTS = 3
"""of a request that may be repeated, where no answer came"""


class RestError(Exception):
    """The server rejected a request, or does not answer (`status` 0). The text has what is wrong and the fix."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class RemoteEvent:
    """One event of a job."""

    id: int
    kind: str
    data: dict[str, Any]


class RestClient:
    """One server. Raises RestError; ValueError for a token or certificate that can't be read."""

    def __init__(self, url: str = "", token_file: Path | None = None, ca: Path | None = None) -> None:
        self.url = (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"--api '{self.url}' is no address: write {DEFAULT_URL} or https://HOST:PORT")
        token = _token(token_file)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=30.0, verify=_verify(ca), trust_env=False
        )  # fmt: skip

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """GET a JSON object."""
        chosen = {name: value for name, value in parameters.items() if value is not None}
        found: dict[str, Any] = self.ask("GET", path, parameters=chosen, attempts=ATTEMPTS).json()
        return found

    def post(self, path: str, body: Mapping[str, Any] | None = None, if_match: str | None = None) -> dict[str, Any]:
        """POST a JSON object."""
        done: dict[str, Any] = self.ask("POST", path, body, {"If-Match": if_match} if if_match else {}).json()
        return done

    def create(self, path: str, body: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """POST what must be made once, however often no answer comes: under a key of ours where none is given."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        made: dict[str, Any] = self.ask("POST", path, body, headers, attempts=ATTEMPTS).json()
        return made

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        attempts: int = 1,
    ) -> httpx.Response:
        """Make a request, again where no answer comes, and return the response, which is no error."""
        for left in reversed(range(attempts)):
            try:
                return self._checked(self._http.request(method, path, json=body, headers=headers, params=parameters))
            except httpx.TransportError as error:
                if not left:
                    raise self._silent(error) from None
            time.sleep(FIRST_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def events(self, job_id: str, after: int = 0) -> Iterator[RemoteEvent]:
        """Yield a job's events to its end. Where the connection breaks, continue after the last one that came."""
        pause, path = FIRST_PAUSE_S, f"/v1/jobs/{job_id}/events"
        while True:
            try:
                with self._http.stream(
                    "GET", path, headers={"Last-Event-ID": str(after)}, timeout=httpx.Timeout(30.0, read=READ_S)
                ) as stream:
                    if stream.status_code == 204:
                        return
                    if stream.is_error:
                        stream.read()
                        self._checked(stream)
                    for event in _events(stream.iter_lines()):
                        after, pause = event.id, FIRST_PAUSE_S
                        yield event
            except httpx.TransportError as error:
                print(f"{self._silent(error)}; trying again", file=sys.stderr)
            except RestError as error:
                if error.status != 503:
                    raise
            time.sleep(pause)
            pause = min(PAUSE_S, 2 * pause)

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if not response.is_error:
            return response
        try:
            problem = response.json()
            lines = [f"{problem['title']}: {problem['detail']}"]
            if len(problem.get("errors", ())) > 1:
                lines += [f"  {each['field']}: {each['message']}" for each in problem["errors"]]
        except (ValueError, KeyError, TypeError):
            lines = [f"HTTP {response.status_code} from {self.url}, which may be no pirl server: check --api"]
        if response.status_code == 401:
            lines.append(f"give a token with --token-file FILE, or in {TOKEN_VARIABLE}: `pirl token create` makes one")
        raise RestError(response.status_code, "\n".join(lines))

    def _silent(self, error: httpx.TransportError) -> RestError:
        return RestError(
            0, f"no answer from {self.url} ({error or type(error).__name__}): start `pirl serve`, or --api"
        )


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ValueError(f"--token-file '{file}' can't be read: {error.strerror}") from None


def _verify(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except OSError as error:
        raise ValueError(f"--ca '{ca}' can't be read: {error}") from None


def _events(lines: Iterator[str]) -> Iterator[RemoteEvent]:
    """Read server-sent events (WHATWG HTML, section 9.2.6), one line of data each; comments are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif not line and "data" in fields:
            yield RemoteEvent(int(fields.get("id", "0")), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
