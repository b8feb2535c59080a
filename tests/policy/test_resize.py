"""Camera images in the model's square: against PIL and torch themselves, and by hand where the two differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from pirl_server.policy.resize import fitted, letterbox

METHODS = pytest.mark.parametrize("method", ["pil", "torch"])
SIZE = st.integers(1, 40)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)


def column(values: list[int], method: str, px: int) -> torch.Tensor:
    """One row of grey pixels -> the row of the square that shows it, as 0..255."""
    pixels = np.repeat(np.array(values, np.uint8)[None, None, :, None], 3, axis=3)
    out = letterbox(np.repeat(pixels, len(values), axis=1), px, method, -1.0)
    return (out[0, 0, 0] + 1.0) * 127.5


@given(SIZE, SIZE, st.integers(4, 24))
@settings(deadline=None, max_examples=150)
def test_pil_s_way_is_pil_on_a_black_canvas(height: int, width: int, px: int) -> None:
    image = picture(height, width)
    ratio = max(width / px, height / px)
    size = (max(1, int(width / ratio)), max(1, int(height / ratio)))
    canvas = Image.new("RGB", (px, px))
    corner = (int((px - size[0]) / 2), int((px - size[1]) / 2))
    canvas.paste(Image.fromarray(image[0]).resize(size, resample=Image.Resampling.BILINEAR), corner)
    expected = np.asarray(canvas, np.float64) / 255.0 * 2.0 - 1.0
    np.testing.assert_allclose(letterbox(image, px, "pil", -1.0)[0].permute(1, 2, 0), expected, atol=1e-6)


@given(SIZE, SIZE, st.integers(4, 24))
@settings(deadline=None, max_examples=150)
def test_torch_s_way_is_torch_between_bars(height: int, width: int, px: int) -> None:
    image = picture(height, width)
    h, w = fitted(height, width, px)
    small = interpolate(torch.from_numpy(image).permute(0, 3, 1, 2).double(), (h, w), mode="bilinear")
    before = [(px - w) // 2, (px - h) // 2]
    after = [px - w - before[0], px - h - before[1]]
    padding = (before[0], after[0], before[1], after[1])
    expected = torch.nn.functional.pad(small / 255.0 * 2.0 - 1.0, padding, value=-1.0)
    np.testing.assert_allclose(letterbox(image, px, "torch", -1.0), expected, atol=1e-5)


GOLDEN = Path(__file__).parents[1] / "model" / "golden" / "smolvla_tiny.safetensors"


@pytest.mark.parametrize("camera", [0, 1], ids=["enlarged", "shrunk"])
def test_bars_left_and_above_as_lerobot_s_smolvla(camera: int) -> None:
    """Against recorded images; bars right and below, on both sides, or PIL's filter are another image."""
    recorded = load_file(GOLDEN)
    raw, expected = recorded[f"in/raw_{camera}"].numpy(), recorded[f"out/resized_{camera}"]
    ours = letterbox(raw, 32, "torch_left_top", -1.0)
    assert float((ours - (expected * 2.0 - 1.0)).abs().max()) <= 2e-6
    assert float((ours - recorded[f"in/image_{camera}"]).abs().max()) <= 2e-6
    others = [letterbox(raw, 32, "torch", -1.0), letterbox(raw, 32, "pil", -1.0), ours.flip(2, 3).flip(0)]
    assert min(float((ours - each).abs().max()) for each in others) > 0.1


def test_shrinking_by_hand() -> None:
    """8 -> 2. torch looks at the two pixels around the centre; PIL's triangle is as wide as the shrinking: 6 pixels."""
    row = [80, 0, 40, 200, 0, 0, 0, 0]
    np.testing.assert_allclose(column(row, "torch", 2), [(0 + 40) / 2, 0.0], atol=1e-4)
    weights = np.array([0.625, 0.875, 0.875, 0.625, 0.375, 0.125])
    left = (weights @ row[:6]) / weights.sum()
    right = (weights[::-1] @ row[2:]) / weights.sum()
    np.testing.assert_allclose(column(row, "pil", 2), [left, right], atol=0.51)  # PIL rounds to uint8


def test_enlarging_by_hand() -> None:
    out = (letterbox(np.array([[[[0] * 3, [100] * 3]]], np.uint8), 4, "torch", -1.0)[0, 0] + 1.0) * 127.5
    np.testing.assert_allclose(out, [[0] * 4, [0, 25, 75, 100], [0, 25, 75, 100], [0] * 4], atol=1e-4)


def test_the_two_ways_are_two() -> None:
    """Negative control: with one for the other, a checkpoint sees another picture."""
    image = picture(40, 40)
    assert (letterbox(image, 10, "pil", -1.0) - letterbox(image, 10, "torch", -1.0)).abs().max() > 0.3


@METHODS
@pytest.mark.parametrize("bars", [-1.0, -3.0])
@pytest.mark.parametrize(("height", "width"), [(20, 30), (30, 20), (3, 40), (1, 40), (13, 7), (480, 641)])
def test_bars_are_exactly_what_was_asked_and_leave_the_picture_in_the_middle(
    method: str, bars: float, height: int, width: int
) -> None:
    px = 11
    out = letterbox(np.full((2, height, width, 3), 255, np.uint8), px, method, bars)
    assert out.shape == (2, 3, px, px)
    assert out.dtype == torch.float32
    lit = out[1, 0] > 0.999
    assert (out[:, :, ~lit] == bars).all()
    rows, columns = lit.any(dim=1).nonzero()[:, 0], lit.any(dim=0).nonzero()[:, 0]
    assert int(lit.sum()) == len(rows) * len(columns)
    assert (len(rows), len(columns)) == fitted(height, width, px)
    for used in (rows, columns):
        before, after = int(used[0]), px - 1 - int(used[-1])
        assert after - before in (0, 1), "an odd bar has its extra pixel at the end"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (168, 224)), ((640, 480), (224, 168)), ((720, 1280), (126, 224)), ((1, 1000), (1, 224)),
     ((224, 224), (224, 224)), ((256, 256), (224, 224)), ((100, 50), (224, 112))],
)  # fmt: skip
def test_aspect_is_kept_and_the_longer_side_fills_the_square(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(*size, 224) == expected


@METHODS
def test_the_right_size_is_only_scaled(method: str) -> None:
    image = picture(9, 9)
    out = letterbox(image, 9, method, -3.0)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(np.rint((out + 1.0) * 127.5).astype(np.uint8), image[0])
    assert (out.min(), out.max()) == pytest.approx((image.min() / 127.5 - 1, image.max() / 127.5 - 1), abs=1e-6)


@METHODS
def test_every_image_of_a_batch_is_its_own(method: str) -> None:
    batch = np.concatenate([picture(20, 30, seed) for seed in range(3)])
    together = letterbox(batch, 14, method, -1.0)
    for row in range(3):
        assert torch.equal(together[row : row + 1], letterbox(batch[row : row + 1], 14, method, -1.0))
