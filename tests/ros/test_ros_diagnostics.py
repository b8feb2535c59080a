"""What operators and aggregators read: levels, one log line per change, and one line when everything is ready."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from patience import output_of
from scripted_server import ScriptedServer, serving

from pirl_ros.profile.profile import Profile

pytestmark = pytest.mark.ros

STALE = "joint states is stale: {age} s old, limit 0.5 s"


class Logger:
    """Keeps what is logged, with its level."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda text: self.lines.append((level, text))


@pytest.fixture
def node(ros: Any) -> Any:
    from builtin_interfaces.msg import Time

    logger, published = Logger(), list[Any]()
    return SimpleNamespace(
        logger=logger,
        published=published,
        misfits=SimpleNamespace(reasons=list[str]()),
        get_logger=lambda: logger,
        create_publisher=lambda *_: SimpleNamespace(publish=published.append),
        get_fully_qualified_name=lambda: "/arm_node",
        get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time)),
    )


def test_a_reason_is_logged_when_it_changes_and_not_when_only_its_figures_do(node: Any) -> None:
    from pirl_ros.adapters.diagnostics import ChangeLog

    log = ChangeLog(node)
    for age in (0.6, 1.1, 1.6, 12.0):
        log.log(STALE.format(age=age))
    log.log("camera base is stale: 0.6 s old, limit 0.5 s")
    log.log("camera base is stale: 1.1 s old, limit 0.5 s", error=True)
    log.log("")
    log.log(STALE.format(age=0.7))
    assert node.logger.lines == [
        ("warning", STALE.format(age=0.6)),
        ("warning", "camera base is stale: 0.6 s old, limit 0.5 s"),
        ("error", "camera base is stale: 1.1 s old, limit 0.5 s"),
        ("warning", STALE.format(age=0.7)),
    ]


def test_levels_and_the_line_that_says_ready(node: Any) -> None:
    from pirl_ros.adapters.diagnostics import Diagnostics

    diagnostics = Diagnostics(node, "panda")
    diagnostics.publish("", {})
    diagnostics.publish(STALE.format(age=0.6), {}, ready="all")
    diagnostics.publish("", {}, ready="all")
    diagnostics.publish("", {}, ready="all")
    diagnostics.publish("", {})
    diagnostics.publish("", {}, ready="all")
    diagnostics.publish("emergency stop", {}, error=True)
    node.misfits.reasons.append("a publisher does not fit")
    diagnostics.publish("", {}, ready="all")
    node.misfits.reasons.clear()
    diagnostics.publish("", {}, ready="all again")
    statuses = [message.status[0] for message in node.published]
    assert [status.level for status in statuses] == [b"\x00", b"\x01", *[b"\x00"] * 4, b"\x02", b"\x01", b"\x00"]
    assert statuses[0].message == "running"
    assert statuses[1].message == STALE.format(age=0.6), "with its figures"
    assert node.logger.lines == [
        ("warning", STALE.format(age=0.6)),
        ("info", "ready: all"),
        ("error", "emergency stop"),
        ("warning", "a publisher does not fit"),
        ("info", "ready: all again"),
    ]


def levels(probe: Any, name: str) -> list[bytes]:
    statuses = [status for array in probe.seen["/diagnostics"] for status in array.status]
    return [status.level for status in statuses if status.name == f"{probe.namespace}/{name}"]


def test_ready_then_a_stop_then_a_lost_server(probe: Any, profile: Profile) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    from pirl_ros.adapters.interfaces import EmergencyStop

    probe.listen(DiagnosticArray, "/diagnostics")
    with serving(ScriptedServer(profile.contract)) as address:
        probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")
        policy, arm = probe.start("policy_node", server_address=address), probe.start("arm_node")
        newest = lambda node: levels(probe, node)[-1:]  # noqa: E731
        probe.until(lambda: newest("policy_node") == newest("arm_node") == [b"\x00"], "not ready")
        assert probe.call(EmergencyStop, "emergency_stop", source="me", reason="smoke").ok
        probe.until(lambda: newest("arm_node") == [b"\x02"], "a stop is no error")
        assert b"\x02" not in levels(probe, "policy_node")
    probe.until(lambda: newest("policy_node") == [b"\x02"], "a lost server is no error, without any episode")
    said = {}
    for name, process in (("policy_node", policy), ("arm_node", arm)):
        process.terminate()
        said[name] = output_of(process, 30)[0]
    [ready] = [line for line in said["policy_node"].splitlines() if "ready:" in line]
    controller = f"{profile.command.kind} on {profile.command.topic}"
    assert ready.endswith(f"ready: policy v1 at {address}, 5 streams, controller {controller}")
    assert "[ERROR]" in next(line for line in said["policy_node"].splitlines() if "is not reachable" in line)
    assert "[ERROR]" in next(line for line in said["arm_node"].splitlines() if "smoke" in line)


def test_a_missing_controller_is_named_until_one_takes_commands(probe: Any, ros: Any, profile: Profile) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from trajectory_msgs.msg import JointTrajectory

    from pirl_ros.adapters.discovery import missing_controller

    probe.listen(DiagnosticArray, "/diagnostics")
    probe.start("arm_node")
    words = f"no controller takes commands on {profile.command.topic}"
    probe.until(lambda: words in ros.warnings_of(probe, "arm_node"), "the missing controller is not named")
    assert words in missing_controller(probe.node, profile.command)
    probe.listen(JointTrajectory, profile.command.topic)
    probe.until(lambda: missing_controller(probe.node, profile.command) == "", "a controller is not seen")
    named = lambda: words in [s for a in probe.more("/diagnostics", 1) for s in a.status][-1].message  # noqa: E731
    probe.until(lambda: not named(), "still named")


def test_a_server_with_another_contract_is_named_in_short_with_what_to_do(
    probe: Any, ros: Any, profile: Profile
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    probe.listen(DiagnosticArray, "/diagnostics")
    joints = tuple(replace(joint, name=f"other_{joint.name}") for joint in profile.arm.joints)
    other = replace(profile, robot="other", rate_hz=10.0, arm=replace(profile.arm, joints=joints)).without_cameras()
    with serving(ScriptedServer(other.contract)) as address:
        probe.start("policy_node", server_address=address)
        probe.until(lambda: "contract differs" in ros.warnings_of(probe, "policy_node"), "not named")
        [said] = {text for text in ros.warnings_of(probe, "policy_node").split(" | ") if "contract differs" in text}
        for words in ("'panda_sim' here, 'other' there", "robot:=NAME", "alias:=NAME", "1 more"):
            assert words in said
        assert len(said) < 700
        assert levels(probe, "policy_node")[-1] == b"\x02"


def test_an_arm_of_another_version_does_not_end_the_policy_node(probe: Any, profile: Profile) -> None:
    """It names a control source that is not known here: said once, with the fix, and the node goes on."""
    from diagnostic_msgs.msg import DiagnosticArray

    from pirl_ros.adapters import qos
    from pirl_ros.adapters.interfaces import SafetyState

    probe.listen(DiagnosticArray, "/diagnostics")
    with serving(ScriptedServer(profile.contract)) as address:
        process = probe.start("policy_node", server_address=address)
        publisher = probe.publisher(SafetyState, "safety_state", qos.LATCHED)
        probe.until(lambda: publisher.get_subscription_count() > 0, "policy_node does not listen")
        for source in ("autopilot", "autopilot", "policy"):
            publisher.publish(SafetyState(control_source=source))
            probe.more("/diagnostics", 2)
        assert process.poll() is None
        process.terminate()
        text = output_of(process, 30)[0]
    assert text.count("names a control source 'autopilot'") == 1
    assert "run both nodes from the same version" in text
