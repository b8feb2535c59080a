"""Images in shared memory, from the client's block to the service's copy: what is read, refused and left behind."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import Patience, completed, patient, until

from pirl_contract import Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import shared_memory
from pirl_contract.wire.shared_memory import FOLDER, PREFIX, SLOTS, SharedImages, host_id, read_shared

Observe = Callable[[int], Observation]
pytestmark = pytest.mark.skipif(not host_id(), reason="there is no /dev/shm here")


@pytest.fixture
def block() -> Iterator[SharedImages]:
    made = SharedImages()
    yield made
    made.close()


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Those made in this test that are still there; other processes have theirs."""
    names: list[str] = []
    make = shared_memory._Block.__init__

    def noting(self: Any, size: int) -> None:
        make(self, size)
        names.append(self.name)

    monkeypatch.setattr(shared_memory._Block, "__init__", noting)
    return lambda: [name for name in names if (FOLDER / name).exists()]


def image(value: int, height: int = 4, width: int = 5) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def read(picture: Any) -> np.ndarray:
    return read_shared(picture.header.shared, picture.header.height, picture.header.width)


def test_images_come_through_and_the_copy_is_our_own(block: SharedImages) -> None:
    images = {"a": image(1), "b": image(2, 3, 7)}
    placed = block.place(images)
    found = {name: read(picture) for name, picture in placed.items()}
    assert not any(picture.data for picture in placed.values())
    for _ in range(SLOTS):
        block.place({"a": image(9), "b": image(9, 3, 7)})
    for name, pixels in images.items():
        np.testing.assert_array_equal(found[name], pixels)


def test_a_slot_that_was_written_again_is_refused(block: SharedImages) -> None:
    """Not before: the requests in between are still to be had."""
    first = block.place({"a": image(1)})["a"]
    for value in range(2, SLOTS + 1):
        block.place({"a": image(value)})
    assert (read(first) == 1).all()
    block.place({"a": image(SLOTS + 1)})
    with pytest.raises(ValueError, match="overwritten"):
        read(first)


def test_no_torn_image_is_ever_read(block: SharedImages) -> None:
    """A writer that laps the reader without pause: every image that is not refused is of one value."""
    side, stop = 256, threading.Event()
    newest = [block.place({"a": image(0, side, side)})["a"]]

    def write() -> None:
        value = 0
        while not stop.is_set():
            value = (value + 1) % 256
            newest[0] = block.place({"a": image(value, side, side)})["a"]

    writer = threading.Thread(target=write)
    writer.start()
    whole = refused = 0
    patience = Patience(20)
    while (whole < 50 or refused < 5) and patience.left_s > 0:
        picture = newest[0]
        for _ in range(4):
            try:
                found = read(picture)
            except ValueError:
                refused += 1
                continue
            whole += 1
            assert (found == found[0, 0, 0]).all()
    stop.set()
    writer.join()
    assert whole
    assert refused, "the reader was never lapped: nothing was shown"


def test_names_places_and_files_that_are_not_ours_are_refused(block: SharedImages, tmp_path: Path) -> None:
    good = block.place({"a": image(1)})["a"].header.shared
    name, size = good.name, (FOLDER / good.name).stat().st_size

    def refused(height: int = 4, width: int = 5, **changes: Any) -> str:
        where = pb.SharedMemory(name=name, offset=good.offset, generation=good.generation)
        for key, value in changes.items():
            setattr(where, key, value)
        with pytest.raises(ValueError, match=r"shared memory|exceed|overwritten") as caught:
            read_shared(where, height, width)
        return str(caught.value)

    for bad in ("", "../etc/passwd", "/etc/passwd", PREFIX, PREFIX + "0" * 31, PREFIX + "0" * 32 + "/x", name + "\n"):
        assert "name" in refused(name=bad)
    assert "cannot be opened" in refused(name=PREFIX + "0" * 32)
    for offset in (0, 7, size, size - 10, 2**63, 2**64 - 1):
        refused(offset=offset)
    refused(height=4096, width=4096)
    assert "overwritten" in refused(generation=good.generation + 1)
    assert "overwritten" in refused(offset=good.offset + 1)
    link, secret = FOLDER / (PREFIX + "e" * 32), tmp_path / "secret"
    secret.write_bytes(b"x" * 1000)
    link.symlink_to(secret)
    try:
        assert "cannot be opened" in refused(name=link.name, offset=8)
    finally:
        link.unlink()
    pipe = FOLDER / (PREFIX + "d" * 32)
    os.mkfifo(pipe)
    try:
        refused(name=pipe.name, offset=8)
    finally:
        pipe.unlink()


def test_a_block_that_is_shortened_ends_in_a_refusal(block: SharedImages) -> None:
    """A reader that had mapped it would be killed."""
    placed = block.place({"a": image(1, 64, 64)})["a"]
    os.truncate(FOLDER / placed.header.shared.name, 128)
    with pytest.raises(ValueError, match="exceed"):
        read(placed)


def test_other_camera_sizes_make_a_new_block_and_the_old_one_goes(
    block: SharedImages, blocks: Callable[[], list[str]]
) -> None:
    first = block.place({"a": image(1)})["a"].header.shared.name
    assert blocks() == [first]
    second = block.place({"a": image(1, 8, 8)})["a"].header.shared.name
    assert blocks() == [second] != [first]
    block.close()
    block.close()
    assert blocks() == []


def test_a_crashed_client_leaves_no_block() -> None:
    code = """
import os, signal, numpy as np
from pirl_contract.wire.shared_memory import SharedImages
made = SharedImages()
print(made.place({"a": np.zeros((4, 4, 3), np.uint8)})["a"].header.shared.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = completed([sys.executable, "-c", code], limit_s=60)
    name = done.stdout.strip()
    assert name.startswith(PREFIX)
    until(lambda: not (FOLDER / name).exists(), "its block is left", limit_s=20)


def test_a_reader_s_end_takes_no_block_away(block: SharedImages) -> None:
    """Python's resource tracker would unlink what a process had opened with SharedMemory."""
    where = block.place({"a": image(7)})["a"].header.shared
    code = f"""
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.shared_memory import read_shared
where = pb.SharedMemory(name={where.name!r}, offset={where.offset}, generation={where.generation})
assert (read_shared(where, 4, 5) == 7).all()
"""
    done = completed([sys.executable, "-c", code], limit_s=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (FOLDER / where.name).exists()


@pytest.mark.parametrize("encoding", ["auto", "shared_memory", "rgb8", "png"])
def test_the_policy_sees_the_same_pixels_whichever_way(
    service: Any, observe: Observe, blocks: Callable[[], list[str]], encoding: Any
) -> None:
    client = PolicyClient(service.address, "arm-1", patient(20.0), encoding=encoding)
    info = client.info()
    episode_id = client.start_episode(info.contract, observe(0).instruction)
    chunk = client.infer(observe(3))
    assert len(blocks()) == (encoding in ("auto", "shared_memory"))
    client.report_outcomes([StepOutcome(chunk.chunk_id, 0, np.zeros(2, np.float32), np.zeros(3, np.float32))])
    client.end_episode("unlabeled", "", "operator")
    client.close()
    np.testing.assert_array_equal(service.store.open(episode_id).calls.images["wrist"][0], observe(3).images["wrist"])
    assert blocks() == []


def test_another_host_is_sent_the_pixels_themselves(
    service: Any, observe: Observe, blocks: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pirl_contract.wire.image_encoder.host_id", lambda: "another")
    client = service.connect()
    assert client.infer(observe(0)).chunk_id
    assert blocks() == []
    explicit = PolicyClient(service.address, "arm-2", patient(20.0), encoding="shared_memory")
    explicit.info()
    with pytest.raises(ValueError, match="unknown whether the server is on this host"):
        explicit.infer(observe(0))
    explicit.close()


def test_without_memory_left_the_pixels_travel(service: Any, observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    client = service.connect()
    monkeypatch.setattr(shared_memory.os, "pwrite", full)
    assert client.infer(observe(0)).chunk_id
