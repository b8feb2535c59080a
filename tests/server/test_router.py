"""Which version answers which robot: pins, canary, episodes, rollback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pirl_contract import Observation
from pirl_server.atomic_files import write_json
from pirl_server.registry.routing_rules import Routes, read_routes, routes_json
from pirl_server.rpc.denied import DeniedError
from pirl_server.serving.errors import NoPolicyError
from pirl_server.serving.grpc_status import NotFoundError
from pirl_server.serving.router import Dispatcher, Router, lot

ROBOTS = [f"arm-{index}" for index in range(1000)]


def router(candidate: str | None = "c1", **routes: object) -> Router:
    made = Router()
    made.change(Routes(**routes), candidate)  # type: ignore[arg-type]
    return made


def test_without_a_decision_production_answers_everybody() -> None:
    made = router(candidate=None)
    assert [made.version(robot) for robot in ROBOTS[:5]] == [None] * 5
    assert made.version("", "production") is None


def test_a_pin_goes_before_the_canary() -> None:
    made = router(pins={"arm-1": "p"}, canary_robots=("arm-1", "arm-2"))
    assert [made.version(f"arm-{index}") for index in (1, 2, 3)] == ["p", "c1", None]


def test_the_candidate_is_for_robots_that_get_it_anyway_and_the_shadow_for_none() -> None:
    """No robot goes past the gate by a word in its request, in an episode or without one."""
    for made in (router(canary_robots=("arm-9",)), router(canary_share=1.0), router(pins={"arm-9": "c1"})):
        assert made.version("arm-9", "candidate") == "c1"
    for made in (router(), router(canary_robots=("arm-1",)), router(pins={"arm-9": "p"})):
        with pytest.raises(DeniedError, match="'arm-9' is not in the canary of the candidate"):
            made.version("arm-9", "candidate")
        with pytest.raises(DeniedError, match="PUT /v1/routing/pins/arm-9"):
            made.begin("e1", "arm-9", "candidate")
    with pytest.raises(NotFoundError, match="never controls"):
        router().version("arm-9", "shadow")
    for asked, made in (("candidate", router(candidate=None)), ("staging", router())):
        with pytest.raises(NotFoundError, match=asked):
            made.version("arm-9", asked)


def test_a_share_is_a_share_of_the_robots_and_stable() -> None:
    shares = {share: {robot for robot in ROBOTS if router(canary_share=share).version(robot)} for share in (0.1, 0.3)}
    assert 70 < len(shares[0.1]) < 130
    assert shares[0.1] < shares[0.3], "who is in stays in while the share grows"
    assert not any(router(canary_share=0.0).version(robot) for robot in ROBOTS)
    assert all(router(canary_share=1.0).version(robot) for robot in ROBOTS)
    other = router(candidate="c2", canary_share=0.1)
    assert {robot for robot in ROBOTS if other.version(robot)} != shares[0.1], "not always the same unlucky ones"


def test_an_episode_keeps_its_version_until_it_ends() -> None:
    open_episodes = {"e1", "e2"}
    made = Router(open_episodes.__contains__)
    made.change(Routes(canary_robots=("arm-1",)), "c1")
    assert (made.begin("e1", "arm-1"), made.begin("e2", "arm-2")) == ("c1", None)
    made.change(Routes(canary_robots=("arm-2",), pins={"arm-1": "p"}), "c2")
    assert (made.version("arm-1", "", "e1"), made.version("arm-2", "", "e2")) == ("c1", None)
    assert (made.version("arm-1"), made.version("arm-2")) == ("p", "c2"), "without an episode: anew"
    assert made.in_use() == {"c1", "c2", "p"}
    open_episodes.clear()
    assert made.in_use() == {"c2", "p"}
    assert made.begin("e3", "arm-2") == "c2"


def test_a_recalled_candidate_leaves_running_episodes_at_once() -> None:
    made = router(canary_robots=("arm-1",))
    made.begin("e1", "arm-1")
    made.change(Routes(), None)
    assert made.version("arm-1", "", "e1") == "c1"
    made.recall("c1")
    assert made.version("arm-1", "", "e1") is None
    assert made.in_use() == set()


class Leaving:
    """An engine that `leaves` is called by, instead of an answer, for every version but production."""

    def __init__(self, leaves: Callable[[], None]) -> None:
        self.asked, self._leaves = list[str | None](), leaves

    def submit(self, observation: Observation, *, version: str | None, **_: object) -> Any:
        self.asked.append(version)
        if version is None:
            return "answered"
        self._leaves()
        raise NoPolicyError(f"{version} is not loaded")


def test_a_version_that_left_meanwhile_is_asked_for_no_second_time() -> None:
    seen = Observation({}, np.zeros(1, np.float32), "push", "arm-1")
    made = router(canary_robots=("arm-1",))
    engine = Leaving(lambda: made.change(Routes(), None))
    assert Dispatcher(engine, router=made).submit(seen, deadline=1.0) == "answered"  # type: ignore[arg-type]
    assert engine.asked == ["c1", None]
    still = Leaving(lambda: None)
    with pytest.raises(NoPolicyError):
        Dispatcher(still, router=router(canary_robots=("arm-1",))).submit(seen, deadline=1.0)  # type: ignore[arg-type]
    assert still.asked == ["c1"]


@given(st.lists(st.text(), max_size=3))
def test_a_lot_lies_in_its_range(words: list[str]) -> None:
    assert 0.0 <= lot(*words) < 1.0


def test_a_lot_is_the_same_in_every_process() -> None:
    assert lot("c1", "arm-1") == pytest.approx(0.62754076, abs=1e-8)


def test_routes_survive_a_restart_and_a_damaged_file_is_said(tmp_path: Path) -> None:
    path, routes = tmp_path / "routes.json", Routes({"arm-1": "v1"}, "v2", ("arm-2",), 0.25, 0.5)
    assert read_routes(path) == Routes()
    write_json(path, routes_json(routes))
    assert read_routes(path) == routes
    path.write_text('{"pins": {}')
    with pytest.raises(ValueError, match=r"routes\.json' can't be read"):
        read_routes(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"canary_share": 1.5}, "canary_share 1.5"), ({"shadow_share": -0.1}, "shadow"), ({"pins": {"../x": "v"}}, "id")],
)
def test_routes_that_make_no_sense_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Routes(**changes)  # type: ignore[arg-type]
