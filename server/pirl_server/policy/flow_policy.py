"""Inference for one loaded checkpoint: features, prefix, K denoise steps, actions in the contract's units.

The prefix (vision and language, frozen in RL) is computed once per observation, and once per instruction when the
model has no camera: then it serves a whole episode, every rollout and every PPO epoch.

The model may live on another device: what goes in is moved there, what comes out is moved back, and noise is drawn on
the CPU, so that a seed means the same everywhere.

Shape letters: N robots or environments, H horizon, D the contract's actions, A the model's, F features, S state,
K denoise steps, C cameras, L prompt tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pirl_contract import Contract, Observation
from pirl_server.algorithm import flow_sde
from pirl_server.algorithm.flow import Transition
from pirl_server.algorithm.hybrid_sampler import Draw, hybrid_sample
from pirl_server.model import families
from pirl_server.model.flow_model import ChunkDenoiser, ChunkInputs, FlowModel
from pirl_server.model.noise_actor import NoiseActor
from pirl_server.model.prefix import Prefix
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint, load_noise_actor
from pirl_server.policy.compiled_chunks import TOKENS_TO_SPARE, CompiledChunks
from pirl_server.policy.condition import ConditionedProcessor, GuidedDenoiser, paired, pairs, without_condition
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.pretrained_processor import PretrainedProcessor
from pirl_server.policy.processing_spec import PRETRAINED
from pirl_server.policy.processor import Array, Images, Processor
from pirl_server.policy.rtc import sample_continued
from pirl_server.policy.served_policy import BATCH_SIZES, PolicyRequest, PolicySample
from pirl_server.policy.statistics_check import FirstObservations
from pirl_server.policy.tabletop_processor import TabletopProcessor

_LOG = logging.getLogger(__name__)
MAX_CACHED_PREFIXES = 64


class Noise(NamedTuple):
    """What is drawn for a batch before the network is asked."""

    start_NHA: Tensor
    """the chain's first latent, at t = 1"""
    sde_NHA: Tensor
    """of the one stochastic step"""
    index_N: Tensor
    """which of the K steps that is; -1 where the ask does not explore"""


class FlowPolicy:
    """`ServedPolicy` over a flow model of any family. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        card: ModelCard,
        model: FlowModel,
        version: str,
        processor: Processor | None = None,
        noise_actor: NoiseActor | None = None,
    ) -> None:
        """Without a processor the card's is made, which then must not need a file."""
        self.card, self.model, self.version = card, model.eval(), version
        self.processor: Processor = make_processor(card, None) if processor is None else processor
        self.noise_actor = noise_actor
        """what chooses the noise that a chunk starts from; None: nothing does"""
        self._compiled: CompiledChunks | None = None
        self._prefixes: dict[str, Prefix] = {}
        names = [entry.name for entry in card.contract.state]
        self._first = FirstObservations(card.processing.state, names) if card.processing is not None else None

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> FlowPolicy:
        """Read a checkpoint folder; weights keep their stored dtype and are not copied on the CPU.

        Raises ValueError that names the file or tensor at fault, or the device that this machine lacks.
        """
        card, weights, _ = load_checkpoint(folder)
        processor, actor = make_processor(card, folder), _noise_actor(card, folder)
        with torch.device("meta"):
            model: FlowModel = families.build(card.model)
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()[:200]
            raise ValueError(f"'{folder}': weights do not fit the card's model: {first}") from error
        try:
            model.to(device)
            if actor is not None:
                actor.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device '{device}' can't be used: {str(error).splitlines()[0]}") from error
        return cls(card, model, checkpoint_version(folder), processor, actor)

    def compile(self, backend: str | Callable[..., Any] = "inductor", sizes: Sequence[int] = BATCH_SIZES) -> bool:
        """Draw plain chunks of up to `sizes` rows by compiled passes from now on, if they agree with eager ones.

        Returns whether they do. A policy without a camera stays as it is: its prefix is computed once per instruction.
        So does one of a family without compiled passes.
        Takes minutes. Raises RuntimeError when this machine can't compile.
        """
        no_way = families.FAMILIES[self.card.model.family].compile is None
        if no_way or self.card.model.vision is None or self.guided or self.noise_actor is not None:
            return False
        contract, known = self.contract, self.instructions or ("",)
        pixels = np.random.default_rng(0)
        images = {c.name: pixels.integers(256, size=(c.height, c.width, 3), dtype=np.uint8) for c in contract.cameras}
        state_NS = np.zeros((len(known), contract.state_dim), np.float32)
        seen = [Observation(images, state, said) for said, state in zip(known, state_NS)]
        inputs = self._inputs(seen, state_NS, torch.randn(len(known), self.horizon, self.card.model.action_dim))
        tokens = min(int(inputs.token_mask.sum(dim=1).max()) + TOKENS_TO_SPARE, self.card.model.max_tokens)
        assert inputs.images is not None
        cameras, steps = inputs.images.shape[1], self.card.denoise_steps
        chunks = CompiledChunks(self.model, cameras, steps, tokens, sizes, backend)
        few = inputs.rows(max(sizes))
        self._compiled = chunks if chunks.agrees(few, self.name) else None
        return self._compiled is not None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

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

    @property
    def continuations(self) -> tuple[str, ...]:
        """Guidance asks nothing of the training, a prefix does."""
        return ("guided", "prefix") if self.card.prefix_delay else ("guided",)

    def sample(self, observation: Observation, *, explore: bool, seed: int) -> PolicySample:
        """Draw one chunk; see `ServedPolicy.sample`."""
        (answer,) = self.sample_batch([PolicyRequest(observation, explore, seed)])
        if isinstance(answer, ValueError):
            raise answer
        return answer

    @torch.inference_mode()
    def sample_batch(self, asks: Sequence[PolicyRequest]) -> list[PolicySample | ValueError]:
        """Draw one chunk per ask in one pass; returns when the device has finished. See `ServedPolicy.sample_batch`."""
        faults = [self._fault(ask) for ask in asks]
        anew = [ask for ask, fault in zip(asks, faults) if fault is None and ask.continuation is None]
        going_on = [ask for ask, fault in zip(asks, faults) if fault is None and ask.continuation is not None]
        drawn = iter(self._draw_rows(anew) if anew else ())
        continued = iter(sample_continued(self, going_on) if going_on else ())
        return [
            fault if fault is not None else next(drawn if ask.continuation is None else continued)
            for ask, fault in zip(asks, faults)
        ]

    def _draw_rows(self, asks: Sequence[PolicyRequest]) -> list[PolicySample]:
        rows = self.padded(asks)
        observations = [ask.observation for ask in rows]
        state_NS = np.stack([each.state for each in observations])
        noises = self.noise(rows)
        draw = self._compiled_draw(observations, state_NS, noises)
        if draw is None:
            draw = self.draw(self.features(state_NS), self._prefix_rows(observations), *noises)
        actions_NHD = self.to_actions(draw.chain[:, -1], state_NS)
        return [
            PolicySample(
                actions=actions_NHD[row].copy(),  # a row that is kept must not keep the whole batch
                chain=draw.chain[row].clone().numpy(),
                sde_index=int(noises.index_N[row]),
                log_prob=draw.log_prob[row].clone().numpy(),
                std=float(draw.std[row, 0, 0]),
                noise_level=self.card.noise_level if ask.explore else 0.0,
                value=float("nan"),  # the critic wants the elapsed share of the episode, which a service does not know
                seed=ask.seed,
            )
            for row, ask in enumerate(asks)
        ]

    def _compiled_draw(self, observations: Sequence[Observation], state_NS: Array, noises: Noise) -> Draw | None:
        """None where these are to be drawn eagerly."""
        if self._compiled is None or bool((noises.index_N >= 0).any()):
            return None
        chain = self._compiled.chain(self._inputs(observations, state_NS, noises.start_NHA))
        if chain is None:
            return None
        nothing_NHA = torch.zeros_like(noises.start_NHA)
        return Draw(chain.cpu(), nothing_NHA, nothing_NHA)

    def _inputs(self, observations: Sequence[Observation], state_NS: Array, noise_NHA: Tensor) -> ChunkInputs:
        """What the network reads, where it is."""
        prompts = self.processor.prompts([each.instruction for each in observations], state_NS)
        parts = (*self.images(observations), *prompts, torch.from_numpy(self.features(state_NS)), noise_NHA)
        return ChunkInputs(*(part.to(self.device) for part in parts))

    def padded(self, asks: Sequence[PolicyRequest]) -> Sequence[PolicyRequest]:
        """The rows of a pass for these: as many on the CPU, whose kernels take any shape at its own cost."""
        return asks if self.device.type == "cpu" else pad_to_batch_size(asks)

    def noise(self, asks: Sequence[PolicyRequest]) -> Noise:
        """Draw each row from a generator of its own, on the CPU: neither the other rows nor the device change it."""
        rows, steps = [], self.card.denoise_steps
        for ask in asks:
            generator = torch.Generator().manual_seed(ask.seed)
            start, sde = torch.randn(2, 1, self.horizon, self.card.model.action_dim, generator=generator)
            index = torch.randint(steps, (1,), generator=generator)
            rows.append(Noise(start, sde, index if ask.explore else torch.full_like(index, -1)))
        return Noise(*(torch.cat(parts) for parts in zip(*rows)))

    def draw(
        self, features_NF: Array, prefix: Prefix, noise_NHA: Tensor, sde_noise_NHA: Tensor, index_N: Tensor
    ) -> Draw:
        """Denoise a batch; index -1 makes a sample deterministic. See `algorithm.hybrid_sampler.hybrid_sample`.

        For inference: no gradient passes. The prefix is where the model is, everything else on the CPU.
        """
        device = self.device
        state, noise, sde_noise, index = (
            part.to(device) for part in (torch.from_numpy(features_NF), noise_NHA, sde_noise_NHA, index_N)
        )
        noise, velocity = self.steer(noise, state, prefix), self.denoiser(prefix, state)
        draw = hybrid_sample(velocity, noise, sde_noise, index, self.card.denoise_steps, self.transition)
        return Draw(*(part.cpu() for part in draw))

    def denoiser(self, prefix: Prefix, state_NF: Tensor, given_NH: Tensor | None = None) -> ChunkDenoiser:
        """Velocity for inference over the rows of `prefixes`; actions that are `given` have time 0 throughout."""
        steps = self.card.denoise_steps
        if not self.guided:
            return self.model.denoiser(prefix, state_NF, steps, given_NH)
        assert self.card.guidance is not None
        both = pairs(prefix, len(state_NF))
        given = None if given_NH is None else given_NH.repeat_interleave(2, dim=0)
        inner = self.model.denoiser(both, state_NF.repeat_interleave(2, dim=0), steps, given)
        return GuidedDenoiser(inner, self.card.guidance)

    def steer(self, noise_NHA: Tensor, features_NF: Tensor, prefix: Prefix) -> Tensor:
        """The noise that chunks start from [N, H, A]: as drawn, or as the noise actor makes it."""
        if self.noise_actor is None:
            return noise_NHA
        assert prefix.pooled is not None
        rows = prefix.pooled[0::2] if self.guided else prefix.pooled
        return self.noise_actor.steer(noise_NHA, features_NF, rows.float())

    @property
    def guided(self) -> bool:
        """Whether each observation has two prefix rows, and the velocity is of both."""
        return self.card.guidance not in (None, 1.0)

    @property
    def transition(self) -> Transition:
        """The exploration's denoise step: sampling and log-prob both use it."""
        return partial(flow_sde.transition, noise_level=self.card.noise_level)

    def features(self, state_NS: Array) -> Array:
        """State vectors in SI units [N, S] -> model input [N, F]."""
        return self.processor.features(state_NS)

    def to_actions(self, x_NHA: Tensor, state_NS: Array) -> Array:
        """Model-space actions -> contract units; see `Processor.to_actions`. Returns [N, H, D]."""
        return self.processor.to_actions(x_NHA, state_NS)

    def to_model(self, actions_NHD: Array, state_NS: Array) -> Tensor:
        """Contract units -> model-space actions; see `Processor.to_model`. Returns [N, H, A]."""
        return self.processor.to_model(actions_NHD, state_NS)

    @property
    def own_prefix(self) -> bool:
        """Whether each observation has a prefix of its own; else the instruction's serves a whole run."""
        return self.card.model.vision is not None or self.processor.state_in_prompt

    def prefix(self, observation: Observation) -> Prefix:
        """Prefix of one observation; from the cache when only the instruction counts."""
        if self.own_prefix:
            return self.prefixes([observation])
        if observation.instruction not in self._prefixes:
            if len(self._prefixes) >= MAX_CACHED_PREFIXES:
                self._prefixes.clear()
            self._prefixes[observation.instruction] = self.prefixes([observation])
        return self._prefixes[observation.instruction]

    def _prefix_rows(self, observations: Sequence[Observation]) -> Prefix:
        """Row per observation; one row for all of them where they share the instruction's."""
        if self.own_prefix:
            return self.prefixes(observations)
        rows = [self.prefix(each) for each in observations]
        return rows[0] if all(row is rows[0] for row in rows) else Prefix.stack(rows)

    def prefixes(self, observations: Sequence[Observation], *, pooled: bool = False) -> Prefix:
        """One prefix row per observation, two where `guided`; `pooled` with the mean output that V_vlm reads."""
        state_NS = np.stack([each.state for each in observations])
        said = [each.instruction for each in observations]
        prompts = self.processor.prompts(said, state_NS)
        seen = self.images(observations) if self.card.model.vision is not None else None
        if self.guided:
            plain = without_condition(self.processor).prompts(said, state_NS)
            prompts = (paired(prompts[0], plain[0]), paired(prompts[1], plain[1]))
            seen = seen and (seen[0].repeat_interleave(2, dim=0), seen[1].repeat_interleave(2, dim=0))
        return self._encode(seen or (None, None), prompts, pooled or self.noise_actor is not None)

    @torch.no_grad()
    def prefix_table(self, instructions: tuple[str, ...], *, pooled: bool = False) -> Prefix:
        """One prefix row per instruction, to select from by index, where nothing else is in the prefix."""
        assert not self.processor.state_in_prompt
        return self._encode((None, None), self.prompt_tokens(instructions), pooled)

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
        """uint8 [N, h, w, 3] by camera -> what `images` returns. Pixels [N, C, 3, h, w] and which exist [N, C]."""
        return self.processor.images(images)

    def _encode(
        self, images: tuple[Tensor | None, Tensor | None], prompts: tuple[Tensor, Tensor], pooled: bool = False
    ) -> Prefix:
        device = self.device
        pixels, exist = (None if part is None else part.to(device) for part in images)
        ids, mask = (part.to(device) for part in prompts)
        return self.model.encode_prefix(pixels, exist, ids, mask, pooled=pooled)

    def _compare(self, observation: Observation) -> None:
        """Log whether the statistics fit. What has no capture time comes from no robot: a warm-up, a simulator."""
        if self._first is not None and observation.capture_time_ns:
            for line in self._first.add(observation.state):
                _LOG.log(logging.WARNING if self._first.odd else logging.INFO, "%s: %s", self.name, line)

    def _fault(self, ask: PolicyRequest) -> ValueError | None:
        """Why this ask can't have a row; what can is compared with the statistics.

        What the network does not look at is the service's to check: simulators leave unused cameras out.
        """
        observation = ask.observation
        try:
            if self.card.model.vision is None:
                self.contract.check_state(observation.state)
            else:
                self.contract.check(observation)
            if self.own_prefix:
                self.processor.prompts([observation.instruction], observation.state[None])
            else:
                self.prefix(observation)
        except ValueError as error:
            return error
        self._compare(observation)
        return None


def pad_to_batch_size(asks: Sequence[PolicyRequest]) -> list[PolicyRequest]:
    """Repeat the last ask up to the next of `BATCH_SIZES`: an accelerator then meets only shapes it was warmed at."""
    size = next((size for size in BATCH_SIZES if size >= len(asks)), len(asks))
    return [*asks, *[asks[-1]] * (size - len(asks))]


def _noise_actor(card: ModelCard, folder: Path) -> NoiseActor | None:
    """The checkpoint's, if it has one. Raises ValueError for one of other sizes."""
    if (weights := load_noise_actor(folder)) is None:
        return None
    actor = make_noise_actor(card)
    try:
        actor.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"'{folder}': its noise actor does not match this model") from error
    return actor.eval()


def make_noise_actor(card: ModelCard) -> NoiseActor:
    """A fresh one, which changes nothing."""
    model = card.model
    return NoiseActor(model.state_dim, model.vlm.width, model.horizon, card.contract.action_dim)


def make_processor(card: ModelCard, folder: Path | None) -> Processor:
    """What stands between the card's contract and its model; `folder` is where the tokenizer's file lies, if any."""
    plain: Processor = PretrainedProcessor(card, folder) if card.features == PRETRAINED else TabletopProcessor(card)
    return plain if card.guidance is None else ConditionedProcessor(plain)
