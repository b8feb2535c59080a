"""Float32 weights while a model learns, and the dtypes that its checkpoint is saved in.

An optimiser's step is far below the resolution of bfloat16: at a learning rate of 5e-6 one weight in fifty would move,
and the rest stay where they are, however many steps come. So a half of the model that learns is float32 from the
checkpoint's loading to its saving, in the learner and in the rollouts, whose policy must be the same function. A half
that does not learn keeps its dtype.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pirl_server.config.training import Part, SavedDtype
from pirl_server.model.flow_model import FlowModel
from pirl_server.model.layers.lora import merged_state_dict
from pirl_server.policy.checkpoint import StateDict, load_checkpoint


def widen(model: FlowModel, vlm: Part, expert: Part) -> None:
    """Make the halves that learn, wholly or by adapters, float32 in place; wider ones stay as they are.

    Adapters are added to the weights of their layer when they are merged: so these are float32 as well.
    """
    for name, parameter in model.named_parameters():
        if (vlm if name.startswith(model.VLM_PARTS) else expert) != "frozen":
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))


def saved_weights(model: FlowModel, saved_dtype: SavedDtype, base: Path | None) -> tuple[StateDict, dict[str, str]]:
    """The plain model's tensors as they are saved, of any shape, and what the lineage says of their dtype.

    "base" gives each tensor the dtype that it has in the checkpoint `base`; without one that is float32. The lineage
    then counts what rounding left of the training.
    """
    weights = merged_state_dict(model)
    if saved_dtype == "float32" or base is None:
        return weights, {"saved_dtype": "float32"}
    _, stored, _ = load_checkpoint(base)
    rounded = {name: tensor.to(stored[name].dtype) for name, tensor in weights.items()}
    narrowed = [name for name, tensor in weights.items() if tensor.dtype != rounded[name].dtype]
    trained = sum(weights[name].numel() for name in narrowed)
    moved = sum(int((rounded[name] != stored[name]).sum()) for name in narrowed)
    share = f", {moved / trained:.1%} of the trained weights differ from the base's" if trained else ""
    return rounded, {"saved_dtype": f"base{share}"}
