"""Prefixes padded and stacked: more tokens that do not exist, the same velocity."""

from __future__ import annotations

from dataclasses import replace

import torch

from pirl_server.model.prefix import Prefix


def prefix(rows: int, tokens: int, pooled: bool = False) -> Prefix:
    random = torch.Generator().manual_seed(tokens)
    keys, values = torch.randn(2, 3, rows, 1, tokens, 4, generator=random)
    mask = torch.ones(rows, tokens, dtype=torch.bool)
    mean = torch.randn(rows, 5, generator=random) if pooled else None
    return Prefix(keys, values, mask, mask.sum(dim=1), mean, full=True)


def test_padding_appends_tokens_that_do_not_exist() -> None:
    short = prefix(2, 3, pooled=True)
    longer = short.padded(5)
    assert torch.equal(longer.keys[..., :3, :], short.keys)
    assert torch.equal(longer.values[..., :3, :], short.values)
    assert longer.mask.tolist() == [[True] * 3 + [False] * 2] * 2
    assert longer.count.tolist() == [3, 3]
    assert longer.pooled is short.pooled
    assert not longer.full
    assert short.padded(3) is short


def test_stacked_rows_are_those_of_the_parts() -> None:
    parts = [prefix(1, 3, pooled=True), prefix(2, 5, pooled=True)]
    stacked = Prefix.stack(parts)
    assert stacked.mask.shape == (3, 5)
    assert stacked.count.tolist() == [3, 5, 5]
    assert not stacked.full
    for rows, part in ((torch.tensor([0]), parts[0]), (torch.tensor([1, 2]), parts[1])):
        chosen, expected = stacked.select(rows), part.padded(5)
        for name in ("keys", "values", "mask", "count", "pooled"):
            assert torch.equal(getattr(chosen, name), getattr(expected, name)), name
    assert Prefix.stack([parts[1], parts[1]]).full
    assert Prefix.stack([parts[0], replace(parts[1], pooled=None)]).pooled is None
