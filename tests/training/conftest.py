"""Let the tests of this folder import `toy_arm` and `small_pretrained`: pytest's importlib mode leaves folders of tests
off the path."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "policy")]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def root_handlers() -> Iterator[None]:
    """TensorBoard's import adds a handler for the log of all, which would outlive the stream that it writes to."""
    before = list(logging.root.handlers)
    yield
    logging.root.handlers[:] = before
