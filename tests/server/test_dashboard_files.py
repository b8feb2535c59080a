"""What the dashboard is made of and what it is given: files, images of robots, who may call the port of stops."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from dashboard_world import Arm, scene, with_cameras
from patience import until
from serve_process import free_port
from whole_server import Server

from pirl_contract import Contract, Observation
from pirl_server.api.dashboard import WEB, web_files
from pirl_server.api.robot_images import LONGEST, Thumbnails, shrunk
from pirl_server.api.stop_listener import stop_door
from pirl_server.serving import connections
from pirl_server.serving.connections import NewestObservations
from pirl_server.telemetry.robot_activity import AFTER_STOP_S, safety

MAX_PAGE_BYTES = 250_000


@pytest.fixture
def server(tmp_path: Path, make_policy: Any, contract: Contract) -> Iterator[Server]:
    port = free_port()
    made = Server(tmp_path, make_policy(contract=with_cameras(contract)), stop_port=port)
    with stop_door("127.0.0.1", port, rest_port=made.rest.port) as open_door:
        open_door(made.api)
        yield made
    made.close()


def test_all_files_together_are_light_and_name_no_other_host(server: Server) -> None:
    total = 0
    with server.web() as web:
        for name in ("", *(f"/{name}" for name in web_files())):
            reply = web.get(f"/dashboard{name}")
            assert reply.status_code == 200, name
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
            assert f"connect-src 'self' http://127.0.0.1:{server.api.state.services.stop_port};" in policy
            assert "unsafe" not in policy
            total += len(reply.content) if name != "/index.html" else 0
            if "/vendor/" not in name:
                assert (
                    re.findall(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|\beval\(|style=\"", reply.text) == []
                ), name
            again = web.get(f"/dashboard{name}", headers={"If-None-Match": reply.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        for missing in ("nothing.js", "../dashboard.py", "%2e%2e/dashboard.py", "vendor/README.md", "vendor"):
            assert web.get(f"/dashboard/{missing}").status_code in (401, 404), missing  # 401: another path altogether
    assert 20_000 < total < MAX_PAGE_BYTES


def test_an_odd_host_adds_nothing_to_the_policy(server: Server) -> None:
    with server.web() as web:
        policy = web.get("/dashboard", headers={"Host": "x; script-src *"}).headers["content-security-policy"]
        assert "*" not in policy
        assert "connect-src 'self';" in policy


def test_vendored_files_are_the_published_ones() -> None:
    rows = re.findall(r"`([\w.-]+\.(?:js|css))` .*`([0-9a-f]{64})`", (WEB / "vendor" / "README.md").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (WEB / "vendor").glob("*.[jc]s*")}
    assert dict(rows) == found
    assert len(found) == 3


def test_modules_are_short_and_whole() -> None:
    modules = list(WEB.glob("*.js"))
    assert len(modules) > 5
    imports = {name for path in modules for name in re.findall(r'from "\./([^"]+)"', path.read_text())}
    assert imports <= set(web_files())
    assert {
        path.name: len(path.read_text().splitlines()) for path in modules if path.read_text().count("\n") > 400
    } == {}


def test_an_image_is_what_the_policy_saw_and_made_only_when_it_is_new(server: Server, contract: Contract) -> None:
    arm = Arm(server, with_cameras(contract), "arm-1", server.tokens.create("fleet", ["robot"]))
    with server.web(server.tokens.create("anna", ["operator"])) as web:
        path = "/v1/robots/arm-1/images/base.jpg"
        assert web.get(path).status_code == 404, "it has sent none"
        arm.drive(3)
        reply = web.get(path)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "image/jpeg")
        bgr = cv2.imdecode(np.frombuffer(reply.content, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None
        error = np.abs(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(int) - scene("base", 0.0)).mean()
        assert error < 6 < np.abs(bgr.astype(int) - scene("base", 0.0)).mean(), "and not with red and blue exchanged"
        seen = {"If-None-Match": reply.headers["etag"]}
        assert web.get(path, headers=seen).status_code == 304
        arm.drive(3)
        until(lambda: web.get(path, headers=seen).status_code == 200, "the next image")
        for wrong in ("/v1/robots/arm-1/images/behind.jpg", "/v1/robots/arm-2/images/base.jpg"):
            assert web.get(wrong).status_code == 404
        (robot,) = web.get("/v1/robots").json()["data"]
    arm.close()
    assert [(each["name"], each["width"], each["height"]) for each in robot["cameras"]] == [
        ("base", 128, 128), ("wrist", 128, 128),
    ]  # fmt: skip
    assert robot["instruction"] == "push the cube to the goal"
    assert (robot["control_source"], robot["safety"], robot["stop_sent"]) == ("policy", "clear", None)
    assert (robot["steps"]["count"], robot["steps"]["altered"]) == (6, 0)
    assert 0 < robot["latency"]["p50_ms"] <= robot["latency"]["p99_ms"]


def test_many_who_look_have_few_images_made(observe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now, newest = [0.0], NewestObservations()
    thumbnails = Thumbnails(newest, lambda: now[0])
    seen = set()
    for step in range(100):
        newest.keep(observe(step))
        seen.add(thumbnails.of("arm-1", "wrist").number)
        now[0] += 0.01
    assert len(seen) in (5, 6), "five a second"
    assert shrunk(np.zeros((960, 1280, 3), np.uint8)).shape == (LONGEST * 3 // 4, LONGEST, 3)
    assert shrunk(np.zeros((8, 6, 3), np.uint8)).shape == (8, 6, 3)


def test_what_is_kept_to_be_looked_at_is_bounded(observe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    newest, one = NewestObservations(), observe(0)

    def of(robot: str) -> Observation:
        return Observation(one.images, one.state, one.instruction, robot, 0)

    monkeypatch.setattr(connections, "MAX_SHOWN", 3)
    for number in range(5):
        newest.keep(of(f"arm-{number}"))
    assert [newest.of(f"arm-{number}") is not None for number in range(5)] == [False, False, True, True, True]
    monkeypatch.setattr(connections, "MAX_SHOWN_BYTES", 2 * one.images["wrist"].nbytes)
    newest.keep(of("arm-3"))
    assert [newest.of(f"arm-{number}") is not None for number in range(5)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("steps", "last_step", "stop_sent", "expected"),
    [
        ([], None, None, "unknown"),
        ([0, 0], 5.0, None, "clear"),
        ([1] + 19 * [0], 5.0, None, "limited"),
        ([1] + 20 * [0], 5.0, None, "clear"),
        ([0, 16], 5.0, None, "holding"),
        ([0, 256], 5.0, None, "stopped"),
        ([], None, 4.0, "stop_sent"),
        ([0], 5.0, 4.0, "stop_sent"),
        ([0], 4.0 + AFTER_STOP_S, 4.0, "clear"),
    ],
)
def test_safety_is_what_the_last_steps_say(
    steps: list[int], last_step: float | None, stop_sent: float | None, expected: str
) -> None:
    assert safety(steps, last_step, stop_sent) == expected


def test_only_the_dashboard_may_call_the_port_of_stops(server: Server, contract: Contract) -> None:
    arm = Arm(server, with_cameras(contract), "arm-1", server.tokens.create("fleet", ["robot"]))
    port, rest = server.api.state.services.stop_port, server.rest.port
    token = {"Authorization": f"Bearer {server.tokens.create('anna', ['operator'])}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as web:
        for origin, allowed in (
            (f"http://127.0.0.1:{rest}", True), (f"http://127.0.0.1:{rest + 1}", False), ("http://evil.example", False),
            (f"http://evil.example:{rest}", False), ("null", False),
        ):  # fmt: skip
            asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            answer = web.options("/v1/emergency-stop", headers=asks)
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed, origin
        page = {"Origin": f"http://127.0.0.1:{rest}"}
        assert web.post("/v1/emergency-stop", headers=page).status_code == 401
        reply = web.post("/v1/emergency-stop", headers=page | token)
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (202, page["Origin"])
    arm.close()


def test_without_tokens_no_other_page_stops_a_robot(tmp_path: Path, make_policy: Any) -> None:
    """A site that renamed itself to this address is one of these."""
    server = Server(tmp_path, make_policy())
    server.gate._tokens, server.gate.open = None, True  # as without tokens
    port = free_port()
    with stop_door("127.0.0.1", port, rest_port=server.rest.port) as open_door:
        open_door(server.api)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as web:
            for origin, host, status in (
                (f"http://127.0.0.1:{server.rest.port}", f"127.0.0.1:{port}", 404),  # taken, but no robot is there
                ("http://evil.example", f"127.0.0.1:{port}", 403),
                (f"http://evil.example:{server.rest.port}", f"evil.example:{port}", 403),
            ):
                sent = {"Origin": origin, "Host": host, "Sec-Fetch-Site": "same-site"}
                reply = web.post("/v1/emergency-stop", headers=sent)
                assert reply.status_code == status, (origin, host)
    server.close()


def test_the_audit_log_is_listed_by_event(server: Server) -> None:
    for event in ("promoted", "rolled back", "promoted"):
        server.registry.audit_log.write(event, "anna", version="v1", reason=f"why {event}")
    with server.registry.audit_log.path.open("ab") as file:
        file.write(b"[1, 2]\nnot json\n")
    with server.web(server.tokens.create("anna", ["operator"])) as web:
        found = web.get("/v1/audit", params={"event": ["rolled back"]}).json()["data"]
        assert [(each["event"], each["details"]) for each in found] == [
            ("rolled back", {"version": "v1", "reason": "why rolled back"})
        ]
        times = [each["time"] for each in web.get("/v1/audit", params={"limit": 3}).json()["data"]]
        assert len(times) == 3
        assert times == sorted(times, reverse=True)
    with server.web(server.tokens.create("arm", ["robot"])) as robot:
        assert robot.get("/v1/audit").status_code == 403
