"""The protocol between the contract's units and the model's tensors. The card selects the implementation.

Shape letters: N robots or environments, C cameras, H horizon, D the contract's actions, A the model's (A >= D),
S state, F state features, L prompt tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]
Images = Mapping[str, NDArray[np.uint8]]
"""uint8 RGB [N, height, width, 3] by the contract's camera name"""


class Processor(Protocol):
    """Observations in, model tensors out; model outputs in, actions out. Pure: the same input gives the same output."""

    @property
    def state_in_prompt(self) -> bool:
        """Whether the prompt, and so the prefix, changes with the joint state."""

    def features(self, state_NS: Array) -> Array:
        """State vectors in SI units -> the state token's input [N, F] float32."""

    def images(self, images: Images) -> tuple[Tensor, Tensor]:
        """Camera images -> [N, C, 3, h, w] float32 in model range, and which exist [N, C] bool."""

    def prompts(self, instructions: Sequence[str], state_NS: Array) -> tuple[Tensor, Tensor]:
        """Instructions -> token ids [N, L] int64, right-padded, and validity [N, L] bool.

        Raises ValueError for an instruction that does not fit.
        """

    def to_actions(self, x_NHA: Tensor, state_NS: Array) -> Array:
        """Model-space actions -> [N, H, D] in the contract's units. Not clipped: who executes clips and says so.

        The state is the one the chunk was computed from, which relative actions are added to.
        """

    def to_model(self, actions_NHD: Array, state_NS: Array) -> Tensor:
        """Contract units -> model space [N, H, A], zero-padded. Inverse of `to_actions`."""
