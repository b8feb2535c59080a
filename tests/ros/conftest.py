"""Fixtures of the robot side: the shipped profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from pirl_ros.profile import Profile, load_profile

PROFILE_PATH = Path(__file__).parents[2] / "launch" / "params" / "panda_sim.yaml"


@pytest.fixture(scope="session")
def profile_path() -> Path:
    return PROFILE_PATH


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile(PROFILE_PATH)
