"""GAE and the clipped loss are TorchRL's, where TorchRL is installed: a second, independent opinion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pirl_server.algorithm.gae import gae
from pirl_server.algorithm.ppo import policy_loss

pytest.importorskip("torchrl", reason="TorchRL is not installed; it is only needed to compare with")

GAMMA = 63 / 64
"""exact in float32, as lambda is: TorchRL multiplies them there"""

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("lam", [0.0, 0.9375, 1.0])
def test_gae(lam: float) -> None:
    """Episodes that end by the task and by a time limit; TorchRL wants [N, T, 1] and the value after each row."""
    from torchrl.objectives.value.functional import generalized_advantage_estimate

    generator = torch.Generator().manual_seed(0)
    reward, value, final = torch.randn(3, 20, 4, dtype=torch.float64, generator=generator)
    last, dice = torch.randn(4, dtype=torch.float64, generator=generator), torch.rand(20, 4, generator=generator)
    terminated, truncated = dice < 0.1, (dice > 0.1) & (dice < 0.2)
    after = torch.where(truncated, final, torch.cat([value[1:], last[None]]))
    valid = torch.ones_like(terminated)
    ours = gae(reward, value, last, terminated, truncated, final, valid, gamma=GAMMA, lam=lam)

    def theirs(x_TN: Tensor) -> Tensor:
        return x_TN.T[..., None]

    columns = (theirs(x) for x in (value, after, reward, terminated | truncated, terminated))
    for a, b in zip(ours, generalized_advantage_estimate(GAMMA, lam, *columns)):
        torch.testing.assert_close(theirs(a), b)


def test_clipped_loss() -> None:
    """The same Gaussian policy, one parameter away from where it acted: loss and gradient."""
    from tensordict import TensorDict
    from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
    from torch.distributions import Independent, Normal
    from torchrl.objectives import ClipPPOLoss

    torch.manual_seed(0)
    net, scale, n = torch.nn.Linear(3, 2).double(), 0.4, 64
    obs, action = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 2, dtype=torch.float64)
    old, advantage = torch.randn(n, dtype=torch.float64) - 8.0, torch.randn(n, dtype=torch.float64)

    def log_prob() -> Tensor:
        return Normal(net(obs), scale).log_prob(action).sum(dim=1)  # type: ignore[no-any-return,no-untyped-call]

    old = log_prob().detach() + 0.3 * old.add(8.0)

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            loc = self.net(x)
            return loc, torch.full_like(loc, scale)

    def independent(loc: Tensor, scale: Tensor) -> Any:
        return Independent(Normal(loc, scale), 1)

    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(Mean(), ["observation"], ["loc", "scale"]),
        ProbabilisticTensorDictModule(
            ["loc", "scale"], ["action"], distribution_class=independent, return_log_prob=True
        ),
    )
    loss = ClipPPOLoss(actor, None, clip_epsilon=0.2, entropy_bonus=False, critic_coeff=None, normalize_advantage=False)
    data = TensorDict(
        {"observation": obs, "action": action, "advantage": advantage[:, None], "action_log_prob": old}, [n]
    )
    theirs = loss(data)["loss_objective"]
    ours, metrics = policy_loss(log_prob(), old, advantage, torch.ones(n, dtype=torch.bool))
    torch.testing.assert_close(ours, theirs)
    assert 0.1 < float(metrics["clip_fraction"]) < 0.9
    for a, b in zip(*(torch.autograd.grad(x, list(net.parameters())) for x in (ours, theirs))):
        torch.testing.assert_close(a, b)
