"""Recordings of rosbag2 become episodes: values against what was sent, damage and gaps said, nothing made up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from recorded_arm import BEGIN, CONTRACT, FINGER, JOINTS, MAP, MS, SKEW, Arm, add_joints, recorded, save
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from pirl_contract import ControlSource, Field
from pirl_server.config.interchange import ImportSettings
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.interchange.bags import messages
from pirl_server.interchange.bags.message_types import PIRL_MESSAGES
from pirl_server.interchange.bags.recording_importer import open_source
from pirl_server.interchange.bags.segments import Segment, outcomes_of
from pirl_server.interchange.bags.topic_map import find_topic, parse_map
from pirl_server.interchange.episodes.commands import import_command

PERIOD = 50


def settings(folder: Path, extra: str = "", **more: Any) -> ImportSettings:
    path = folder / "topics.yaml"
    path.write_text(MAP + extra)
    return ImportSettings(topics=str(path), **more)


def imported(path: Path, folder: Path, extra: str = "", **more: Any) -> list[Episode]:
    return [each.read() for each in open_source(path, settings(folder, extra, **more), CONTRACT)]


def newest_ms(sent_ms: list[int], now_ms: float) -> int:
    return max(ms for ms in sent_ms if ms <= now_ms)


@pytest.mark.parametrize("mcap", [True, False], ids=["mcap", "sqlite"])
def test_each_value_is_the_newest_that_was_sent_before(tmp_path: Path, mcap: bool) -> None:
    """By a loop over what was sent. Log times are of another clock, and images were logged late."""
    arm = recorded()
    path = save(arm, tmp_path / "bag", mcap)
    (episode,) = imported(path, tmp_path)
    calls, steps = episode.calls, episode.steps
    begin_ms = 5  # the finger's first state is the last stream to begin
    assert calls.capture_time_ns[0] == BEGIN + begin_ms * MS
    count = len(calls.step)
    assert count == int((1990 - begin_ms) // PERIOD)
    for row in range(count):
        now = begin_ms + row * PERIOD
        sent = {name: list(range(0, 2000, 10)) for name in JOINTS} | {FINGER: list(range(5, 2000, 40))}
        expected = [arm.position(name, newest_ms(sent[name], now)) for name in (*JOINTS, FINGER)]
        np.testing.assert_array_equal(calls.state[row], np.array(expected, np.float32))
        image_ms = newest_ms(list(range(2, 2000, 33)), now)
        np.testing.assert_array_equal(calls.images["base"][row], arm.pixels(image_ms))
        # commands have no stamp: they count from the joint state that was logged last before them, 3 ms earlier
        command_ms = newest_ms(list(range(3, 2000, 20)), now + PERIOD + 3)
        targets = [arm.target(name, command_ms) for name in JOINTS]
        grip = 2 * arm.level(command_ms) / 0.04 - 1
        np.testing.assert_allclose(steps.executed[row], np.array([*targets, grip], np.float32), rtol=1e-6)
    assert (episode.info.instruction, episode.info.success) == ("push", None)
    assert set(steps.source.tolist()) == {int(ControlSource.HUMAN)}
    assert episode.final is not None


@pytest.mark.parametrize("commands", ["JointTrajectory", "JointState"])
def test_named_commands_and_compressed_images_give_the_same_episode(tmp_path: Path, commands: str) -> None:
    (plain,) = imported(save(recorded(), tmp_path / "plain"), tmp_path)
    (other,) = imported(save(recorded(compressed=True, commands=commands), tmp_path / "other"), tmp_path)
    np.testing.assert_array_equal(plain.steps.executed, other.steps.executed)
    np.testing.assert_array_equal(plain.calls.images["base"], other.calls.images["base"])
    assert plain.info.id == other.info.id, "the numbers are the same"


def test_a_displacement_counts_from_the_joint_s_position_at_the_observation(tmp_path: Path) -> None:
    moves = (*(Field(f"{name}.delta", "rad", -3.0, 3.0) for name in JOINTS), CONTRACT.action[-1])
    path, contract = save(recorded(), tmp_path / "bag"), replace(CONTRACT, action=moves)
    (targets,) = imported(path, tmp_path)
    (deltas,) = [each.read() for each in open_source(path, settings(tmp_path), contract)]
    expected = targets.steps.executed[:, :2].astype(float) - targets.calls.state[:, :2]
    np.testing.assert_allclose(deltas.steps.executed[:, :2], expected, atol=1e-6)


def test_by_log_time_the_clock_is_the_recorders(tmp_path: Path) -> None:
    arm = recorded()
    (episode,) = imported(save(arm, tmp_path / "bag"), tmp_path, "time: log\n")
    assert episode.calls.capture_time_ns[0] == BEGIN + SKEW + 22 * MS, "the first image was logged 20 ms late"
    np.testing.assert_array_equal(episode.calls.images["base"][0], arm.pixels(2))


def test_a_recording_that_was_cut_is_read_up_to_the_cut(tmp_path: Path) -> None:
    """A power cut leaves neither indexes nor metadata.yaml."""
    path = save(recorded(seconds=20.0), tmp_path / "bag")
    (whole,) = imported(path, tmp_path)
    (path / "metadata.yaml").unlink()
    (file,) = path.glob("*.mcap")
    content = unchunked(file)
    file.write_bytes(content[: int(0.6 * len(content))])
    source = open_source(path, settings(tmp_path), CONTRACT)
    (episode,) = [each.read() for each in source]
    assert any("is cut short:" in line and "messages before the cut are read" in line for line in source.lines)
    assert any("has no metadata.yaml" in line for line in source.lines)
    share = len(episode.steps.reward) / len(whole.steps.reward)
    assert 0.5 < share < 0.7
    count = len(episode.steps.reward)
    np.testing.assert_array_equal(episode.calls.state, whole.calls.state[:count])
    np.testing.assert_array_equal(episode.steps.executed, whole.steps.executed[:count])


def test_every_place_of_a_cut_gives_a_part_or_an_error(tmp_path: Path) -> None:
    path = save(recorded(seconds=1.0), tmp_path / "bag")
    (file,) = path.glob("*.mcap")
    content, whole = unchunked(file), len(imported(path, tmp_path)[0].steps.reward)
    lengths = []
    for share in np.linspace(0.01, 0.99, 14):
        file.write_bytes(content[: int(share * len(content))])
        try:
            lengths.append(len(imported(file, tmp_path)[0].steps.reward))
        except ValueError:
            lengths.append(0)
    assert lengths == sorted(lengths)
    assert lengths[0] == 0
    assert whole - 3 <= lengths[-1] <= whole


def unchunked(file: Path, reverse: bool = False) -> bytes:
    """The same messages without chunks, as a recorder with small memory writes them."""
    copy = file.with_suffix(".copy")
    with file.open("rb") as stream, copy.open("wb") as out:
        writer = Writer(out, use_chunking=False, compression=CompressionType.NONE)
        writer.start(profile="ros2")
        schemas, channels = {}, {}
        found = list(make_reader(stream).iter_messages())
        for schema, channel, message in found[::-1] if reverse else found:
            if schema.id not in schemas:
                schemas[schema.id] = writer.register_schema(schema.name, schema.encoding, schema.data)
            if channel.id not in channels:
                channels[channel.id] = writer.register_channel(channel.topic, "cdr", schemas[schema.id])
            writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        writer.finish()
    content = copy.read_bytes()
    copy.unlink()
    return content


def chunked(file: Path, size: int) -> bytes:
    """The same messages in compressed chunks of this size, as rosbag2 writes them."""
    copy = file.with_suffix(".copy")
    with file.open("rb") as stream, copy.open("wb") as out:
        writer = Writer(out, chunk_size=size)
        writer.start(profile="ros2")
        channels = {}
        for schema, channel, message in make_reader(stream).iter_messages():
            if channel.id not in channels:
                known = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, "cdr", known)
            writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        writer.finish()
    content = copy.read_bytes()
    copy.unlink()
    return content


def test_of_a_cut_in_compressed_chunks_whole_chunks_are_read(tmp_path: Path) -> None:
    path = save(recorded(), tmp_path / "bag")
    (whole,) = imported(path, tmp_path)
    (file,) = path.glob("*.mcap")
    content = chunked(file, 8192)
    file.write_bytes(content[: len(content) // 2])
    source = open_source(file, settings(tmp_path), CONTRACT)
    (episode,) = [each.read() for each in source]
    assert any("is cut short" in line for line in source.lines)
    count = len(episode.steps.reward)
    assert 5 < count < len(whole.steps.reward)
    np.testing.assert_array_equal(episode.steps.executed, whole.steps.executed[:count])


def test_definitions_in_idl_are_read(tmp_path: Path) -> None:
    """Some recorders embed IDL, which not every reader of MCAP knows."""
    path = save(recorded(spoken=""), tmp_path / "bag")
    (file,) = path.glob("*.mcap")
    idl = (
        "=" * 80 + "\nIDL: std_msgs/msg/String\nmodule std_msgs { module msg { struct String { string data; }; }; };\n"
    )
    copy = tmp_path / "idl.mcap"
    with file.open("rb") as stream, copy.open("wb") as out:
        writer = Writer(out)
        writer.start(profile="ros2")
        channels = {}
        for schema, channel, message in make_reader(stream).iter_messages():
            if channel.id not in channels:
                known = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, "cdr", known)
            writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        spoken = writer.register_channel(
            "/instruction", "cdr", writer.register_schema("std_msgs/msg/String", "ros2idl", idl.encode())
        )
        said = messages.serialised("std_msgs/msg/String", messages.make("std_msgs/msg/String", data="in IDL"))
        writer.add_message(spoken, BEGIN + SKEW, said, BEGIN + SKEW)
        writer.finish()
    (episode,) = imported(copy, tmp_path)
    assert episode.info.instruction == "in IDL"


def test_messages_out_of_order_without_chunks_are_sorted(tmp_path: Path) -> None:
    path = save(recorded(), tmp_path / "bag")
    (before,) = imported(path, tmp_path)
    (file,) = path.glob("*.mcap")
    file.write_bytes(unchunked(file, reverse=True))
    with pytest.raises(Exception, match="order"), AnyReader([path]) as reader:
        list(reader.messages())
    source = open_source(file, settings(tmp_path), CONTRACT)
    (after,) = [each.read() for each in source]
    assert any("out of order: they were sorted" in line for line in source.lines)
    np.testing.assert_array_equal(before.steps.executed, after.steps.executed)
    np.testing.assert_array_equal(before.calls.images["base"], after.calls.images["base"])


def test_a_damaged_database_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    path = save(recorded(), tmp_path / "bag", mcap=False)
    (file,) = path.glob("*.db3")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"is damaged .* recover it with `sqlite3"):
        imported(path, tmp_path)


def test_a_joint_that_is_missing_is_never_zero(tmp_path: Path) -> None:
    arm = recorded()
    arm.sent = [each for each in arm.sent if each[1] != "sensor_msgs/msg/JointState"]
    for ms in range(0, 2000, 10):
        add_joints(arm, ms, ("shoulder", FINGER))
    with pytest.raises(ValueError, match=r"state 'elbow.position' is in no recorded topic"):
        imported(save(arm, tmp_path / "bag"), tmp_path)
    short = messages.joint_state(["shoulder", "elbow"], np.zeros(1), np.zeros(0), BEGIN)
    arm.put("/joint_states", "sensor_msgs/msg/JointState", 0, short)
    with pytest.raises(ValueError, match="it has 1 positions and 0 velocities for 2 joints"):
        imported(save(arm, tmp_path / "other"), tmp_path)


def test_a_message_without_a_field_can_not_be_made() -> None:
    """Other writers store 0 for what is left out."""
    with pytest.raises(TypeError, match="is_bigendian"):
        messages.make("sensor_msgs/msg/Image", header=messages.header(0), height=1, width=1, encoding="rgb8", step=3,
                      data=np.zeros(3, np.uint8))  # fmt: skip


def silent_camera(arm: Arm, first_ms: int, last_ms: int) -> Arm:
    at = [(each[2] - BEGIN - SKEW) / MS - 20 for each in arm.sent]
    arm.sent = [each for each, ms in zip(arm.sent, at) if "camera" not in each[0] or not first_ms <= ms <= last_ms]
    return arm


def test_a_stale_stream_is_an_error_or_a_gap(tmp_path: Path) -> None:
    path = save(silent_camera(recorded(seconds=4.0), 1500, 2500), tmp_path / "bag")
    with pytest.raises(ValueError, match=r"'camera base' is 0.2\d+ s old 1.\d+ s after its begin, 0.2 s are allowed"):
        imported(path, tmp_path)
    first, second = imported(path, tmp_path, "stale: gap\n")
    assert first.info.id != second.info.id
    ends_ms = (first.steps.time_ns[-1] - BEGIN) / MS
    begins_ms = (second.calls.capture_time_ns[0] - BEGIN) / MS
    assert 1600 < ends_ms <= 1700, "200 ms after the last image"
    assert 2500 <= begins_ms < 2600


@pytest.mark.parametrize("mcap", [True, False], ids=["mcap", "sqlite"])
def test_events_cut_a_recording_into_labelled_episodes(tmp_path: Path, mcap: bool) -> None:
    arm = recorded(seconds=5.0, spoken="")
    for number, (begin, end, outcome) in enumerate(
        [(500, 1500, "success"), (2000, 2500, "discard"), (3000, 4000, "failure")]
    ):
        arm.event(1, begin, f"{number:032x}", f"push {number}")
        arm.event(2, end, f"{number:032x}", "", outcome)
    arm.event(3, 4500, f"{2:032x}", "", "success")  # relabelled
    arm.event(1, 4600, f"{3:032x}", "push 3")  # and the recording ends
    source = open_source(save(arm, tmp_path / "bag", mcap), settings(tmp_path), CONTRACT)
    found = [each.read() for each in source]
    assert [each.info.instruction for each in found] == ["push 0", "push 2", "push 3"]
    assert [each.info.success for each in found] == [True, True, None]
    assert [each.info.label_source for each in found] == ["dataset", "dataset", ""]
    assert found[0].calls.capture_time_ns[0] == BEGIN + 500 * MS
    assert found[0].steps.time_ns[-1] == BEGIN + 1500 * MS
    assert sum("discarded by its operator" in line for line in source.lines) == 1
    assert sum("its end was not recorded" in line for line in source.lines) == 1


def before_headers() -> Typestore:
    """The types of a robot whose pirl_msgs had no header in its events yet."""
    store, event = get_typestore(Stores.ROS2_JAZZY), "pirl_msgs/msg/EpisodeEvent"
    store.register(get_types_from_msg(PIRL_MESSAGES[event].replace("std_msgs/Header header\n", ""), event))
    return store


@pytest.mark.parametrize("mcap", [True, False], ids=["mcap", "sqlite"])
def test_messages_of_another_version_are_read_by_the_definitions_that_are_recorded(tmp_path: Path, mcap: bool) -> None:
    arm = recorded(seconds=2.0, spoken="")
    arm.event(1, 500, f"{1:032x}", "push")
    arm.event(2, 1500, f"{1:032x}", "", "success")
    path = save(arm, tmp_path / "bag", mcap, store=before_headers())
    (episode,) = imported(path, tmp_path)
    assert (episode.info.success, episode.calls.capture_time_ns[0]) == (True, BEGIN + 500 * MS)
    if mcap:
        return
    (file,) = path.glob("*.db3")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM message_definitions")  # as rosbag2 of Humble
    with pytest.raises(ValueError, match=r"/episode_events is no pirl_msgs/msg/EpisodeEvent as it is defined here"):
        imported(path, tmp_path)


def test_a_flag_and_texts_say_when_and_who(tmp_path: Path) -> None:
    arm = recorded(seconds=4.0)
    for ms, on in ((400, True), (1900, False), (2200, True), (3000, False)):
        arm.flag("/recording", ms, on)
    arm.text("/control_source", 0, "policy")
    arm.text("/control_source", 1000, "human")
    arm.flag("/success", 1800, True)
    first, second = imported(save(arm, tmp_path / "bag"), tmp_path, "episodes: recording\n")
    assert (first.info.success, second.info.success) == (True, None)
    human = first.steps.source == int(ControlSource.HUMAN)
    assert human.tolist() == ((first.calls.capture_time_ns - BEGIN) / MS >= 1000).tolist()
    arm.text("/control_source", 1200, "ghost")
    with pytest.raises(ValueError, match="control source 'ghost' is not known"):
        imported(save(arm, tmp_path / "other"), tmp_path, "episodes: recording\n")


def test_what_is_not_said_or_of_another_kind_is_an_error(tmp_path: Path) -> None:
    path = save(recorded(spoken=""), tmp_path / "bag")
    with pytest.raises(ValueError, match="no instruction was recorded: give it with --instruction"):
        imported(path, tmp_path)
    (episode,) = imported(path, tmp_path, instruction="wipe", success="all", robot_id="arm-7", driver="policy")
    assert (episode.info.instruction, episode.info.success, episode.info.robot_id) == ("wipe", True, "arm-7")
    with pytest.raises(ValueError, match="topic 'elsewhere' was not recorded: there are /arm/commands"):
        imported(path, tmp_path, instruction="wipe", camera=("elsewhere=base",))
    with pytest.raises(
        ValueError, match=r"topic '/joint_states' is of sensor_msgs/msg/JointState: sensor_msgs/msg/Image"
    ):
        imported(path, tmp_path, instruction="wipe", camera=("joint_states=base",))
    with pytest.raises(ValueError, match="says nothing of the robot: give its profile"):
        open_source(path, ImportSettings(), CONTRACT)
    with pytest.raises(ValueError, match="give it with --contract FILE"):
        open_source(path, settings(tmp_path), None)
    with pytest.raises(ValueError, match="max_age: Input should be greater than 0"):
        parse_map({"joint_states": ["joint_states"], "max_age": 0.0})


def test_a_topic_is_found_with_or_without_its_namespace() -> None:
    topics = {"/left/joint_states": "x", "/right/joint_states": "x", "/left/wrist/image": "y"}
    assert find_topic("joint_states", topics, "left") == "/left/joint_states"
    assert find_topic("wrist/image", topics, "") == "/left/wrist/image"
    assert find_topic("image_raw", topics, "") is None
    with pytest.raises(ValueError, match="may be /left/joint_states or /right/joint_states"):
        find_topic("joint_states", topics, "")


def test_the_command_imports_each_episode_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(recorded(), tmp_path / "bag")
    settings(tmp_path)
    (tmp_path / "contract.json").write_text(CONTRACT.to_json())
    command = [str(path), "--root", str(tmp_path / "root"), "--topics", str(tmp_path / "topics.yaml")]
    command += ["--contract", str(tmp_path / "contract.json")]
    assert import_command(command) == 0
    assert "1 episodes imported, 0 were there already" in capsys.readouterr().out
    assert import_command(command) == 0
    assert "0 episodes imported, 1 were there already" in capsys.readouterr().out
    (summary,) = EpisodeStore(tmp_path / "root" / "episodes").list()
    assert EpisodeStore(tmp_path / "root" / "episodes").open(summary.id).info.instruction == "push"


def test_the_last_step_may_be_logged_after_the_end_of_its_episode() -> None:
    """It and the end are reported in the same instant; the next episode's steps are not taken."""
    outcomes = [SimpleNamespace(log_ns=log, message=log) for log in (3, 10, 30, 31, 40, 45)]
    streams: Any = SimpleNamespace(texts={"outcomes": outcomes})
    segment = Segment(begin_ns=5, end_ns=30, log_begin_ns=5, log_end_ns=30, name="an episode", next_ns=40)
    assert outcomes_of(streams, segment) == [10, 30, 31]
    assert outcomes_of(streams, replace(segment, next_ns=0)) == [10, 30], "cut by a flag: what follows is of none"
