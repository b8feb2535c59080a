"""Bytes as tokens: the tokenizer of self-trained small models. It needs no file.

Shape letters: B batch, L prompt tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAD, BOS, EOS, NEWLINE = 256, 257, 258, 259
VOCABULARY = 260


def prompt(instruction: str) -> list[int]:
    """Ids of one instruction in pi0's form: BOS, the cleaned text, then a newline token of its own.

    Cleaned: stripped, underscores and line breaks turned into spaces.
    """
    text = instruction.strip().replace("_", " ").replace("\n", " ")
    return [BOS, *text.encode(), NEWLINE]


def encode(instruction: str, max_tokens: int) -> tuple[Tensor, Tensor]:
    """Right-padded prompt ids [max_tokens] int64 and their validity [max_tokens] bool.

    Raises ValueError when the prompt does not fit: a cut instruction would silently be another one.
    """
    ids = prompt(instruction)
    if len(ids) > max_tokens:
        raise ValueError(
            f"instruction {instruction!r} takes {len(ids)} tokens, the model reads {max_tokens}: shorten it"
        )
    padded = torch.full((max_tokens,), PAD, dtype=torch.long)
    padded[: len(ids)] = torch.tensor(ids)
    return padded, torch.arange(max_tokens) < len(ids)


def encode_all(instructions: list[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """`encode` for several instructions: ids [B, L] and validity [B, L]."""
    ids, masks = zip(*(encode(text, max_tokens) for text in instructions))
    return torch.stack(ids), torch.stack(masks)
