"""A mobile base beside the arm: its velocity passes through, limited, and is zero whenever no policy commands it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from driven_arm import READY, DrivenArm, real_profile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pirl_contract import Alteration, ControlSource
from pirl_ros.control.action_mapping import ActionMapper, ArmCommand
from pirl_ros.profile.action_parts import ActionPart
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import BaseSection

PARTS = (ActionPart("joint_position"), ActionPart("gripper"), ActionPart("base_velocity"))
BASE = BaseSection("base/cmd_vel", linear=0.5, angular=1.0)


def driving(profile: Profile, base: BaseSection = BASE) -> Profile:
    return replace(real_profile(profile), action=PARTS, tcp_step=0.0, base=base)


def action(*base: float) -> np.ndarray:
    return np.concatenate([READY, [1.0], base]).astype(np.float32)


def test_its_entries_are_in_the_contract(profile: Profile) -> None:
    fields = driving(profile).contract.action[-2:]
    assert [(field.name, field.unit, field.low, field.high) for field in fields] == [
        ("base_vx", "m/s", -0.5, 0.5), ("base_wz", "rad/s", -1.0, 1.0),
    ]  # fmt: skip
    sideways = driving(profile, replace(BASE, sideways=True)).contract.action[-3:]
    assert [field.name for field in sideways] == ["base_vx", "base_vy", "base_wz"]


def test_its_velocity_passes_through_and_is_reported(profile: Profile) -> None:
    command = ActionMapper(driving(profile)).step(action(0.3, -0.4), READY, 0.0, 0.0)
    assert command.base == pytest.approx((0.3, 0.0, -0.4))
    assert command.alterations == Alteration.NONE
    np.testing.assert_array_equal(command.executed[-2:], np.float32([0.3, -0.4]))
    holonomic = ActionMapper(driving(profile, replace(BASE, sideways=True)))
    assert holonomic.step(action(0.1, 0.2, 0.3), READY, 0.0, 0.0).base == pytest.approx((0.1, 0.2, 0.3))


def test_the_speed_scale_slows_it_down_on_the_same_curve(profile: Profile) -> None:
    motion = ActionMapper(driving(profile))
    motion.set_speed_scale(0.5)
    command = motion.step(action(0.5, 0.4), READY, 0.0, 0.0)
    assert command.base == pytest.approx((0.25, 0.0, 0.2))
    assert command.alterations & Alteration.LIMIT
    np.testing.assert_allclose(command.executed[-2:], [0.25, 0.2], atol=1e-6)


@given(hnp.arrays(np.float32, 3, elements=st.floats(width=32)), st.floats(0.01, 1.0), st.sampled_from([0.0, 9.0]))
def test_no_input_makes_it_faster_than_its_limits(
    profile: Profile, velocity: np.ndarray, share: float, age_s: float
) -> None:
    motion = ActionMapper(driving(profile, replace(BASE, sideways=True)))
    motion.set_speed_scale(share)
    command = motion.step(action(*velocity), READY, age_s, 0.0)
    limits = share * np.array([0.5, 0.5, 1.0])
    assert (np.abs(command.base) <= limits * (1 + 1e-9)).all()
    np.testing.assert_allclose(command.executed[-3:], command.base, atol=1e-6)
    if age_s or not np.isfinite(velocity).all():
        assert command.base == (0.0, 0.0, 0.0)


ENDS: dict[str, Callable[[DrivenArm], object]] = {
    "end": lambda arm: arm.executor.end("e"),
    "emergency stop": lambda arm: arm.executor.emergency_stop("a test", "test"),
    "takeover": lambda arm: arm.executor.set_control_source(ControlSource.HUMAN, "test"),
    "NaN": lambda arm: arm.chunk(np.tile(action(np.nan, 0.0), (50, 1))),
    "link lost": lambda arm: arm.run(70),
}


@pytest.mark.parametrize("way", ENDS)
def test_it_stands_as_soon_as_no_policy_commands_it(profile: Profile, way: str) -> None:
    arm = DrivenArm(driving(profile))
    arm.run()
    arm.executor.begin("e")
    arm.chunk(np.tile(action(0.3, 0.1), (50, 1)), execute=20)
    arm.run(10)
    newest = arm.ticks[-1].command
    assert newest is not None
    assert newest.base == pytest.approx((0.3, 0.0, 0.1))
    ENDS[way](arm)
    for _ in range(8):
        command = arm.run().command
        assert command is None or command.base == (0.0, 0.0, 0.0)


class Node:
    """A node whose time the test decides."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, float, float]] = []
        self.timers: list[Callable[[], None]] = []

    def create_publisher(self, *_: Any, **__: Any) -> Any:
        def keep(message: Any) -> None:
            assert message.header.frame_id == "base_link"
            self.sent.append((message.twist.linear.x, message.twist.linear.y, message.twist.angular.z))

        return SimpleNamespace(publish=keep)

    def create_timer(self, period_s: float, callback: Callable[[], None]) -> None:
        assert period_s == pytest.approx(0.15)
        self.timers.append(callback)

    def get_clock(self) -> Any:
        from builtin_interfaces.msg import Time

        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time))


def command(x: float, turn: float) -> ArmCommand:
    base = (x, 0.0, turn)
    return ArmCommand(READY, 0.0, np.zeros(10, np.float32), Alteration.NONE, ControlSource.POLICY, None, base)


@pytest.mark.ros
def test_the_base_is_sent_zero_when_commands_cease(ros: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pirl_ros.adapters import base_controller

    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(base_controller, "time", SimpleNamespace(monotonic=lambda: now.s))
    node = Node()
    base = base_controller.BaseVelocity(node, BASE, 50.0)
    base.send(command(0.0, 0.0), lambda: None)
    assert node.sent == [], "one that stands is left alone"
    base.send(command(0.2, 0.1), lambda: None)
    now.s += 0.25
    node.timers[0]()
    assert node.sent == [(0.2, 0.0, 0.1)]
    now.s += 0.1
    node.timers[0]()
    node.timers[0]()
    assert node.sent[1:] == [(0.0, 0.0, 0.0)], "once"
    for end in (base.rest, lambda _: base.release(), lambda _: base.stop()):
        base.send(command(0.2, 0.1), lambda: None)
        end(lambda: None)
        assert node.sent[-1] == (0.0, 0.0, 0.0)


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "belong together: 0 parts and a base": lambda raw: raw["action"].pop(),
    "belong together: 1 parts and no base": lambda raw: raw.pop("base"),
    "belong together: 2 parts and a base": lambda raw: raw["action"].append({"kind": "base_velocity"}),
    "base: linear must be above 0": lambda raw: raw["base"].update(linear=0.0),
    "base: unknown key 'speed'": lambda raw: raw["base"].update(speed=1.0),
}


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_profile_is_rejected_by_name(profile_path: Path, tmp_path: Path, said: str) -> None:
    raw = yaml.safe_load(profile_path.read_text())
    del raw["tcp_step"]
    raw["base"] = {"topic": "base/cmd_vel", "linear": 0.5, "angular": 1.0}
    raw["action"] = [{"kind": kind} for kind in ("joint_position", "gripper", "base_velocity")]
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert load_profile(path).base == BASE
    WRONG[said](raw)
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ValueError, match=f"^[^\n]*{re.escape(said)}[^\n]*$"):
        load_profile(path)
