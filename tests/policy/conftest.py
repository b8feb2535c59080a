"""Let the tests of this folder import `small_pretrained` beside them and the training tests' `toy_arm`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "training")]
