"""A page of another site in a real browser, and a server without tokens on loopback: it starts and sees nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_browser
from patience import until
from test_episode_store import make_episode
from whole_server import Server

JOB = json.dumps({"kind": "sft", "task": "PushCube-v1"})
PAGE = """<!doctype html><body><script>
const server = "%s", job = '%s', done = window.done = {};
const note = (name, promise) => promise.then(r => done[name] = "got " + r.status, e => done[name] = "failed");
const post = (mode, type) =>
  fetch(server + "/v1/jobs", {method: "POST", mode, body: job, headers: {"Content-Type": type}});
note("simple", post("no-cors", "text/plain"));
note("json", post("cors", "application/json"));
note("read", fetch(server + "/v1/jobs"));
const image = new Image();
image.onload = image.onerror = event => done.image = event.type;
image.src = server + "/v1/episodes/%s/frames/wrist/0.jpg";
</script>
<form id=form method=post enctype=text/plain action="%s/v1/jobs"><input name='{"kind": "sft", "a' value='": 1}'></form>
"""


@pytest.fixture
def server(tmp_path: Path, make_policy: Any) -> Iterator[Server]:
    made = Server(tmp_path, make_policy())
    made.gate.open, made.gate._tokens = True, None
    yield made
    made.close()


@needs_browser
def test_a_page_of_another_port_starts_no_job_and_sees_no_image(server: Server, tmp_path: Path) -> None:
    episode = server.api.state.services.episodes.write(make_episode()).id
    text = PAGE % (server.url, JOB, episode, server.url)

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    browser = Browser(tmp_path / "browser")
    try:
        browser.open(f"http://127.0.0.1:{site.server_port}/")
        until(lambda: len(browser.value("done")) == 4, lambda: browser.value("done"))
        assert browser.value("done") == {"simple": "got 0", "json": "failed", "read": "failed", "image": "error"}
        browser.value("document.getElementById('form').submit()")
        until(lambda: "cross-origin" in str(browser.value("document.body.innerText")))
        assert server.jobs.list() == []
        browser.open(f"{server.url}/v1/episodes/{episode}/frames/wrist/0.jpg")  # its own address is no foreign page
        assert browser.value("document.images.length && document.images[0].naturalWidth") == 8, "negative control"
    finally:
        browser.close()
        site.shutdown()
        site.server_close()
