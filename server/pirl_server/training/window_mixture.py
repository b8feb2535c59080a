"""How often each window is drawn: stated shares of demonstrations, takeovers and the policy's own decisions.

A log has a hundred of the policy's steps for each that a human corrected; drawn as they come, corrections are not
learnt. Shape letter: M windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pirl_server.config.training import MixtureConfig
from pirl_server.training.episode_dataset import EpisodeWindows


def origins(data: EpisodeWindows) -> dict[str, Tensor]:
    """Return which windows [M] are of a takeover (a human's in an episode that the policy also drove), a demonstration
    (a human's in one that it did not), and the policy's own.
    """  # fmt: skip
    policy_drove = torch.zeros(len(data.infos), dtype=torch.bool)
    policy_drove[data.episode[~data.human]] = True
    mixed = policy_drove[data.episode]
    return {"takeover": data.human & mixed, "demonstration": data.human & ~mixed, "policy": ~data.human}


def sampling_share(data: EpisodeWindows, config: MixtureConfig, among: Tensor | None = None) -> Tensor | None:
    """Return how often each window is drawn [M], adding up to 1; None: all alike.

    `among` [M] bool are those that are drawn at all. Windows of an origin with a stated share have it together; the
    others share the rest as they come. With `balance_tasks` the instructions within each of these parts are drawn
    alike. Raises ValueError for a share of an origin that no window has, and when nothing is left for the rest.
    """
    drawn = torch.ones(len(data), dtype=torch.bool) if among is None else among
    if not drawn.any():
        raise ValueError("no window is left to learn from: all of it was the policy's, before a takeover")
    stated = {"takeover": config.takeover_share, "demonstration": config.demonstration_share}
    parts = [(name, origins(data)[name] & drawn, share) for name, share in stated.items() if share is not None]
    if not parts and not config.balance_tasks and bool(drawn.all()):
        return None
    rest, left = drawn.clone(), 1.0
    for _, mine, share in parts:
        rest, left = rest & ~mine, left - share
    if left > 1e-9 or rest.any():
        parts.append(("other", rest, max(0.0, left)))
    found = torch.zeros(len(data))
    for name, mine, share in parts:
        if not mine.any() and share > 1e-9:
            raise ValueError(
                f"{share:g} of each batch is to be of {name} windows, and there is none: change takeover_share or"
                " demonstration_share"
            )
        found += share * _within(mine, data.task, config.balance_tasks)
    return found


def _within(mine: Tensor, task: Tensor, balance: bool) -> Tensor:
    """Equal shares [M] of these windows that add up to 1; with `balance` those of each task add up to the same."""
    found = torch.zeros(len(mine))
    tasks = torch.unique(task[mine]).tolist() if balance else [None]
    for each in tasks:
        part = mine if each is None else mine & (task == each)
        found[part] = 1.0 / (len(tasks) * max(1, int(part.sum())))
    return found
