"""lerobot 0.6.1 as a peer: whichever of its policies the case's family asks for."""

from __future__ import annotations

from case import Case
from serve import Model, serve


def build(case: Case) -> Model:
    """Import what is needed only: lerobot's policies take a minute."""
    if case.metadata["family"] == "smolvla":
        from lerobot_smolvla import LerobotSmolVla

        return LerobotSmolVla(case)
    from lerobot_pi import LerobotPi

    return LerobotPi(case)


serve(build)
