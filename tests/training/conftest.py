"""Let the tests of this folder import `toy_arm` and `small_pretrained`: pytest's importlib mode leaves folders of tests
off the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "policy")]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
