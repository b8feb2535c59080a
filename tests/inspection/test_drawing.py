"""Contact sheet, video and figures, read back by other programs: what is drawn is what was recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pirl_contract import Alteration, ControlSource
from pirl_server.data_commands import episodes as pirl_episodes
from pirl_server.episodes.schema import Episode
from pirl_server.inspection import contact_sheet
from pirl_server.inspection.colours import SOURCE_COLOURS, rgb
from pirl_server.inspection.episode_figure import save_episode_figure
from pirl_server.inspection.timeline import alteration_table, chunk_starts, timeline
from pirl_server.inspection.video import BORDER, HEAD, frames, save_video

PERIOD_MS, EXECUTE, DELAY = 50.0, 5, 2


def test_the_timeline_says_what_each_step_was(continued: Episode) -> None:
    """Against a loop over the steps. The first two actions of a continued chunk were played of the chunk before."""
    line, steps, calls = timeline(continued), continued.steps, continued.calls
    for step in range(len(steps.call)):
        call, index = int(steps.call[step]), int(steps.index[step])
        np.testing.assert_array_equal(line.commanded[step], calls.chunk[call, index])
        assert line.begins[step] == (step % EXECUTE == 0)
        assert line.age_ms[step] == pytest.approx((index + 1) * PERIOD_MS, rel=1e-3)
        newest = max(call for call in range(4) if calls.capture_time_ns[call] <= steps.time_ns[step])
        assert line.seen[step] == newest
    assert line.takeovers == ((4, 5), (9, 10), (14, 15), (19, 20))
    assert [source for source, *_ in line.runs] == [ControlSource.POLICY, ControlSource.HUMAN] * 4
    assert chunk_starts(continued).tolist() == [0, EXECUTE - DELAY, 2 * EXECUTE - DELAY, 3 * EXECUTE - DELAY]


def test_without_a_clock_the_chunk_that_is_played_is_what_was_seen(plain: Episode) -> None:
    steps = replace(plain.steps, time_ns=np.zeros_like(plain.steps.time_ns))
    line = timeline(replace(plain, steps=steps))
    assert line.seen.tolist() == [call for call in range(4) for _ in range(EXECUTE)]
    assert np.isnan(line.age_ms).all()
    held = replace(plain.steps, call=np.full_like(plain.steps.call, -1))
    assert np.isnan(timeline(replace(plain, steps=held)).commanded).all()


def test_alterations_are_counted_by_kind(plain: Episode) -> None:
    table = alteration_table(plain)
    assert set(table) == {"limit", "blended"}
    for kind in (Alteration.LIMIT, Alteration.BLENDED):
        there = table[str(kind.name).lower()]
        assert there.tolist() == [bool(bits & kind) for bits in plain.steps.alterations.tolist()]


def test_a_video_has_a_frame_per_step_with_its_images_and_the_colour_of_its_driver(
    plain: Episode, tmp_path: Path
) -> None:
    save_video(tmp_path / "it.mp4", plain)
    film = cv2.VideoCapture(str(tmp_path / "it.mp4"))
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(plain.info.contract.rate_hz)
    line, count = timeline(plain), 0
    while True:
        there, bgr = film.read()
        if not there:
            break
        frame = bgr[..., ::-1].astype(int)
        source = ControlSource(int(plain.steps.source[count])).name.lower()
        # two pixels within the border: colours are stored at half the resolution
        edge = frame[HEAD + 1 : HEAD + 3, 40:200].mean(axis=(0, 1))
        nearest = min(SOURCE_COLOURS, key=lambda name: np.abs(edge - rgb(SOURCE_COLOURS[name])).sum())
        assert nearest == source
        shown = frame[HEAD + BORDER : HEAD + BORDER + 224, BORDER : BORDER + 224]
        distances = [
            np.abs(cv2.resize(image, (224, 224), interpolation=cv2.INTER_NEAREST).astype(int) - shown).mean()
            for image in plain.calls.images["base"]
        ]
        assert int(np.argmin(distances)) == line.seen[count]
        count += 1
    assert count == len(plain.steps.call)


def test_frames_are_even_and_all_alike_also_without_cameras(plain: Episode) -> None:
    blind = replace(
        plain,
        info=replace(plain.info, contract=replace(plain.info.contract, cameras=())),
        calls=replace(plain.calls, images={}),
    )
    for episode in (plain, blind):
        shapes = {frame.shape for frame in frames(episode, timeline(episode))}
        ((height, width, colours),) = shapes
        assert (height % 2, width % 2, colours) == (0, 0, 3)
    with pytest.raises(ValueError, match="has no cameras"):
        contact_sheet.save_contact_sheet(Path("never.png"), blind)


def test_a_sheet_shows_the_images_of_the_decisions(plain: Episode, tmp_path: Path) -> None:
    contact_sheet.save_contact_sheet(tmp_path / "sheet.png", plain)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1].copy()
    height = contact_sheet.MIN_HEIGHT
    for call in range(4):
        image = cv2.resize(plain.calls.images["base"][call], (height, height), interpolation=cv2.INTER_NEAREST)
        assert cv2.matchTemplate(sheet, image, cv2.TM_SQDIFF_NORMED).min() < 1e-4, f"call {call}"
    stranger = np.random.default_rng(9).integers(256, size=(height, height, 3), dtype=np.uint8)
    assert cv2.matchTemplate(sheet, stranger, cv2.TM_SQDIFF_NORMED).min() > 0.1


def test_below_an_observation_of_a_demonstration_stand_the_steps_until_the_next(plain: Episode) -> None:
    calls = replace(plain.calls, step=np.full(4, -1, np.int32))
    steps = replace(plain.steps, call=np.full_like(plain.steps.call, -1))
    shown = [contact_sheet._steps_of(replace(plain, calls=calls, steps=steps), call) for call in range(4)]
    assert shown == [range(5 * call, 5 * call + 5) for call in range(4)]
    assert shown == [contact_sheet._steps_of(plain, call) for call in range(4)]


def test_figures_are_drawn_with_and_without_values(plain: Episode, tmp_path: Path) -> None:
    save_episode_figure(tmp_path / "plain.png", plain)
    values = np.linspace(0, 1, 4, dtype=np.float32)
    save_episode_figure(tmp_path / "valued.png", replace(plain, calls=replace(plain.calls, value=values)))
    heights = [len(cv2.imread(str(tmp_path / f"{name}.png"))) for name in ("plain", "valued")]
    assert heights[1] > heights[0] > 300, "one panel more"


def test_the_command_writes_all_three(root, plain: Episode, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    files = [tmp_path / name for name in ("sheet.png", "video.mp4", "plot.png")]
    flags = [word for flag, file in zip(("--sheet", "--video", "--plot"), files) for word in (flag, str(file))]
    assert pirl_episodes(["draw", plain.info.id, "--root", str(root.path), *flags]) == 0
    assert all(file.stat().st_size > 1000 for file in files)
    with pytest.raises(ValueError, match="nothing to draw"):
        pirl_episodes(["draw", plain.info.id, "--root", str(root.path)])
