"""Let the tests of this folder import `reference_pi0` and `scenes`: importlib mode leaves test folders off the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
