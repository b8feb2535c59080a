"""Statistics applied and undone: numbers worked out by hand for both conventions, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pirl_server.policy.normalisation import Normaliser, check_statistics
from pirl_server.policy.processing_spec import Normalisation

TINY = 1e-5
"""a std at which the epsilons differ visibly"""


@pytest.mark.parametrize(
    ("scheme", "convention", "expected", "back"),
    [
        ("zscore", "openpi", 3e-5 / (TINY + 1e-6), 0.5 + 2 * (TINY + 1e-6)),
        ("zscore", "lerobot", 3e-5 / (TINY + 1e-8), 0.5 + 2 * TINY),
        ("quantile", "openpi", 2 * 3e-5 / (TINY - 0.5 + 1e-6) - 1, 0.5 + 1.5 * (TINY - 0.5 + 1e-6)),
        ("quantile", "lerobot", 2 * 3e-5 / (TINY - 0.5) - 1, 0.5 + 1.5 * (TINY - 0.5)),
        ("none", "openpi", 0.50003, 2.0),
    ],
)
def test_values_worked_out_by_hand(scheme: Any, convention: Any, expected: float, back: float) -> None:
    values = () if scheme == "none" else (0.5,)
    normaliser = Normaliser(Normalisation(scheme, convention, values, () if scheme == "none" else (TINY,)))
    np.testing.assert_allclose(normaliser.apply(np.array([0.50003])), [expected], rtol=1e-9)
    np.testing.assert_allclose(normaliser.undo(np.array([2.0])), [back], rtol=1e-9)


def test_lerobot_s_epsilon_stands_in_for_a_range_of_zero_only() -> None:
    same = Normaliser(Normalisation("quantile", "lerobot", (0.5,), (0.5,)))
    np.testing.assert_allclose(same.apply(np.array([0.5])), [-1.0], atol=1e-9)
    np.testing.assert_allclose(same.undo(np.array([1.0])), [0.5 + 1e-8], rtol=1e-12)


@given(
    st.sampled_from(["zscore", "quantile"]), st.sampled_from(["openpi", "lerobot"]),
    st.lists(st.tuples(st.floats(-3, 3), st.floats(0.01, 5), st.floats(-100, 100)), min_size=1, max_size=4),
)  # fmt: skip
def test_undo_inverts_apply_and_nothing_is_clipped(scheme: Any, convention: Any, rows: list[Any]) -> None:
    low, width, x = (np.array(part) for part in zip(*rows))
    second = width if scheme == "zscore" else low + width
    normaliser = Normaliser(Normalisation(scheme, convention, tuple(low), tuple(second)))
    batch = np.stack([x, x + 1.0])[:, None]
    np.testing.assert_allclose(normaliser.undo(normaliser.apply(batch)), batch, rtol=1e-5, atol=1e-5)
    assert normaliser.apply(batch).shape == batch.shape


def test_the_quantiles_go_to_the_ends_of_the_range() -> None:
    normaliser = Normaliser(Normalisation("quantile", "lerobot", (-0.2, 1.0), (0.6, 3.0)))
    np.testing.assert_allclose(normaliser.apply(np.array([[-0.2, 3.0], [0.2, 4.0]])), [[-1, 1], [0, 2]], atol=1e-12)


NAMES = ["j1", "j2"]
FAULTS = {
    "too few": (("zscore", (0.0,), (1.0,)), "1 and 1 state statistics for the contract's 2"),
    "too many": (("zscore", (0.0,) * 3, (1.0,) * 3), "3 and 3 state statistics"),
    "of two lengths": (("zscore", (0.0,) * 2, (1.0,) * 3), "2 and 3 state statistics"),
    "std 0": (("zscore", (0.0, 0.0), (1.0, 0.0)), "state 'j2': std is 0"),
    "std negative": (("zscore", (0.0, 0.0), (-1.0, 1.0)), "state 'j1': std is -1"),
    "std tiny": (("zscore", (0.0, 0.0), (1.0, 1e-7)), "state 'j2': std is 1e-07"),
    "range tiny": (("quantile", (0.0, 0.5), (1.0, 0.50001)), "state 'j2': q99 - q01 is 1e-05"),
    "range upside down": (("quantile", (1.0, 0.0), (0.0, 1.0)), "state 'j1': q99 - q01 is -1"),
    "nan": (("zscore", (float("nan"), 0.0), (1.0, 1.0)), "state 'j1' has statistics nan"),
    "infinite": (("quantile", (0.0, 0.0), (1.0, float("inf"))), "state 'j2' has statistics 0.0 and inf"),
    "statistics of no scheme": (("none", (0.0, 0.0), (1.0, 1.0)), "scheme is 'none'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_statistics_that_no_robot_can_be_run_with_are_refused_by_name(fault: str) -> None:
    (scheme, first, second), words = FAULTS[fault]
    with pytest.raises(ValueError, match=words):
        check_statistics(Normalisation(scheme, "openpi", first, second), NAMES, "state")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scheme", "first", "second"), [("zscore", (0.0, 0.0), (1.0, 1e-4)), ("none", (), ()), ("quantile", (0, 0), (1, 1))]
)
def test_usable_statistics_pass(scheme: Any, first: Any, second: Any) -> None:
    """Negative control."""
    check_statistics(Normalisation(scheme, "openpi", first, second), NAMES, "state")
