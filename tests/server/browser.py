"""A headless Chromium, driven over its own debugging protocol: no driver, no library besides websockets."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import patient, until
from websockets.sync.client import connect

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(
    PROGRAM is None, reason=f"no browser ({', '.join(NAMES)}): apt-get install chromium-headless-shell"
)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--hide-scrollbars")


class Browser:
    """One page of one browser. Ended by `close`."""

    def __init__(self, folder: Path, width: int = 1100, height: int = 900) -> None:
        assert PROGRAM is not None
        words = [PROGRAM, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
        self._log = (folder.parent / f"{folder.name}.log").open("wb")
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        told = folder / "DevToolsActivePort"
        until(lambda: told.is_file() and len(told.read_text().splitlines()) == 2, "the browser's port", limit_s=60.0)
        port = told.read_text().splitlines()[0]
        page = next(
            each
            for each in httpx.get(f"http://127.0.0.1:{port}/json", timeout=patient(30)).json()
            if each["type"] == "page"
        )
        self._socket = connect(page["webSocketDebuggerUrl"], max_size=None, open_timeout=patient(30))
        self._number = 0
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol; events that arrive meanwhile are dropped."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            reply = json.loads(self._socket.recv(timeout=patient(60)))
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        until(lambda: self.value("document.readyState") == "complete", url)

    def value(self, script: str) -> Any:
        """Value of an expression of the page, plain JSON."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, id_: str) -> str:
        """What an element shows."""
        return str(self.value(f"document.getElementById({json.dumps(id_)}).innerText"))

    def click(self, id_: str) -> None:
        """Press the mouse in the middle of an element, as a person would: what covers it would get it."""
        script = (
            f"(() => {{ const e = document.getElementById({json.dumps(id_)}); e.scrollIntoView();"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        x, y = self.value(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, id_: str, text: str) -> None:
        """Type into a field, and press Enter."""
        self.click(id_)
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )

    def screenshot(self, path: Path) -> None:
        """Save what is shown as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
