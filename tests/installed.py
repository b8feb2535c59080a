"""Whether an optional package is there, without importing it: each process of a test run looks through all files."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def needs(package: str, reason: str) -> None:
    """Skip the module that calls this while it is imported, with this reason, where the package is not installed."""
    if find_spec(package) is None:
        pytest.skip(reason, allow_module_level=True)
