"""The instruction of a request that has none: one rule for every port."""

from __future__ import annotations

from collections.abc import Sequence


def instruction_or_only(text: str, known: Sequence[str], name: str = "instruction") -> str:
    """The text, or the only known instruction where it is blank; `name` is what the caller's wire calls it.

    Raises ValueError when there is not exactly one: a robot without an instruction would do anything.
    """
    if text.strip():
        return text
    if len(known) == 1:
        return known[0]
    raise ValueError(
        f"{name} is missing, and the policy has {len(known)} instructions, not one: send it, or start the server with"
        " --default-instruction TEXT"
    )
