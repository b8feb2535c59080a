"""The exact McNemar test, against sums by hand."""

from __future__ import annotations

import pytest

from pirl_server.registry.mcnemar import mcnemar


def outcomes(gained: int, lost: int, same: int = 5) -> tuple[list[bool], list[bool]]:
    return [False] * gained + [True] * lost + [True] * same, [True] * gained + [False] * lost + [True] * same


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (4, 1, 2 * 6 / 32),
        (3, 3, 1.0),
        (81, 28, 3.778053e-7),
    ],
)
def test_p_is_the_chance_of_a_split_at_least_as_uneven(gained: int, lost: int, p: float) -> None:
    found = mcnemar(*outcomes(gained, lost))
    assert (found.gained, found.lost) == (gained, lost)
    assert found.p == pytest.approx(p, rel=1e-6)
    assert mcnemar(*outcomes(gained, lost, same=500)).p == found.p, "states that did not change sides say nothing"


def test_lists_of_different_length_are_rejected() -> None:
    with pytest.raises(ValueError, match="2 and 1 outcomes can't be paired"):
        mcnemar([True, False], [True])
