"""The K denoise steps of a chunk; what they share is computed once.

Over the steps they share the prefix and pi0's state token, which sees neither actions nor time: its keys and values
come out of the first step and join the prefix, so the others run H action tokens that see everything. Over the batch
they share what depends on time alone. For inference: gradients pass from x alone, where `differentiable` is asked.

Shape letters: B batch, H horizon, D action dim, S state dim, K denoise steps,
N times, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from pirl_server.model.layers.gemma import Gemma, KeyValue
from pirl_server.model.pi0.config import Pi0Config
from pirl_server.model.pi0.suffix import Condition, Context, suffix_context
from pirl_server.model.prefix import Prefix
from pirl_server.model.scheduled_denoiser import ScheduledDenoiser, schedule_times


class DenoisedModel(Protocol):
    """What the denoiser needs of the network: see `Pi0`."""

    config: Pi0Config
    expert: Gemma
    action_in_proj: nn.Linear

    def condition(self, t: Tensor) -> Condition:
        """What the expert needs to know of times [N]."""

    def embed_state(self, state_BS: Tensor | None) -> Tensor | None:
        """The state token [B, 1, W], if the model has one."""

    def run_suffix(
        self, state_B1W: Tensor | None, x_BHD: Tensor, condition: Condition, context: Context
    ) -> tuple[Tensor, list[KeyValue]]:
        """Expert outputs [B, S, W] and their keys and values."""

    def read_out(self, out_BHW: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the features [B, H, W] it is a linear function of."""


def schedule(model: DenoisedModel, steps: int) -> list[Condition]:
    """Conditions of the times 1, (K-1)/K, ..., 1/K."""
    return model.condition(schedule_times(model.action_in_proj.weight, steps)).unbind()


class Denoiser(ScheduledDenoiser):
    """A velocity (x_BHD, t_B) -> v_BHD of one observation, for times on the schedule, one time for all rows.

    Where tokens are `given`, they have time 0 instead.
    """

    @torch.no_grad()
    def __init__(
        self, model: DenoisedModel, prefix: Prefix, state_BS: Tensor | None, steps: int, given_BH: Tensor | None = None
    ) -> None:
        self.model, self.steps, self.prefix = model, steps, prefix
        self.schedule = schedule(model, steps)
        if given_BH is not None:
            clean = model.condition(torch.zeros(1, device=given_BH.device))
            self.schedule = [clean.where(given_BH, noisy) for noisy in self.schedule]
        self.state = model.embed_state(state_BS)
        self.context = suffix_context(prefix, model.config.horizon, model.expert, state=self.state is not None)

    def _predict(self, k: int, x_BHD: Tensor) -> tuple[Tensor, Tensor]:
        out_BSW, own = self.model.run_suffix(self.state, x_BHD, self.schedule[k], self.context)
        if self.state is not None:
            self._keep_state(own)
        return self.model.read_out(out_BSW[:, -x_BHD.shape[1] :])

    def _keep_state(self, own: Sequence[KeyValue]) -> None:
        keys, values = (torch.stack(part)[:, :, :, :1].detach() for part in zip(*own))
        self.prefix, self.state = self.prefix.extended(keys, values), None
        self.context = suffix_context(self.prefix, self.model.config.horizon, self.model.expert, state=False)
