"""Instruction, and for pi0.5 the joint state, to prompt tokens, exactly as in training.

A prompt that does not fit is rejected: openpi cuts it and warns, but half an instruction is another instruction, and a
robot would carry it out.

Shape letters: N prompts, L tokens, S state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pirl_server.policy.processing_spec import PromptFormat
from pirl_server.policy.tokenizer import Tokenizer

BINS = np.linspace(-1.0, 1.0, 257)[:-1]
"""lower edges of the 256 values of one joint"""
LONGEST_BIN = 255
"""three digits, the most tokens that one joint can take"""


class Prompter:
    """Builds the prompts of one card."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        form: PromptFormat,
        clean: bool,
        max_tokens: int,
        embeddings: int,
        state_dim: int = 0,
    ) -> None:
        """`state_dim`: entries of a state in the prompt, zeros behind the robot's own; 0: only those."""
        self._tokenizer, self._form, self._clean, self._state_dim = tokenizer, form, clean, state_dim
        self._max_tokens, self._embeddings = max_tokens, embeddings

    @property
    def holds_state(self) -> bool:
        """Whether the joint state is written into the prompt."""
        return self._form == "pi05"

    def tokens(self, instructions: Sequence[str], state_NS: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
        """Ids [N, L] int64, right-padded, and validity [N, L] bool. The state is normalised, without padding.

        Raises ValueError for an instruction that does not fit, whatever the joints read just now.
        """
        ids = torch.full((len(instructions), self._max_tokens), self._tokenizer.pad, dtype=torch.long)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for row, (instruction, state_S) in enumerate(zip(instructions, state_NS, strict=True)):
            own = self._ids(instruction, state_S)
            ids[row, : len(own)], mask[row, : len(own)] = torch.tensor(own), True
        return ids, mask

    def _ids(self, instruction: str, state_S: NDArray[np.floating]) -> list[int]:
        text = cleaned(instruction) if self._clean else instruction.removesuffix("\n")
        if self.holds_state:
            padding = np.zeros(max(0, self._state_dim - len(state_S)))
            own = self._encode(with_state(text, discretised(np.append(state_S, padding))))
            bins_S = np.append(np.full(len(state_S), LONGEST_BIN), discretised(padding))
            longest = len(self._encode(with_state(text, bins_S)))
        elif self._form == "smolvla":
            own = self._tokenizer.encode(text + "\n")
            longest = len(own)
        else:
            own = [*self._encode(text), *self._tokenizer.newline]
            longest = len(own)
        if max(len(own), longest) > self._max_tokens:
            raise ValueError(
                f"instruction {instruction!r} can take {max(len(own), longest)} tokens, the model reads"
                f" {self._max_tokens}: shorten it"
            )
        if max(own) >= self._embeddings:
            raise ValueError(
                f"instruction {instruction!r} has token {max(own)}, the model has {self._embeddings}: rephrase it"
            )
        return own

    def _encode(self, text: str) -> list[int]:
        return [self._tokenizer.bos, *self._tokenizer.encode(text)]


def cleaned(instruction: str) -> str:
    """Without space around it, underscores and line breaks turned into spaces."""
    return instruction.strip().replace("_", " ").replace("\n", " ")


def discretised(state_S: NDArray[np.floating]) -> NDArray[np.int64]:
    """Bin of each joint: 0..255 over [-1, 1]; above is 255, below -1, as both stacks count. Elementwise."""
    bins: NDArray[np.int64] = np.digitize(state_S, BINS) - 1
    return bins


def with_state(text: str, bins_S: NDArray[np.int64]) -> str:
    """pi0.5's sentence. The space at its end belongs to it."""
    return f"Task: {text}, State: {' '.join(map(str, bins_S.tolist()))};\nAction: "
