"""A checkpoint that can be asked: features, prefix, K denoise steps, actions in the contract's units.

The prefix (vision and language, frozen in RL) is computed once per observation, and once per instruction when the
model has no camera: then it serves a whole episode, every rollout and every PPO epoch.

Shape letters: N robots or environments, H horizon, D action dim, F features, S state, K denoise steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pirl_contract import Contract, Observation
from pirl_server.algorithm import flow_sde
from pirl_server.algorithm.flow import Transition
from pirl_server.algorithm.sample import Draw, hybrid_sample
from pirl_server.model.pi0 import Pi0
from pirl_server.model.prefix import Prefix
from pirl_server.policy.card import ModelCard
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint
from pirl_server.policy.processor import Array, Images, Processor
from pirl_server.policy.sample import Sample
from pirl_server.policy.tabletop import TabletopProcessor

MAX_CACHED_PREFIXES = 64


class FlowPolicy:
    """`ServedPolicy` over a pi0 model. Not thread-safe: one thread owns it."""

    def __init__(self, card: ModelCard, model: Pi0, version: str, processor: Processor | None = None) -> None:
        self.card, self.model, self.version = card, model.eval(), version
        self.processor: Processor = TabletopProcessor(card) if processor is None else processor
        self._prefixes: dict[str, Prefix] = {}

    @classmethod
    def load(cls, folder: Path) -> FlowPolicy:
        """Read a checkpoint folder. Raises ValueError that names the file or tensor at fault."""
        card, weights, _ = load_checkpoint(folder)
        model = Pi0(card.model)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()[:200]
            raise ValueError(f"'{folder}': weights do not fit the card's model: {first}") from error
        return cls(card, model, checkpoint_version(folder))

    @property
    def name(self) -> str:
        """Human name from the card."""
        return self.card.name

    @property
    def contract(self) -> Contract:
        """The robot it was trained for."""
        return self.card.contract

    @property
    def horizon(self) -> int:
        """H."""
        return self.card.model.horizon

    @property
    def execute_horizon(self) -> int:
        """Actions to play before the next chunk."""
        return self.card.execute_horizon

    @property
    def instructions(self) -> tuple[str, ...]:
        """Sentences it was trained on."""
        return self.card.instructions

    @torch.inference_mode()
    def sample(self, observation: Observation, *, explore: bool, seed: int) -> Sample:
        """Draw one chunk; see `ServedPolicy.sample`."""
        self._check(observation)
        generator = torch.Generator().manual_seed(seed)
        shape = (1, self.horizon, self.card.model.action_dim)
        noise, sde_noise = torch.randn(2, *shape, generator=generator)
        index = torch.randint(self.card.denoise_steps, (1,), generator=generator)
        index = index if explore else torch.full_like(index, -1)
        state = observation.state[None]
        draw = self.draw(self.features(state), self.prefix(observation), noise, sde_noise, index)
        return Sample(
            actions=self.to_actions(draw.chain[:, -1], state)[0],
            chain=draw.chain[0].numpy(),
            sde_index=int(index),
            log_prob=draw.log_prob[0].numpy(),
            std=float(draw.std[0, 0, 0]),
            noise_level=self.card.noise_level if explore else 0.0,
            value=float("nan"),  # the critic wants the elapsed share of the episode, which a service does not know
            seed=seed,
        )

    def draw(
        self, features_NF: Array, prefix: Prefix, noise_NHD: Tensor, sde_noise_NHD: Tensor, index_N: Tensor
    ) -> Draw:
        """Denoise a batch; index -1 makes a sample deterministic. See `algorithm.sample.hybrid_sample`."""
        state_NF = torch.from_numpy(features_NF)

        def velocity(x_NHD: Tensor, t_N: Tensor) -> Tensor:
            return self.model.velocity(prefix, state_NF, x_NHD, t_N)

        return hybrid_sample(velocity, noise_NHD, sde_noise_NHD, index_N, self.card.denoise_steps, self.transition)

    @property
    def transition(self) -> Transition:
        """The exploration's denoise step: sampling and log-prob both use it."""
        return partial(flow_sde.transition, noise_level=self.card.noise_level)

    def features(self, state_NS: Array) -> Array:
        """State vectors in SI units [N, S] -> model input [N, F]."""
        return self.processor.features(state_NS)

    def to_actions(self, x_NHA: Tensor, state_NS: Array) -> Array:
        """Model-space actions -> contract units; see `Processor.to_actions`."""
        return self.processor.to_actions(x_NHA, state_NS)

    def to_model(self, actions_NHD: Array, state_NS: Array) -> Tensor:
        """Contract units -> model-space actions; see `Processor.to_model`."""
        return self.processor.to_model(actions_NHD, state_NS)

    def prefix(self, observation: Observation) -> Prefix:
        """Prefix of one observation; from the cache when only the instruction counts."""
        if self.card.model.vision is not None or self.processor.state_in_prompt:
            return self.prefixes([observation])
        if observation.instruction not in self._prefixes:
            if len(self._prefixes) >= MAX_CACHED_PREFIXES:
                self._prefixes.clear()
            self._prefixes[observation.instruction] = self.prefixes([observation])
        return self._prefixes[observation.instruction]

    def prefixes(self, observations: Sequence[Observation]) -> Prefix:
        """One prefix row per observation."""
        state_NS = np.stack([each.state for each in observations])
        ids, mask = self.processor.prompts([each.instruction for each in observations], state_NS)
        if self.card.model.vision is None:
            return self.model.encode_prefix(None, None, ids, mask)
        return self.model.encode_prefix(*self.images(observations), ids, mask)

    @torch.no_grad()
    def prefix_table(self, instructions: tuple[str, ...]) -> Prefix:
        """One prefix row per instruction, to select from by index, where nothing else is in the prefix."""
        assert not self.processor.state_in_prompt
        ids, mask = self.prompt_tokens(instructions)
        return self.model.encode_prefix(None, None, ids, mask)

    def prompt_tokens(self, instructions: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of instructions, each [number of instructions, L], without a state in the prompt."""
        assert not self.processor.state_in_prompt
        nothing = np.zeros((len(instructions), self.contract.state_dim), np.float32)
        return self.processor.prompts(instructions, nothing)

    def images(self, observations: Sequence[Observation]) -> tuple[Tensor, Tensor]:
        """Camera images [N, C, 3, h, w] in model range and which of them exist [N, C]."""
        names = [camera.name for camera in self.contract.cameras]
        return self.scale_images({name: np.stack([each.images[name] for each in observations]) for name in names})

    def scale_images(self, images: Images) -> tuple[Tensor, Tensor]:
        """uint8 [N, h, w, 3] by camera -> what `images` returns."""
        return self.processor.images(images)

    def _check(self, observation: Observation) -> None:
        """What the network does not look at is the service's to check: simulators leave unused cameras out."""
        if self.card.model.vision is None:
            self.contract.check_state(observation)
        else:
            self.contract.check(observation)
