"""A policy acts on the very pixels that an episode stores, over gRPC: what is recomputed from storage has ratio 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_arm import SEEING, ToyEnv, save_toy, toy_policy

from pirl_contract import Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_contract.wire import image_codec
from pirl_contract.wire.codec import observation_to_proto
from pirl_server.algorithm import flow_sde
from pirl_server.algorithm.hybrid_sampler import step_of_chain, transition_log_prob
from pirl_server.app import build
from pirl_server.config.serve import ServeConfig
from pirl_server.episodes.image_codecs import decode_jpeg, encode_jpeg
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.serving import camera_codecs
from pirl_server.serving.camera_codecs import CameraCodecs
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Limits, Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

CALLS, CLOSE = 6, 1e-5


@contextmanager
def serving(store: EpisodeStore, policy: FlowPolicy, codec: str, limits: Limits) -> Iterator[str]:
    engine, recorder = Engine(queue_size=4), Recorder(store, limits)
    engine.swap(policy)
    camera = SEEING.cameras[0].name
    service = PolicyService(engine, recorder, explore=True, codecs=CameraCodecs.parse([f"{camera}={codec}"]))
    server, port = start_grpc(service, "127.0.0.1:0")
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
        engine.close()
        recorder.close()


def drive(address: str, encoding: Any) -> list[Observation]:
    """One episode of exploring calls; returns the observations that the robot sent."""
    env, sent = ToyEnv(sees=True), list[Observation]()
    client = PolicyClient(address, "toy", timeout_s=60.0, encoding=encoding)
    observation = env.reset(0)
    client.start_episode(env.contract, observation.instruction, {})
    for number in range(CALLS):
        chunk = client.infer(observation)
        sent.append(observation)
        outcome = StepOutcome(chunk.chunk_id, 0, chunk.actions[0], observation.state, time_ns=number + 1)
        observation = Observation(
            {name: np.roll(image, number + 1, axis=1) for name, image in observation.images.items()},
            observation.state, observation.instruction, "toy", number + 1,
        )  # fmt: skip
        client.report_outcomes([outcome])
    request = client._asking.end_episode("failure", "sim", "time_limit", False, ())
    request.final_observation.CopyFrom(observation_to_proto(sent[-1]))
    client._call("end_episode", request)
    client.close()
    return sent


def seen_by(policy: FlowPolicy, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, np.ndarray]]:
    """The images of every request that the policy is given."""
    seen, images = list[dict[str, np.ndarray]](), policy.images

    def noting(observations: Any) -> Any:
        seen.extend({name: image.copy() for name, image in each.images.items()} for each in observations)
        return images(observations)

    monkeypatch.setattr(policy, "images", noting)
    return seen


def worst_log_ratio(policy: FlowPolicy, episode: Episode) -> float:
    """Largest difference of a stored log-density from the one recomputed on the stored images and state."""
    calls, found = episode.calls, 0.0
    for c in range(len(calls.step)):
        images = {name: pixels[c] for name, pixels in calls.images.items()}
        observation = Observation(images, calls.state[c], episode.info.instruction, "toy")
        state, prefix = torch.from_numpy(policy.features(calls.state[c][None])), policy.prefix(observation)
        index = torch.tensor([calls.sde_index[c]])
        x, x_next = step_of_chain(torch.from_numpy(calls.chain[c])[None], index)
        with torch.no_grad():
            again = transition_log_prob(
                partial(velocity, policy, prefix, state), x, x_next, index, policy.card.denoise_steps,
                partial(flow_sde.transition, noise_level=float(calls.noise_level[c])),
            )[0]  # fmt: skip
        found = max(found, float(np.abs(again.numpy() - calls.log_prob[c]).max()))
    return found


def velocity(policy: FlowPolicy, prefix: Any, state: Any, x: Any, t: Any) -> Any:
    return policy.model.velocity(prefix, state, x, t)


@pytest.mark.parametrize("limits", [Limits(), Limits(memory_per_robot=2**14, free=0)], ids=["in memory", "in files"])
@pytest.mark.parametrize(("codec", "encoding"), [("raw", "rgb8"), ("jpeg", "rgb8"), ("jpeg:60", "jpeg")])
def test_what_is_stored_is_what_the_policy_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, encoding: str, limits: Limits
) -> None:
    store, policy = EpisodeStore(tmp_path / "store"), toy_policy(sees=True)
    with serving(store, policy, codec, limits) as address:
        seen = seen_by(policy, monkeypatch)
        sent = drive(address, encoding)
    episode = store.open(store.list()[0].id)
    camera = SEEING.cameras[0].name
    stored = episode.calls.images[camera]
    np.testing.assert_array_equal(stored, np.stack([each[camera] for each in seen]))
    raw = np.stack([each.images[camera] for each in sent])
    assert np.array_equal(stored, raw) is (codec == "raw"), "JPEG changes noise"
    assert worst_log_ratio(policy, episode) < CLOSE
    if encoding == "jpeg":  # the robot's own files, though the server would have written others
        images = store.open(episode.info.id, lazily=True).calls.images[camera]
        files = [image_codec.encode(each.images[camera], "jpeg") for each in sent]
        assert [images.files(c, c + 1) for c in range(CALLS)] == files  # type: ignore[attr-defined]
    assert episode.final is not None
    last = raw[-1] if codec == "raw" else decode_jpeg(encode_jpeg(raw[-1], int(codec[5:] or 95)), 16, 16)
    np.testing.assert_array_equal(episode.final.images[camera], last)


def test_encoding_after_the_policy_saw_them_gives_another_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control."""
    monkeypatch.setattr(camera_codecs, "decode_jpeg", lambda data, height, width: pixels[len(data), data])
    pixels: dict[tuple[int, bytes], np.ndarray] = {}

    def encode(image: np.ndarray, quality: int) -> bytes:
        data = encode_jpeg(image, quality)
        pixels[len(data), data] = image
        return data

    monkeypatch.setattr(camera_codecs, "encode_jpeg", encode)
    store, policy = EpisodeStore(tmp_path / "store"), toy_policy(sees=True)
    with serving(store, policy, "jpeg:50", Limits()) as address:
        drive(address, "rgb8")
    assert worst_log_ratio(policy, store.open(store.list()[0].id)) > 10 * CLOSE


def test_a_codec_is_checked_against_the_contract() -> None:
    CameraCodecs.parse([f"{SEEING.cameras[0].name}=jpeg"]).check(SEEING)
    with pytest.raises(ValueError, match="codec for camera 'rear', the policy's cameras are: "):
        CameraCodecs.parse(["rear=jpeg:80"]).check(SEEING)
    for text, why in (
        ("wrist", "is not CAMERA=CODEC"), ("wrist=png", "write raw, jpeg"), ("wrist=jpeg:0", "write raw, jpeg"),
        ("wrist=raw:5", "write raw, jpeg"), ("wrist=video", "can't act on video yet"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            CameraCodecs.parse([text])
    with pytest.raises(ValueError, match="two codecs"):
        CameraCodecs.parse(["wrist=jpeg", "wrist=raw"])


def test_the_server_says_at_its_start_that_a_codec_names_no_camera(tmp_path: Path) -> None:
    base, camera = save_toy(tmp_path / "base", sees=True), SEEING.cameras[0].name
    config = ServeConfig(checkpoint=base, root=tmp_path / "root", grpc_port=0)
    for codec, why in (("rear=jpeg", f"camera 'rear', the policy's cameras are: {camera}"), (f"{camera}=gif", "'gif'")):
        with pytest.raises(ValueError, match=f"^--image-codec: .*{why}"), build(replace(config, image_codec=(codec,))):
            pass
    with build(replace(config, image_codec=(f"{camera}=jpeg",))):
        pass


def test_a_jpeg_file_decodes_to_the_same_pixels_again() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    data = encode_jpeg(image, 95)
    np.testing.assert_array_equal(decode_jpeg(data, 48, 64), image_codec.decode(data, "jpeg", 48, 64))
    for damaged, size in ((data[:40], (48, 64)), (data, (64, 48)), (b"", (48, 64))):
        with pytest.raises(ValueError, match="is no image of"):
            decode_jpeg(damaged, *size)
