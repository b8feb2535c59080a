"""Augmentation: bounded, per image, repeatable, and blind to what a wrist camera's geometry says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pirl_server.training.supervised.augment import CROP, augment, colours, view

CAMERAS = ["base_0_rgb", "left_wrist_0_rgb"]


def pictures(batch: int = 4, size: int = 32) -> Tensor:
    """Smooth pictures, the same for both cameras."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 5, 5, generator=random) * 1.6 - 0.8
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
    return fine[:, None].expand(-1, 2, -1, -1, -1).contiguous()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_strength_is_the_identity() -> None:
    images = pictures()
    assert torch.equal(augment(images, CAMERAS, 0.0, seeded(0)), images)
    assert not torch.equal(augment(images, CAMERAS, 0.01, seeded(0)), images)


def test_a_small_strength_is_a_small_change() -> None:
    """The machinery at (almost) zero strength leaves every pixel in its place."""
    images = pictures()
    assert float((augment(images, CAMERAS, 1e-6, seeded(0)) - images).abs().max()) < 1e-4


def test_a_seed_gives_the_same_images_and_each_image_has_its_own_draw() -> None:
    images = pictures(batch=1).expand(4, -1, -1, -1, -1)
    first, again, other = (augment(images, CAMERAS, 1.0, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for row in range(3):
        assert not torch.equal(first[row], first[row + 1])


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_the_range_is_kept(strength: float) -> None:
    loud = torch.sign(pictures(batch=16))
    seen = augment(loud, CAMERAS, strength, seeded(0))
    assert float(seen.min()) >= -1.0
    assert float(seen.max()) <= 1.0
    assert torch.isfinite(seen).all()


def corners(draw: list[float], aspect: float = 1.0) -> Tensor:
    """Where the output's corners come from, in input coordinates where the picture is [-1, 1]^2."""
    theta = view(torch.tensor(draw), torch.tensor(1.0 - CROP), 1.0, aspect)
    ends = torch.tensor([[-1.0, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]])
    return ends @ theta.T


@pytest.mark.parametrize("place", [(-1.0, -1.0), (1.0, 1.0), (0.3, -0.8), (0.0, 0.0)])
def test_a_crop_is_95_percent_of_each_side_and_inside_the_picture(place: tuple[float, float]) -> None:
    found = corners([*place, 0.0])
    size = found.max(dim=0).values - found.min(dim=0).values
    torch.testing.assert_close(size, torch.full((2,), 2 * 0.95))
    assert float(found.abs().max()) <= 1.0 + 1e-6
    if abs(place[0]) == 1.0:
        assert float(found.abs().max()) == pytest.approx(1.0), "the farthest crop touches the edge"


@pytest.mark.parametrize("aspect", [1.0, 2.0])
def test_a_turn_is_5_degrees_and_rigid_in_pixels(aspect: float) -> None:
    pixels = corners([0.0, 0.0, 1.0], aspect) * torch.tensor([aspect, 1.0])
    side = pixels[2] - pixels[0]
    assert math.degrees(math.atan2(float(side[1]), float(side[0]))) == pytest.approx(5.0, abs=1e-3)
    lower = pixels[1] - pixels[0]
    assert float(side @ lower) == pytest.approx(0.0, abs=1e-5), "corners stay right angles"


def test_coordinates_are_those_of_grid_sample() -> None:
    """A crop at the lower right end shows the picture's lower right corner where the output's is."""
    ramp = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    theta = view(torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([0.95]), 1.0, 1.0)
    grid = affine_grid(theta, [1, 1, 64, 64], align_corners=False)
    seen = grid_sample(ramp, grid, padding_mode="border", align_corners=False)
    assert float(seen[0, 0, 0, -1]) == pytest.approx(1.0, abs=0.02)
    assert float(seen[0, 0, 0, 0]) == pytest.approx(-0.9, abs=0.02)


def moved(seen: Tensor) -> bool:
    """Whether anything but one colour lies outside the place of the spot."""
    background = seen.clone()
    background[:, 40:44, 10:14] = seen[:, :1, :1]
    return bool((background - background[:, :1, :1]).abs().max() > 1e-6)


def test_wrist_cameras_keep_their_geometry() -> None:
    """A spot moves in the base camera and stays where it is in the wrist camera; the colours of both change."""
    spot = torch.full((8, 2, 3, 64, 64), -1.0)
    spot[..., 40:44, 10:14] = 0.0
    seen = augment(spot, CAMERAS, 1.0, seeded(0))
    assert [moved(image) for image in seen[:, 1]] == [False] * 8
    assert [moved(image) for image in seen[:, 0]] == [True] * 8
    assert float((seen[:, 1] - spot[:, 1]).abs().max()) > 0.01


def test_colour_factors_do_what_their_names_say() -> None:
    images = pictures(batch=1)[:, :1]
    grey = images.mean(dim=2, keepdim=True).expand_as(images)
    zero = torch.zeros(3, 1, 1)
    torch.testing.assert_close(colours(images, zero, 1.0), images, rtol=0, atol=1e-6)
    brighter = colours(images * 0.5, torch.tensor([1.0, 0, 0])[:, None, None], 1.0)
    torch.testing.assert_close((brighter + 1) / (images * 0.5 + 1), torch.full_like(images, 1.3), rtol=1e-4, atol=0)
    flat = colours(images, torch.tensor([0, -1.0, 0])[:, None, None], 1.0)
    assert float(flat.std() / images.std()) == pytest.approx(0.6, abs=0.1)
    saturated = torch.tensor([0, 0, 1.0])[:, None, None]
    torch.testing.assert_close(colours(grey, saturated, 1.0), grey, rtol=0, atol=1e-5)
    assert float((colours(images, saturated, 1.0) - images).abs().max()) > 0.05
