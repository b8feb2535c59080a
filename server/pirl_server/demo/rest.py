"""The demo's REST client: what a user's script would do with any HTTP library."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from pirl_server.demo.terminal import Bar

Check = Callable[[], None]


class Rest:
    """One server's REST API. RuntimeError carries the server's own words."""

    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0, trust_env=False)

    def wait_until_ready(self, check: Check, limit_s: float = 120.0) -> None:
        """Return when a policy is served. `check` raises when the server's process is gone."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            check()
            try:
                if self._http.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.2)
        raise RuntimeError(f"the server was not ready after {limit_s:.0f} s")

    def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object."""
        return self._answer(self._http.get(path))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON object."""
        return self._answer(self._http.post(path, json=dict(body)))

    def run_job(self, spec: Mapping[str, Any], bar: Bar) -> tuple[dict[str, Any], list[dict[str, float]]]:
        """Create a job, show its progress, wait for its end; return its result and its metrics in order."""
        job = self.post("/v1/jobs", spec)
        metrics: list[dict[str, float]] = []
        for kind, data in self._events(job["id"]):
            if kind == "progress":
                bar.show(data["done"], data["total"], data["message"])
            elif kind == "metrics":
                metrics.append(data)
        ended = self.get(f"/v1/jobs/{job['id']}")
        if ended["status"] != "succeeded":
            raise RuntimeError(f"{spec['kind']} job {job['id']} {ended['status']}: {ended['error']}")
        return ended["result"], metrics

    def _events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Follow the job's server-sent events to its end."""
        with self._http.stream("GET", f"/v1/jobs/{job_id}/events", timeout=httpx.Timeout(30.0, read=None)) as stream:
            kind = ""
            for line in stream.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    kind = value
                elif field == "data":
                    yield kind, json.loads(value)

    @staticmethod
    def _answer(response: httpx.Response) -> dict[str, Any]:
        body: dict[str, Any] = response.json()
        if response.is_error:
            raise RuntimeError(f"{response.request.url.path}: {body.get('detail') or body.get('title')}")
        return body
