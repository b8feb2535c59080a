"""Images, videos and plots of an episode over REST, against what the store and independent decoders read."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from patience import until
from PIL import Image
from test_episode_store import make_episode
from whole_server import Server, problem

from pirl_contract import ControlSource
from pirl_server.api import videos
from pirl_server.episodes.image_codecs import EncodedImages, ImageCodec, encode_jpeg
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.inspection.timeline import timeline
from pirl_server.process_reaper import reaped

CALLS, STEPS = 4, 11
SOURCES = [0, 0, 0, 1, 1, 1, 1, 0, 0, 2, 0]


def recorded(clock: bool, encoded: bool) -> Episode:
    """Smooth images, one brightness per call; a person drives in the middle."""
    made = make_episode(CALLS, STEPS, 32)
    images = np.stack([np.full((32, 32, 3), 40 + 50 * call, np.uint8) for call in range(CALLS)])
    jpeg = [encode_jpeg(image, 90) for image in images]
    stored: Any = EncodedImages.of(jpeg, 32, 32, ImageCodec("jpeg", 90)) if encoded else images
    calls = replace(made.calls, images={"wrist": stored})
    played = np.array([0, 0, 0, -1, -1, -1, -1, 1, 1, -1, 2], np.int32)
    steps = replace(
        made.steps, source=np.array(SOURCES, np.uint8), call=played, index=np.zeros(STEPS, np.int32),
        alterations=np.eye(1, STEPS, 6, dtype=np.uint32)[0] * 4,
    )  # fmt: skip
    if clock:
        calls = replace(calls, capture_time_ns=np.array([1, 4, 5, 9], np.int64) * 10**9)
        steps = replace(steps, time_ns=np.arange(1, STEPS + 1) * 10**9)
    return replace(made, calls=calls, steps=steps)


@pytest.mark.parametrize(("clock", "encoded"), [(True, True), (False, False)], ids=["jpeg", "raw, no clock"])
def test_a_frame_is_what_the_camera_showed_last(
    web: httpx.Client, store: EpisodeStore, clock: bool, encoded: bool
) -> None:
    episode = recorded(clock, encoded)
    path = f"/v1/episodes/{store.write(episode).id}/frames/wrist"
    seen = timeline(episode).seen.tolist()
    assert seen == ([0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3] if clock else [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    for step, call in enumerate(seen):
        reply = web.get(f"{path}/{step}.jpg")
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "image/jpeg")
        pixels = np.asarray(Image.open(io.BytesIO(reply.content)))
        assert pixels.shape == (32, 32, 3)
        assert np.abs(pixels.astype(int) - (40 + 50 * call)).max() <= 2
    if encoded:
        assert reply.content == episode.calls.images["wrist"].files(3, 4), "the stored file as it is"  # type: ignore[attr-defined]
    assert "immutable" in reply.headers["Cache-Control"]
    again = web.get(f"{path}/{STEPS - 1}.jpg", headers={"If-None-Match": reply.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "11" in problem(web.get(f"{path}/{STEPS}.jpg"), 404)
    assert "wrist" in problem(web.get(f"{path[:-5]}base/0.jpg"), 404)
    for wrong in ("-1", "x", "99999999999"):
        problem(web.get(f"{path}/{wrong}.jpg"), 422)
    problem(web.get(f"/v1/episodes/{'0' * 32}/frames/wrist/0.jpg"), 404)


def test_a_changed_image_is_an_error_and_no_image(web: httpx.Client, store: EpisodeStore) -> None:
    summary = store.write(recorded(True, True))
    file = store.root / summary.path
    jpeg = encode_jpeg(np.full((32, 32, 3), 40, np.uint8), 90)
    data = file.read_bytes()
    at = data.index(jpeg) + len(jpeg) // 2
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    path = f"/v1/episodes/{summary.id}/frames/wrist"
    assert "was changed" in problem(web.get(f"{path}/0.jpg"), 409)
    assert web.get(f"{path}/10.jpg").status_code == 200, "another image is whole"


def test_the_steps_are_thinned_out_and_no_takeover_is_lost(web: httpx.Client, store: EpisodeStore) -> None:
    episode = recorded(True, False)
    path = f"/v1/episodes/{store.write(episode).id}/steps"
    whole = web.get(path).json()
    assert (whole["steps"], whole["stride"], whole["step"]) == (STEPS, 1, list(range(STEPS)))
    np.testing.assert_allclose(whole["time_s"], range(STEPS))
    for name, table in (("executed", episode.steps.executed), ("state", episode.steps.state)):
        columns = np.array([each["values"] for each in whole[name]]).T
        np.testing.assert_allclose(columns, table, rtol=1e-5)
    commanded = timeline(episode).commanded
    for at, channel in enumerate(whole["commanded"]):
        expected = [None if np.isnan(value) else pytest.approx(value, rel=1e-5) for value in commanded[:, at].tolist()]
        assert channel["values"] == expected
        assert (channel["name"], channel["unit"]) == ("ab"[at], "rad")
    thin = web.get(path, params={"points": 3}).json()
    assert (thin["stride"], thin["step"]) == (4, [0, 4, 8])
    assert thin["executed"][0]["values"] == whole["executed"][0]["values"][::4]
    assert thin["alterations"] == [0, 4, 0], "of a step that is left out"
    driven = [
        ControlSource[each["source"].upper()] for each in thin["runs"] for _ in range(each["first"], each["after"])
    ]
    assert driven == SOURCES
    problem(web.get(path, params={"points": 1}), 422)


def test_a_video_has_a_frame_per_step_is_made_once_and_read_in_parts(
    web: httpx.Client, store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/v1/episodes/{store.write(recorded(True, True)).id}/video.mp4"
    reply = web.get(path)
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "video/mp4"), reply.text
    with av.open(io.BytesIO(reply.content)) as file:
        assert sum(1 for _ in file.decode(video=0)) == STEPS
    monkeypatch.setattr(videos, "find_spec", lambda name: None)
    part = web.get(path, headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp"), "the kept one needs no package"
    assert web.get(path, headers={"Range": f"bytes={10**9}-"}).status_code == 416
    empty = recorded(True, True)
    other = store.write(replace(empty, steps=replace(
        empty.steps, **{name: values[:0] for name, values in vars(empty.steps).items()}
    )))  # fmt: skip
    assert "no step" in problem(web.get(f"/v1/episodes/{other.id}/video.mp4"), 409)
    third = f"/v1/episodes/{store.write(recorded(False, True)).id}/video.mp4"
    assert "pirl[data]" in problem(web.get(third), 501)
    monkeypatch.undo()
    monkeypatch.setattr(videos, "MAX_WAITING", 0)
    assert "later" in problem(web.get(third), 503)
    assert [each.suffix for each in (tmp_path / "cache" / "videos").iterdir()] == [".mp4"]


def test_a_video_does_not_keep_a_server_that_stops(
    server: Server, web: httpx.Client, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "reaped", lambda command: reaped(["sleep", "600"]))
    path = f"/v1/episodes/{store.write(recorded(True, True)).id}/video.mp4"
    asked: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: asked.append(web.get(path)))
    thread.start()
    until(lambda: server.api.state.services.videos._turn.locked(), "it is being made")
    server.api.state.services.stopping.close()
    thread.join()
    assert "stopping" in problem(asked[0], 503)
