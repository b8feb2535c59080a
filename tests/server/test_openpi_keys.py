"""Which key is which: DROID's, ALOHA's and LIBERO's observations as a contract has them; refusals that name keys."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from pirl_contract import Camera, Contract, Field, Observation
from pirl_server.openpi_wire.msgpack_numpy import unpack
from pirl_server.openpi_wire.observation_keys import Keys

GOOD = {"observation/wrist": np.full((8, 6, 3), 7, np.uint8), "state": np.ones(3, np.float32), "prompt": "push"}
INSTRUCTION = "push the cube to the goal"


def two_cameras() -> Contract:
    """DROID's shape: two cameras, seven joints and a gripper."""
    state = (*(Field(f"q{i}", "rad") for i in range(7)), Field("gripper", "m"))
    return Contract("droid", (Camera("exterior", 20, 20), Camera("wrist", 20, 20)), state, (Field("dq", "rad"),), 15.0)


def read(
    message: Any, contract: Contract, keys: Keys | None = None, knows: tuple[str, ...] = (INSTRUCTION,)
) -> Observation:
    return (keys or Keys()).observation(message, contract, knows, "arm-1")


def _packed(value: Any) -> Any:
    """As openpi's client packs arrays."""
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def test_droids_names_are_declared_and_its_state_has_two_parts() -> None:
    exterior = np.full((20, 20, 3), 50, np.uint8)
    message = {
        "observation/exterior_image_1_left": exterior,
        "observation/exterior_image_2_left": exterior + 1,
        "observation/wrist_image_left": np.full((20, 20, 3), 0.2, np.float32),
        "observation/joint_position": np.arange(7.0),
        "observation/gripper_position": np.array(0.04),
        "prompt": "open the drawer",
    }
    keys = Keys.parse(["exterior=observation/exterior_image_1_left", "wrist=observation/wrist_image_left"])
    seen = read(message, two_cameras(), keys)
    np.testing.assert_array_equal(seen.images["exterior"], exterior)
    assert (seen.images["wrist"] == 51).all()
    np.testing.assert_allclose(seen.state, [*range(7), 0.04], rtol=1e-6)
    assert (seen.instruction, seen.robot_id) == ("open the drawer", "arm-1")


def test_alohas_nested_images_come_channels_first() -> None:
    contract = Contract("aloha", (Camera("cam_high", 8, 6),), (Field("q", "rad"),), (Field("dq", "rad"),), 50.0)
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    seen = read({"state": np.zeros(1), "images": {"cam_high": image.transpose(2, 0, 1)}}, contract)
    np.testing.assert_array_equal(seen.images["cam_high"], image)
    assert seen.instruction == INSTRUCTION  # the only one the policy knows


def test_liberos_wrist_is_found_and_its_base_declared() -> None:
    picture = np.full((20, 20, 3), 3, np.uint8)
    message = {"observation/image": picture, "observation/wrist_image": picture + 1, "observation/state": np.zeros(8)}
    with pytest.raises(ValueError, match="camera 'exterior' is missing"):
        read(message, two_cameras())
    seen = read(message, two_cameras(), Keys.parse(["exterior=observation/image"]))
    assert [int(seen.images[name].max()) for name in ("exterior", "wrist")] == [3, 4]


def test_a_declared_name_is_not_one_of_many(contract: Contract) -> None:
    keys = Keys.parse(["wrist=hand", "state=arm+grip", "prompt=task"])
    message = {"hand": GOOD["observation/wrist"], "arm": np.ones(2), "grip": 0.5, "task": "pull", "prompt": "push"}
    seen = read(message, contract, keys)
    assert seen.instruction == "pull"
    np.testing.assert_array_equal(seen.state, np.array([1, 1, 0.5], np.float32))
    with pytest.raises(ValueError, match="camera 'wrist' is missing: expected 'hand'; received keys"):
        read({"wrist": GOOD["observation/wrist"], "state": np.ones(3)}, contract, keys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation/wrist": None}, "camera 'wrist' is missing: expected 'observation/wrist' or 'wrist'"),
        ({"state": None}, "expected 'observation/state' or 'state' or 'observation/joint_position'"),
        ({"state": np.zeros(4)}, "'state' has 4 entries, the contract 3: q0, q1, grip"),
        ({"state": "up"}, "'state' must be a vector of numbers"),
        ({"observation/wrist": np.zeros((8, 6), np.uint8)}, "must be an image"),
        ({"observation/wrist": np.full((8, 6, 3), 9.0)}, "outside \\[0, 1\\]"),
        ({"observation/wrist": np.full((8, 6, 3), np.nan)}, "outside \\[0, 1\\]"),
        ({"observation/wrist": np.zeros((8, 6, 3), np.int32)}, "must be uint8, or float"),
        ({"observation/wrist": np.zeros((0, 6, 3), np.uint8)}, "0 pixels"),
        ({"state": [[1.0, 2.0], [3.0]]}, "'state' must be a vector of numbers, got list"),
        ({"state": np.zeros((3, 1))}, r"'state' must be a vector of numbers, got float64 \[3, 1\]"),
        ({"state": [True, False, True]}, "'state' must be a vector of numbers, got bool"),
        ({"state": np.array(["1", "2", "3"])}, "'state' must be a vector of numbers"),
        ({"state": np.array([1.0, np.nan, 0.0])}, "state: entry 1 is not finite: nan"),
        ({"state": [0.0, 0.0, float("-inf")]}, "state: entry 2 is not finite: -inf"),
        ({"state": np.array([1e39, 0.0, 0.0])}, "state: entry 0 is not finite: inf"),
        ({"observation/wrist": np.zeros((8, 6, 3), bool)}, "must be uint8, or float"),
        ({"observation/wrist": np.zeros((8, 6, 4), np.uint8)}, "must be an image"),
        ({"observation/wrist": np.full((8, 6, 3), -0.5)}, "outside \\[0, 1\\]"),
        ({"prompt": 3}, "'prompt' must be text"),
        ({"prompt": ["push", "pull"]}, "'prompt' must be text, or an array or list of one"),
        ({"prompt": np.array(["push", "pull"])}, "'prompt' must be text, or an array or list of one"),
        ({"prompt": b"\xff\xfe"}, "'prompt' must be text"),
        ({"prompt": np.zeros(1)}, "'prompt' must be text"),
        ({"prompt": "é" * 2049}, "instruction: 4098 bytes, at most 4096"),
        ({"prompt": "\ud800"}, "half of a surrogate pair"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(contract: Contract, change: dict[str, Any], words: str) -> None:
    changed = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(ValueError, match=words):
        read(changed, contract)
    assert read(GOOD, contract).instruction == "push"


@pytest.mark.parametrize("message", [3, [GOOD], {7: 1}])
def test_what_is_no_map_of_text_is_refused(contract: Contract, message: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a map|keys must be text"):
        read(message, contract)


@pytest.mark.parametrize(
    "prompt",
    [np.array("pull"), np.array(["pull"]), np.array(b"pull"), np.str_("pull"), b"pull", ["pull"], [b"pull"]],
    ids=lambda prompt: f"{type(prompt).__name__}{np.shape(prompt)}",
)
def test_a_prompt_is_read_as_openpis_server_reads_it(contract: Contract, prompt: Any) -> None:
    """It takes the one item of whatever is no text."""
    assert read(GOOD | {"prompt": prompt}, contract).instruction == "pull"
    assert read(unpack(msgpack.packb(GOOD | {"prompt": prompt}, default=_packed)), contract).instruction == "pull"


@pytest.mark.parametrize("prompt", ["", "  \n", np.array("")])
def test_a_blank_prompt_is_none(contract: Contract, prompt: Any) -> None:
    assert read(GOOD | {"prompt": prompt}, contract).instruction == INSTRUCTION
    with pytest.raises(ValueError, match=r"'prompt' is missing.*--default-instruction TEXT"):
        read(GOOD | {"prompt": prompt}, contract, knows=())


@pytest.mark.parametrize("knows", [(), ("push", "pull")])
def test_without_a_prompt_the_policy_must_know_exactly_one(contract: Contract, knows: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="'prompt' is missing"):
        read({key: value for key, value in GOOD.items() if key != "prompt"}, contract, knows=knows)


@pytest.mark.parametrize(
    ("words", "fault"),
    [(["wrist"], "must be NAME=KEY"), (["wrist=a", "wrist=b"], "given twice"), (["elbow=a"], "'elbow' is not in")],
)
def test_wrong_declarations_are_refused(contract: Contract, words: list[str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Keys.parse(words).check(contract)
