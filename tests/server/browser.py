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
        self.requested: list[str] = []
        """addresses of all requests of the page, by the browser's own log"""
        self.errors: list[str] = []
        """what the browser reported: errors of scripts, and what the content security policy blocked"""
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol; events that arrive meanwhile are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            reply = json.loads(self._socket.recv(timeout=patient(60)))
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]
            self._note(reply.get("method"), reply.get("params", {}))

    def _note(self, event: str | None, said: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requested.append(said["request"]["url"])
        elif event == "Log.entryAdded" and said["entry"]["source"] in ("security", "javascript"):
            self.errors.append(said["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(said["exceptionDetails"]))

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        until(lambda: self.value("document.readyState") == "complete", url)

    def value(self, script: str) -> Any:
        """Value of an expression of the page, plain JSON; of a promise what it resolves to."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, id_: str) -> str:
        """What an element shows; nothing where there is none."""
        return str(self.value(f"document.getElementById({json.dumps(id_)})?.innerText ?? ''"))

    def sees(self, selector: str) -> bool:
        """Whether there is such an element."""
        return bool(self.value(f"document.querySelector({json.dumps(selector)}) !== null"))

    def click(self, id_: str) -> None:
        """Press the mouse in the middle of an element, as a person would: what covers it would get it."""
        self.click_on(f"#{id_}")

    def click_on(self, selector: str) -> None:
        """Press the mouse in the middle of the first such element."""
        script = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({ block: 'center' }); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        x, y = self.value(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type_into(self, selector: str, text: str) -> None:
        """Type into the first such field."""
        self.click_on(selector)
        self.call("Input.insertText", text=text)

    def type(self, id_: str, text: str) -> None:
        """Type into a field, and press Enter."""
        self.type_into(f"#{id_}", text)
        self.press("Enter")

    def choose(self, id_: str, value: str) -> None:
        """Choose an entry of a select, as its menu would: that is no part of the page."""
        self.value(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change', {{ bubbles: true }})); }})"
            f"(document.getElementById({json.dumps(id_)}))"
        )

    def press(self, key: str, **more: Any) -> None:
        """Press a key: a letter, or Enter, Tab, Escape, ArrowRight and the like."""
        letter = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "ArrowUp": 38}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **letter, **more)

    def shape(self, width: int, height: int, dark: bool = False, mobile: bool = False) -> None:
        """Give the page another size, and the colours of day or night."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Save what is shown as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
