"""A scene in a process of its own: what it says is the scene's to the bit, and it ends with its user."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from patience import until
from toy_scene import ToyScene

from pirl_sim.scene_frames import receive, send
from pirl_sim.scene_process import SceneProcess

HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}


def started(make: str = "toy_scene:ToyScene", **settings: Any) -> SceneProcess:
    return SceneProcess(Path(sys.executable), make, settings, HERE)


@pytest.fixture
def scene() -> Iterator[SceneProcess]:
    with closing(started(size=5)) as made:
        yield made


def test_it_is_the_scene_to_the_bit(scene: SceneProcess) -> None:
    """The process has this checkout's packages although its path does not lead there, and prints what it likes."""
    own, random = ToyScene(5), np.random.default_rng(0)
    for episode, seed in ((3, 5), (0, 2**40)):
        own.reset(episode, seed)
        scene.reset(episode, seed)
        for _ in range(5):
            action = random.normal(size=3).astype(np.float32)
            assert scene.step(action) is own.step(action)
            np.testing.assert_array_equal(scene.state(), own.state(), strict=True)
    images = scene.images()
    assert list(images) == ["base", "wrist"]
    for name, image in own.images().items():
        np.testing.assert_array_equal(images[name], image, strict=True)


def test_a_state_is_the_callers(scene: SceneProcess) -> None:
    scene.reset(1, 2)
    scene.state()[:] = 9
    assert scene.state().tolist() != [9, 9, 9]


def test_what_fails_there_is_said_here_and_the_process_goes_on(scene: SceneProcess) -> None:
    with pytest.raises(RuntimeError, match=r"^no such state$"):
        scene.reset(-1, 0)
    scene.reset(1, 0)
    assert scene.state()[0] == 1
    with pytest.raises(RuntimeError, match=r"^ValueError: no scene of 4$"):
        started(size=4, broken=True)
    with pytest.raises(RuntimeError, match="No module named 'no_such_module'"):
        started("no_such_module:Scene")


def test_a_process_that_ends_is_said_in_words(scene: SceneProcess) -> None:
    scene.reset(0, 0)
    with pytest.raises(RuntimeError, match=r"ended at 'step' \(exit code (7|None)\)"):
        scene.step(np.float32([99, 0, 0]))
    with pytest.raises(RuntimeError, match="ended at 'reset'"):
        scene.reset(0, 0)


def test_it_ends_with_its_user() -> None:
    """A killed one too; closing twice is nothing new."""
    scene = started("toy_scene:pid_of_its_process", size=1)
    scene.reset(0, 0)
    pid = int(scene.state()[0])
    assert alive(pid)
    scene.close()
    scene.close()
    assert not alive(pid)
    code = (
        "import sys, time; from pathlib import Path; from pirl_sim.scene_process import SceneProcess\n"
        "scene = SceneProcess(Path(sys.executable), 'toy_scene:pid_of_its_process', {'size': 1}); scene.reset(0, 0)\n"
        "print(int(scene.state()[0]), flush=True); time.sleep(600)"
    )
    environment = HERE | {"PYTHONPATH": os.pathsep.join([HERE["PYTHONPATH"], *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as user:
        assert user.stdout is not None
        pid = int(user.stdout.readline())
        assert alive(pid)
        user.send_signal(signal.SIGKILL)
    until(lambda: not alive(pid))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@given(
    st.dictionaries(
        st.text(max_size=5),
        arrays_of.arrays(
            st.sampled_from([np.float32, np.float64, np.uint8, np.int64, np.bool_]),
            arrays_of.array_shapes(min_dims=0, min_side=0, max_side=4),
        ),
        max_size=4,
    ),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3),
)
def test_a_message_comes_back_as_it_was(arrays: dict[str, Any], header: dict[str, Any]) -> None:
    pipe = io.BytesIO()
    send(pipe, header, arrays)
    pipe.seek(0)
    message = receive(pipe)
    assert message is not None
    assert message[0] == header
    assert list(message[1]) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(message[1][name], array, strict=True)
    assert receive(pipe) is None, "nothing follows"
