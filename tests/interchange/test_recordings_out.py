"""Episodes as MCAP recordings: every number read back by other programs, and the episode back bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from mcap_ros2.reader import read_ros2_messages
from rosbags.highlevel import AnyReader

sys.path.append(str(Path(__file__).parents[1] / "server"))

from test_episode_store import make_episode

from pirl_contract import Alteration, Camera, Contract, ControlSource, Field, Observation
from pirl_ros.profile.profile import load_profile
from pirl_ros.sensing.sensor_messages import compressed_to_rgb, image_to_rgb
from pirl_server.config.interchange import ExportSettings, ImportSettings
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.interchange.bags import messages
from pirl_server.interchange.bags.image_messages import PACKED, PLAIN, PLANAR, rgb
from pirl_server.interchange.bags.mcap_exporter import camera_topics, write
from pirl_server.interchange.bags.message_types import PIRL_MESSAGES, definition, types
from pirl_server.interchange.bags.recording_importer import open_source
from pirl_server.interchange.bags.topic_map import read_map
from pirl_server.interchange.episodes.demonstration import Recording, demonstration

ROOT = Path(__file__).parents[2]
PERIOD_NS = 50_000_000


class _Quiet:
    cancelled = False

    def progress(self, done: int, total: int, message: str) -> None:
        """Nothing is shown."""


def played(number: int = 1, clock: bool = True) -> Episode:
    """Three calls, seven steps: altered ones, a person's, one without a chunk; two cameras, joints with velocities."""
    episode = make_episode()
    names = ("a.position", "a.velocity")
    contract = Contract(
        "arm", (Camera("wrist", 8, 8), Camera("top-left", 8, 8)), tuple(Field(name, "rad") for name in names),
        tuple(Field(name, "rad", -9.0, 9.0) for name in ("a.target", "gripper")), 20.0,
    )  # fmt: skip
    random = np.random.default_rng(number)
    call, index = np.array([0, 0, 0, 1, 1, -1, 2], np.int32), np.array([0, 1, 2, 0, 1, 0, 0], np.int32)
    times = 7 * PERIOD_NS + np.arange(1, 8, dtype=np.int64) * PERIOD_NS
    captured = np.array([7, 10, 13], np.int64) * PERIOD_NS
    images = {name: random.integers(256, size=(3, 8, 8, 3), dtype=np.uint8) for name in ("wrist", "top-left")}
    calls = replace(
        episode.calls, images=images, capture_time_ns=captured * clock, step=np.array([0, 3, 6], np.int32),
        policy_version=np.array([0, 1, 1], np.int32), seed=np.array([1, 2**63 + 1, 3], np.uint64),
        value=np.array([0.5, np.nan, 1.0], np.float32),
    )  # fmt: skip
    steps = replace(
        episode.steps, call=call, index=index, time_ns=times * clock, terminated=np.arange(7) == 6,
        alterations=np.array([0, 1, 32, 0, 0, 16, 0], np.uint32), source=np.array([0, 0, 0, 0, 1, 2, 0], np.uint8),
    )  # fmt: skip
    # an observation with the stamp of an outcome is of the state that the step led to
    calls = replace(calls, state=np.stack([calls.state[0], steps.state[2], steps.state[5]]))
    info = replace(
        episode.info,
        id=f"{number:032x}",
        contract=contract,
        policy_versions=("v1", "v2"),
        instruction="drück den Würfel",
    )
    last = {name: random.integers(256, size=(8, 8, 3), dtype=np.uint8) for name in images}
    final = Observation(last, steps.state[-1], info.instruction, info.robot_id, 15 * PERIOD_NS)
    return Episode(info, calls, steps, final)


def check_same(first: Episode, second: Episode) -> None:
    assert first.info == second.info
    for table, other in ((first.calls, second.calls), (first.steps, second.steps)):
        for name, values in vars(table).items():
            pairs = values if isinstance(values, Mapping) else {"": values}
            others = getattr(other, name) if isinstance(values, Mapping) else {"": getattr(other, name)}
            assert set(pairs) == set(others)
            for key, mine in pairs.items():
                assert np.asarray(mine).dtype == np.asarray(others[key]).dtype
                assert np.asarray(mine).tobytes() == np.asarray(others[key]).tobytes(), (name, key)
    assert (first.final is None) == (second.final is None)
    if first.final is not None and second.final is not None:
        np.testing.assert_array_equal(first.final.state, second.final.state)
        assert first.final.capture_time_ns == second.final.capture_time_ns
        for name, image in first.final.images.items():
            np.testing.assert_array_equal(image, second.final.images[name])


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Episode, Path]:
    episode = played()
    write([lambda: episode], tmp_path / "out", ExportSettings(), _Quiet())
    return episode, tmp_path / "out" / episode.info.id


def test_from_a_store_to_recordings_and_back_nothing_changes(tmp_path: Path) -> None:
    """Folders, one folder, and the file alone; with and without a clock, and without a final observation."""
    store = EpisodeStore(tmp_path / "store")
    made = [played(1), played(2, clock=False), replace(played(3), final=None)]
    made[2] = replace(made[2], info=replace(made[2].info, success=None, label_source=""))
    for each in made:
        store.write(each)
    lines = write(
        [lambda n=n: store.open(f"{n:032x}") for n in (1, 2, 3)], tmp_path / "out", ExportSettings(), _Quiet()
    )  # type: ignore[misc]
    assert any("1 episodes have no clock of their own" in line for line in lines)
    other = EpisodeStore(tmp_path / "other")
    for candidate in open_source(tmp_path / "out", ImportSettings(), None):
        other.write(candidate.read())
    for each in [store.open(each.info.id) for each in made]:
        check_same(each, other.open(each.info.id))
        folder = tmp_path / "out" / each.info.id
        for path in (folder, next(folder.glob("*.mcap"))):
            (candidate,) = open_source(path, ImportSettings(), None)
            check_same(each, candidate.read())


def test_readers_of_mcap_find_every_number(exported: tuple[Episode, Path]) -> None:
    episode, folder = exported
    (file,) = folder.glob("*.mcap")
    found: dict[str, list[Any]] = {}
    for each in read_ros2_messages(str(file)):
        found.setdefault(each.channel.topic, []).append(each)
    steps, calls = episode.steps, episode.calls
    executed = [each.ros_msg for each in found["/action/executed"]]
    assert [list(each.name) for each in executed] == [["a.target", "gripper"]] * 7
    np.testing.assert_array_equal([each.position for each in executed], steps.executed.astype(np.float64))
    commanded = np.array([each.ros_msg.position for each in found["/action/commanded"]])
    driven = steps.call >= 0
    np.testing.assert_array_equal(commanded, calls.chunk[steps.call[driven], steps.index[driven]])
    assert [each.log_time_ns for each in found["/step_outcomes"]] == steps.time_ns.tolist()
    outcomes = [each.ros_msg for each in found["/step_outcomes"]]
    np.testing.assert_array_equal([each.alterations for each in outcomes], steps.alterations)
    np.testing.assert_array_equal(np.array([each.reward for each in outcomes], np.float32), steps.reward)
    assert [each.chunk_id for each in outcomes] == ["call-0"] * 3 + ["call-1"] * 2 + ["", "call-2"]
    chunks = [each.ros_msg for each in found["/action_chunks"]]
    np.testing.assert_array_equal(np.array([each.actions for each in chunks], np.float32).reshape(3, 5, 2), calls.chunk)
    assert [(each.policy_version, each.seed) for each in chunks] == [("v1", 1), ("v2", 2**63 + 1), ("v2", 3)]
    for name, topic in (("wrist", "/camera/wrist/image"), ("top-left", "/camera/top_left/image")):
        pixels = [np.frombuffer(each.ros_msg.data, np.uint8).reshape(8, 8, 3) for each in found[topic]]
        np.testing.assert_array_equal(pixels, calls.images[name])
    joints = found["/joint_states"][0].ros_msg
    assert (list(joints.name), joints.position, joints.velocity) == (
        ["a"], [float(calls.state[0, 0])], [float(calls.state[0, 1])]
    )  # fmt: skip
    assert [each.ros_msg.data for each in found["/instruction"]] == ["drück den Würfel"]
    assert [each.ros_msg.data for each in found["/success"]] == [True]
    assert [(each.ros_msg.event, each.ros_msg.outcome) for each in found["/episode_events"]] == [
        (1, ""),
        (2, "success"),
    ]
    with file.open("rb") as stream:
        (described,) = make_reader(stream).iter_metadata()
    assert described.metadata["id"] == episode.info.id


def test_rosbag2_s_metadata_is_that_of_the_file(exported: tuple[Episode, Path]) -> None:
    _, folder = exported
    said = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    with AnyReader([folder]) as reader:
        counts = {each.topic: each.msgcount for each in reader.connections}
        types_of = {each.topic: each.msgtype for each in reader.connections}
        read = [(connection.topic, at) for connection, at, _ in reader.messages()]
    assert said["message_count"] == sum(counts.values()) == len(read)
    listed = {each["topic_metadata"]["name"]: each for each in said["topics_with_message_count"]}
    assert {name: each["message_count"] for name, each in listed.items()} == counts
    assert {name: each["topic_metadata"]["type"] for name, each in listed.items()} == types_of
    times = [at for _, at in read]
    assert times == sorted(times)
    assert said["starting_time"]["nanoseconds_since_epoch"] == min(times)
    assert said["duration"]["nanoseconds"] == max(times) - min(times)


def test_ros_itself_reads_the_messages(exported: tuple[Episode, Path]) -> None:
    """The middleware's own deserialisation and the built types, whose hashes are embedded."""
    serialization = pytest.importorskip(
        "rclpy.serialization", reason="rclpy is not importable: pip install 'pirl[ros]'"
    )
    pirl_msgs = pytest.importorskip("pirl_msgs.msg", reason="pirl_msgs is not built: docker/build_ros.sh")
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import Bool, String

    episode, folder = exported
    kinds = {kind.__name__: kind for kind in (Image, JointState, Bool, String)}
    kinds |= {name: getattr(pirl_msgs, name) for name in ("ActionChunk", "EpisodeEvent", "StepOutcome")}
    found: dict[str, list[Any]] = {}
    with AnyReader([folder]) as reader:
        for connection, _, raw in reader.messages():
            kind = kinds[connection.msgtype.rpartition("/")[2]]
            found.setdefault(connection.topic, []).append(serialization.deserialize_message(bytes(raw), kind))
        assert reader.connections
    np.testing.assert_array_equal([each.executed for each in found["/step_outcomes"]], episode.steps.executed)
    np.testing.assert_array_equal(found["/action_chunks"][1].actions, episode.calls.chunk[1].reshape(-1))
    assert found["/episode_events"][1].outcome == "success"
    pixels = np.frombuffer(found["/camera/wrist/image"][2].data, np.uint8).reshape(8, 8, 3)
    np.testing.assert_array_equal(pixels, episode.calls.images["wrist"][2])


def test_our_definitions_are_those_of_the_ros_package() -> None:
    """Field by field and constant by constant; the files have comments besides."""

    def fields(text: str) -> list[str]:
        return [" ".join(line.split("#")[0].split()) for line in text.splitlines() if line.split("#")[0].strip()]

    for name, text in PIRL_MESSAGES.items():
        path = ROOT / "msg" / "msg" / f"{name.rpartition('/')[2]}.msg"
        assert fields(text) == fields(path.read_text()), name
        assert "MSG: builtin_interfaces/Time" in definition(name) or "Time" not in text


def test_without_calls_the_topics_give_the_same_steps(exported: tuple[Episode, Path]) -> None:
    """Read as if another program had recorded it: chunks and steps are all there, chains are not."""
    episode, folder = exported
    (candidate,) = open_source(folder, ImportSettings(without_calls=True, robot_id="arm-1"), None)
    found = candidate.read()
    for name, values in vars(episode.steps).items():
        np.testing.assert_array_equal(values, getattr(found.steps, name), err_msg=name)
    for name in ("chunk", "state", "capture_time_ns", "seed", "step", "policy_version"):
        np.testing.assert_array_equal(getattr(episode.calls, name), getattr(found.calls, name), err_msg=name)
    for name, pixels in episode.calls.images.items():
        np.testing.assert_array_equal(pixels, found.calls.images[name])
    assert found.info.policy_versions == ("v1", "v2")
    assert (found.info.success, found.info.label_source, found.info.end_reason) == (True, "dataset", "success")
    assert (found.calls.sde_index == -1).all(), "no density is claimed"
    assert found.info.id != episode.info.id


def test_a_demonstration_comes_back_with_and_without_what_is_attached(tmp_path: Path) -> None:
    """No policy was asked: there are no chunks, and topics alone give the steps after the first."""
    random = np.random.default_rng(5)
    state, action = (random.normal(size=(rows, 2)).astype(np.float32) for rows in (6, 5))
    images = {name: random.integers(256, size=(6, 8, 8, 3), dtype=np.uint8) for name in ("wrist", "top-left")}
    times = PERIOD_NS * np.arange(1, 7, dtype=np.int64)
    recording = Recording(state, action, images, times, "wipe", True)
    episode = demonstration(recording, played().info.contract, "arm-1", ControlSource.HUMAN, "d" * 32)
    write([lambda: episode], tmp_path / "out", ExportSettings(), _Quiet())
    (candidate,) = open_source(tmp_path / "out", ImportSettings(), None)
    check_same(episode, candidate.read())
    (candidate,) = open_source(tmp_path / "out", ImportSettings(without_calls=True), None)
    found = candidate.read()
    np.testing.assert_array_equal(found.steps.executed, episode.steps.executed[1:])
    np.testing.assert_array_equal(found.steps.state, episode.steps.state[1:])
    np.testing.assert_array_equal(found.calls.state, episode.calls.state[1:])
    for name, pixels in episode.calls.images.items():
        np.testing.assert_array_equal(found.calls.images[name], pixels[1:])
    store = EpisodeStore(tmp_path / "again")
    store.write(found)
    np.testing.assert_array_equal(store.open(candidate.id).steps.executed, found.steps.executed)


def test_such_an_episode_can_be_stored(exported: tuple[Episode, Path], tmp_path: Path) -> None:
    (candidate,) = open_source(exported[1], ImportSettings(without_calls=True), None)
    store = EpisodeStore(tmp_path / "again")
    read = candidate.read()
    store.write(read)
    check_same(read, store.open(candidate.id))


def test_an_image_too_few_is_noticed(exported: tuple[Episode, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pirl_server.interchange.bags.recording_importer.camera_topics",
        lambda names: dict.fromkeys(camera_topics(names), "/camera/nowhere/image"),
    )
    (candidate,) = open_source(exported[1], ImportSettings(), None)
    with pytest.raises(ValueError, match="has 0 images, its episode 3 calls: it was changed"):
        candidate.read()


def test_camera_names_become_topics_that_ros_accepts() -> None:
    assert camera_topics(["a-b", "a.b", "c"]) == {
        "a-b": "/camera/a_b/image", "a.b": "/camera/a_b_1/image", "c": "/camera/c/image"
    }  # fmt: skip


TWO_ARMS = ("aloha",)
PROFILES = sorted({path.stem for path in (ROOT / "launch" / "params").glob("*.yaml")} - set(TWO_ARMS))


def test_a_profile_of_several_arms_needs_a_map() -> None:
    with pytest.raises(ValueError, match="several arms: give a map of topics"):
        read_map(ROOT / "launch" / "params" / "aloha.yaml")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_gives_the_contract_of_the_robot_side(name: str) -> None:
    path = ROOT / "launch" / "params" / f"{name}.yaml"
    found, profile = read_map(path), load_profile(path)
    assert found.contract == profile.contract
    assert found.contract.hash == profile.contract.hash
    assert found.topics.joint_states[0] == profile.joint_states
    assert found.topics.cameras == {camera.name: camera.topic for camera in profile.cameras}
    assert found.topics.max_age == profile.safety.max_observation_age


@pytest.mark.parametrize("name", TWO_ARMS)
def test_a_profile_of_several_arms_is_rejected_with_what_to_give(name: str) -> None:
    with pytest.raises(ValueError, match=r"several arms: give a map of topics, and the robot's contract"):
        read_map(ROOT / "launch" / "params" / f"{name}.yaml")


@pytest.mark.parametrize("action", ["joint_position", "joint_delta"])
def test_a_joint_that_slides_has_the_unit_of_the_robot_side(tmp_path: Path, action: str) -> None:
    raw = yaml.safe_load((ROOT / "launch" / "params" / "franka.yaml").read_text())
    raw |= {"action": action, "velocities": True}
    raw["kinematics"]["joints"][2]["type"] = "prismatic"
    path = tmp_path / "lift.yaml"
    path.write_text(yaml.safe_dump(raw))
    contract = read_map(path).contract
    assert contract == load_profile(path).contract
    assert contract is not None
    assert {"m", "m/s", "rad", "rad/s"} <= {field.unit for field in contract.state}


def raw_image(encoding: str, height: int = 6, width: int = 8) -> Any:
    random = np.random.default_rng(len(encoding))
    if encoding in PLAIN:
        size = PLAIN[encoding] * (2 if encoding.endswith("16") else 1)
        step, rows = width * size + 4, height
    else:
        step, rows = (width * 2, height) if encoding in PACKED else (width, height * 3 // 2)
    low, high = (0, 256) if encoding in PLAIN else (16, 236)
    data = random.integers(low, high, size=step * rows, dtype=np.uint8)
    return messages.make(
        "sensor_msgs/msg/Image", header=messages.header(0), height=height, width=width, encoding=encoding,
        is_bigendian=0, step=step, data=data,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", [*PLAIN, *PACKED, *PLANAR])
def test_pixels_are_those_that_the_robot_s_node_sees(encoding: str) -> None:
    """Against the conversion that makes the policy's images; YUV by OpenCV differs by rounding."""
    message = raw_image(encoding)
    if encoding.startswith("8UC"):
        named = raw_image({"8UC3": "bgr8", "8UC1": "mono8"}[encoding])
        named.data = message.data
        np.testing.assert_array_equal(rgb(message), rgb(named))
        return
    ours, theirs = rgb(message).astype(int), image_to_rgb(message).astype(int)
    assert np.abs(ours - theirs).max() <= (0 if encoding in PLAIN else 2)
    assert ours.std() > 10


def test_compressed_images_are_decoded_alike_and_damaged_ones_are_errors() -> None:
    import cv2

    smooth = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (1, 64, 3))
    for suffix in (".jpg", ".png"):
        data = cv2.imencode(suffix, smooth)[1].reshape(-1)
        message = messages.make(
            "sensor_msgs/msg/CompressedImage", header=messages.header(0), format=f"rgb8; {suffix[1:]}", data=data
        )
        np.testing.assert_array_equal(rgb(message), compressed_to_rgb(message))
    message.data = cv2.imencode(".jpg", smooth)[1].reshape(-1)[:200]
    with pytest.raises(ValueError, match="can't be decoded"):
        rgb(message)
    with pytest.raises(ValueError, match="debayer"):
        rgb(raw_image("rgb8").__class__(**{**vars(raw_image("rgb8")), "encoding": "bayer_rggb8"}))


def test_alterations_and_sources_keep_their_numbers() -> None:
    """The values of the messages' constants are those of the contract."""
    outcome = types().types["pirl_msgs/msg/StepOutcome"]
    said = [outcome.SOURCE_POLICY, outcome.SOURCE_HUMAN, outcome.SOURCE_HOLD]
    assert said == [int(each) for each in ControlSource]
    assert int(Alteration.DRY_RUN) < 2**32
