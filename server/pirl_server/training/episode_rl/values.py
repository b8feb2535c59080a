"""Values of logged decisions by critics that have not seen the episode they judge, and advantages over whole episodes.

A critic that has seen an episode overfits its outcome, and every advantage of it would be nearly 0.

Shape letters: M decisions of all episodes, F what the critic reads, W width of the prefix' outputs, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pirl_server.algorithm.advantage import normalise
from pirl_server.algorithm.gae import gae
from pirl_server.algorithm.metrics import explained_variance
from pirl_server.model.critic import StateCritic
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_log import MoreEpisodesNeededError

FOLDS = 4
ENCODED = 32
"""observations whose images are encoded at a time"""

Loss = Callable[[Tensor, Tensor], Tensor]
"""what a critic says of some rows, their row numbers -> a scalar with a gradient"""


@torch.no_grad()
def critic_reading(policy: FlowPolicy, windows: ChunkDataset, task_M: Tensor, elapsed_M: Tensor) -> Tensor:
    """What a critic reads of each decision [M, F]: what the policy reads, which task it has, the elapsed share.

    Of a policy with a camera, the mean output of its prefix is among it: such a critic sees what the policy sees.
    """
    parts = [windows.features]
    if windows.images is not None:
        parts.append(pooled(policy, windows))
    if int(task_M.max()):
        parts.append(nn.functional.one_hot(task_M).to(windows.features.dtype))
    return torch.cat([*parts, elapsed_M[:, None]], dim=1)


@torch.no_grad()
def pooled(policy: FlowPolicy, windows: ChunkDataset) -> Tensor:
    """Mean output of each window's prefix [M, W]: what the policy sees and is asked for."""
    seen, device = windows.images, policy.device
    rows_M = torch.arange(len(windows.tokens) if seen is None else len(windows))
    found = []
    for rows in torch.split(rows_M, ENCODED):
        pixels, exist, prompt = None, None, rows
        if seen is not None:
            images = policy.scale_images({name: each[rows.numpy()] for name, each in seen.items()})
            pixels, exist, prompt = images[0].to(device), images[1].to(device), windows.prompt[rows]
        tokens, mask = windows.tokens[prompt].to(device), windows.token_mask[prompt].to(device)
        prefix = policy.model.encode_prefix(pixels, exist, tokens, mask, pooled=True)
        assert prefix.pooled is not None
        found.append(prefix.pooled.float().cpu())
    whole = torch.cat(found)
    return whole[windows.prompt] if seen is None else whole


def held_out_values(
    reading_MF: Tensor, target_M: Tensor, episode_M: Tensor, known_M: Tensor, steps: int, seed: int
) -> tuple[Tensor, float]:
    """Value [M] of each decision by a regression that has not seen its episode, and its explained variance.

    Only rows whose target is `known` are fitted to; all get a value.
    """

    def squared(found_B: Tensor, rows_B: Tensor) -> Tensor:
        return ((found_B - target_M[rows_B]) ** 2).mean()

    def critic() -> nn.Module:
        return StateCritic(reading_MF.shape[1] - 1, hidden=64)

    value_M = held_out(reading_MF, episode_M, known_M, critic, squared, steps, seed)
    return value_M, float(explained_variance(value_M, target_M, known_M))


def held_out(
    reading_MF: Tensor,
    episode_M: Tensor,
    known_M: Tensor,
    make: Callable[[], nn.Module],
    loss: Loss,
    steps: int,
    seed: int,
) -> Tensor:
    """What critics say of each decision [M, ...], each of the episodes that it was not fitted to.

    Episodes are dealt to `FOLDS` folds by their number; `make` gives a fresh critic over (features, elapsed). Raises
    MoreEpisodesNeededError when a fold leaves nothing `known` to fit to.
    """
    generator = torch.Generator().manual_seed(seed)
    found: Tensor | None = None
    for fold in range(FOLDS):
        mine_M = episode_M % FOLDS == fold
        if not mine_M.any():
            continue
        train = torch.nonzero(~mine_M & known_M)[:, 0]
        if not len(train):
            raise MoreEpisodesNeededError(
                "no episode is left to fit a critic to that judges the others: log more episodes"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed + fold)
            fresh = make()
        critic = _fitted(reading_MF, train, fresh, loss, steps, generator)
        with torch.no_grad():
            said = critic(reading_MF[mine_M, :-1], reading_MF[mine_M, -1])
        found = torch.zeros(len(reading_MF), *said.shape[1:]) if found is None else found
        found[mine_M] = said
    assert found is not None
    return found


def _fitted(
    reading_MF: Tensor, rows: Tensor, critic: nn.Module, loss: Loss, steps: int, generator: torch.Generator
) -> nn.Module:
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, weight_decay=1e-3)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (min(256, len(rows)),), generator=generator)]
        error = loss(critic(reading_MF[batch, :-1], reading_MF[batch, -1]), batch)
        optimizer.zero_grad(set_to_none=True)
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return critic


def discounted_outcomes(reward_M: Tensor, last_M: Tensor, gamma: float) -> Tensor:
    """Discounted sum of rewards to the end of each stretch [M]; `last_M` marks where stretches end."""
    found_M, carry = torch.zeros_like(reward_M), torch.zeros(())
    for row in reversed(range(len(reward_M))):
        carry = reward_M[row] + (0.0 if last_M[row] else gamma * carry)
        found_M[row] = carry
    return found_M


def in_stretches(marked_M: Tensor, last_M: Tensor) -> Tensor:
    """Which decisions are of a stretch whose last one is marked [M] bool."""
    found_M, carry = torch.zeros_like(last_M), torch.zeros((), dtype=torch.bool)
    for row in reversed(range(len(last_M))):
        carry = marked_M[row] if last_M[row] else carry
        found_M[row] = carry
    return found_M


def stretch_advantages(
    reward_M: Tensor, value_M: Tensor, last_M: Tensor, cut_M: Tensor, after_M: Tensor, gamma: float, lam: float
) -> Tensor:
    """GAE [M] over decisions in time order, stretch after stretch.

    At a stretch's `last` decision the value after it is 0, or `after` where it was `cut` rather than ended.
    """
    ended, cut, after = ((part[:, None]) for part in (last_M & ~cut_M, last_M & cut_M, after_M))
    reward, value, everyone = reward_M[:, None], value_M[:, None], torch.ones_like(last_M)[:, None]
    advantage, _ = gae(reward, value, torch.zeros(1), ended, cut, after, everyone, gamma=gamma, lam=lam)
    return advantage[:, 0]


def per_task(advantage_M: Tensor, task_M: Tensor, counted_M: Tensor) -> Tensor:
    """Advantages normalised over the counted decisions of each task, 0 elsewhere: tasks then weigh alike [M]."""
    scaled_M = torch.zeros_like(advantage_M)
    for task in torch.unique(task_M):
        mine_M = counted_M & (task_M == task)
        scaled_M = torch.where(mine_M, normalise(advantage_M, mine_M), scaled_M)
    return scaled_M
