"""A policy that was compiled draws what it drew before, and eagerly whatever was not compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from test_batches import POLICIES, tiny_observation, tiny_policy
from torch import Tensor
from torch.fx import GraphModule

from pirl_server.app import _compile
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import PolicyRequest, PolicySample

CLOSE, SIZES = 2e-5, (1, 4)
SEEING = sorted(name for name in POLICIES if "camera" in name and "no camera" not in name)


def traced(graph: GraphModule, _: list[Tensor]) -> Callable[..., object]:
    """What was traced, run as it is: a real compiler takes minutes on one core."""
    return graph.forward


def askew(graph: GraphModule, _: list[Tensor]) -> Callable[..., object]:
    """A compiler that gets one value wrong in a hundred."""

    def run(*inputs: Tensor) -> object:
        return tuple(each * 1.01 if each.is_floating_point() else each for each in graph.forward(*inputs))

    return run


def drawn(policy: FlowPolicy, asks: list[PolicyRequest]) -> list[PolicySample]:
    samples = policy.sample_batch(asks)
    assert all(isinstance(each, PolicySample) for each in samples)
    return [each for each in samples if isinstance(each, PolicySample)]


@pytest.mark.parametrize("name", SEEING)
def test_plain_draws_are_those_of_eager_passes(name: str) -> None:
    make, look = POLICIES[name]
    policy = make()
    said = policy.instructions[0] if policy.instructions else ""
    asks = [PolicyRequest(replace(look(seed), instruction=said), explore=False, seed=seed) for seed in range(3)]
    eager, has_passes = drawn(policy, asks), "SmolVLA" not in name
    assert policy.compile(traced, SIZES) is has_passes
    assert (policy._compiled is not None) is has_passes
    for before, after in zip(eager, drawn(policy, asks)):
        np.testing.assert_allclose(after.chain, before.chain, atol=CLOSE)
        np.testing.assert_allclose(after.actions, before.actions, atol=CLOSE)
        assert (after.sde_index, after.std, after.log_prob.any()) == (-1, 0.0, False)


def test_what_was_not_compiled_is_drawn_eagerly() -> None:
    """Exploration, and a prompt that is longer than any it knows: to the last bit as without a compiler."""
    policy = tiny_policy("pi0", 2)
    here = replace(tiny_observation(0, 2), instruction=policy.instructions[0])
    asks = [
        PolicyRequest(here, explore=True, seed=1),
        PolicyRequest(replace(here, instruction="push " * 12), explore=False, seed=1),
    ]
    eager = [drawn(policy, [ask])[0] for ask in asks]
    assert policy.compile(traced, SIZES)
    for before, ask in zip(eager, asks):
        np.testing.assert_array_equal(drawn(policy, [ask])[0].chain, before.chain)


def test_a_compiler_that_errs_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    policy = tiny_policy("pi0", 2)
    ask = PolicyRequest(tiny_observation(0, 2), explore=False, seed=1)
    (eager,) = drawn(policy, [ask])
    assert not policy.compile(askew, SIZES)
    assert "above 0.001: eager" in caplog.text
    np.testing.assert_array_equal(drawn(policy, [ask])[0].chain, eager.chain)


def test_a_policy_without_a_camera_is_left_as_it_is() -> None:
    assert not tiny_policy("pi0").compile(traced, SIZES)


def test_where_it_can_t_be_compiled_a_policy_is_served_eagerly_unless_that_was_excluded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: FlowPolicy) -> bool:
        raise RuntimeError("no working C++ compiler\nmore of it")

    monkeypatch.setattr(FlowPolicy, "compile", refuse)
    policy = tiny_policy("pi0", 2)
    with pytest.raises(ValueError, match="this machine: no working C\\+\\+ compiler; start with --compile off"):
        _compile(policy, "on")
    _compile(policy, "off")
    _compile(policy, "auto")  # on the CPU: not tried
