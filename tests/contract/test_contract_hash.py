"""The contract's hash: the same for the same robot, another one for any change, and words for what changed."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from contract_fakes import CONTRACT
from hypothesis import given
from hypothesis import strategies as st

from pirl_contract import Camera, Contract, Field

Q, GRIP = CONTRACT.state
CHANGES = {
    "robot": replace(CONTRACT, robot="other"),
    "camera name": replace(CONTRACT, cameras=(Camera("base", 4, 5),)),
    "camera height": replace(CONTRACT, cameras=(Camera("wrist", 5, 5),)),
    "camera width": replace(CONTRACT, cameras=(Camera("wrist", 4, 4),)),
    "no camera": replace(CONTRACT, cameras=()),
    "state order": replace(CONTRACT, state=(GRIP, Q)),
    "state unit": replace(CONTRACT, state=(replace(Q, unit="deg"), GRIP)),
    "state low": replace(CONTRACT, state=(replace(Q, low=None), GRIP)),
    "state high": replace(CONTRACT, state=(Q, replace(GRIP, high=0.05))),
    "state longer": replace(CONTRACT, state=(Q, GRIP, Field("more", "m"))),
    "action name": replace(CONTRACT, action=(Field("q", "rad", -0.1, 0.1),)),
    "action limit": replace(CONTRACT, action=(Field("dq", "rad", -0.1, 0.2),)),
    "rate": replace(CONTRACT, rate_hz=20.0),
    "version": replace(CONTRACT, version=2),
}


def test_the_hash_is_stable_across_processes_and_releases() -> None:
    """A literal: episodes on disk and robots in the field carry hashes that were taken earlier."""
    assert CONTRACT.hash == "139fa12caf5fcaaa"
    assert Contract.from_json(CONTRACT.to_json()) == CONTRACT


def test_equal_contracts_have_equal_hashes_however_their_numbers_were_written() -> None:
    """A YAML file that says 10 and one that says 10.0 describe the same robot."""
    whole = Contract("r", (), (Field("q", "rad", -1, 1),), (Field("dq", "rad", 0, 1),), rate_hz=10)
    point = Contract("r", (), (Field("q", "rad", -1.0, 1.0),), (Field("dq", "rad", 0.0, 1.0),), rate_hz=10.0)
    assert whole.difference(point) == []
    assert whole.hash == point.hash == Contract.from_json(whole.to_json()).hash


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_changes_the_hash_and_is_said_in_words(change: str) -> None:
    other = CHANGES[change]
    assert other.hash != CONTRACT.hash
    (line,) = CONTRACT.difference(other)
    key, _, words = line.partition(": ")
    here, _, there = words.partition(" here, ")
    assert key in ("robot", "cameras", "state", "action", "rate_hz", "version")
    assert here
    assert there.endswith(" there")
    assert here != there.removesuffix(" there"), "the line must show what differs"


def test_equal_contracts_differ_in_nothing() -> None:
    assert CONTRACT.difference(replace(CONTRACT)) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"x"', "{}", '{"robot": "r"}', CONTRACT.to_json().replace('"unit"', '"unti"'),
     CONTRACT.to_json().replace("10.0", '"fast"'), CONTRACT.to_json().replace('"version":1', '"version":Infinity'),
     CONTRACT.to_json().replace('"version":1', '"version":null'), "[" * 100_000],
)  # fmt: skip
def test_what_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a contract"):
        Contract.from_json(text)


def with_value(key: str, value: object, index: int | None = None, part: str = "") -> str:
    raw = json.loads(CONTRACT.to_json())
    place = raw if index is None else raw[part][index]
    place[key] = value
    return json.dumps(raw)


NO_ROBOT = {
    "rate 0": (with_value("rate_hz", 0), "rate_hz 0.0 must be above 0"),
    "rate negative": (with_value("rate_hz", -10.0), "rate_hz -10.0 must be above 0"),
    "rate nan": (with_value("rate_hz", float("nan")), "rate_hz nan must be above 0"),
    "rate infinite": (with_value("rate_hz", float("inf")), "rate_hz inf must be above 0, at most 10000"),
    "rate of another unit": (with_value("rate_hz", 2e7), "at most 10000"),
    "camera path": (
        with_value("name", "../../../x", 0, "cameras"),
        r"camera '\.\./\.\./\.\./x' must be 1 to 64 letters",
    ),
    "camera unnamed": (with_value("name", "", 0, "cameras"), "camera '' must be 1 to 64 letters"),
    "camera height 0": (with_value("height", 0, 0, "cameras"), "height 0 of camera 'wrist' must be 1 to 8192"),
    "camera width 1e9": (with_value("width", 10**9, 0, "cameras"), "width 1000000000 of camera 'wrist'"),
    "camera width fraction": (with_value("width", 4.5, 0, "cameras"), r"width 4\.5 of camera 'wrist'"),
    "entry unnamed": (with_value("name", "", 0, "state"), "must be printable and not empty"),
    "entry of two lines": (with_value("name", "q\nforged", 0, "state"), "must be printable and not empty"),
    "entry twice": (with_value("name", "grip", 0, "state"), "state entry names are 'grip'"),
    "limit nan": (with_value("low", float("nan"), 0, "state"), "limits nan and .* must be finite"),
    "limits reversed": (with_value("low", 100.0, 0, "action"), "the lower one first"),
}


@pytest.mark.parametrize("fault", NO_ROBOT)
def test_numbers_and_names_that_no_robot_has_are_rejected_with_the_value(fault: str) -> None:
    text, words = NO_ROBOT[fault]
    with pytest.raises(ValueError, match=words):
        Contract.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json.loads(CONTRACT.to_json()))), JSON)
def test_any_value_under_a_key_gives_a_contract_or_a_value_error(key: str, value: object) -> None:
    raw = json.loads(CONTRACT.to_json()) | {key: value}
    with contextlib.suppress(ValueError):
        found = Contract.from_json(json.dumps(raw))
        assert Contract.from_json(found.to_json()).hash == found.hash
        assert isinstance(found.difference(CONTRACT), list)
