"""Selects the trainable weights: all of a half of the model, low-rank adapters in it, or none."""

from __future__ import annotations

from torch import nn

from pirl_server.config.training import FlowMatchingConfig
from pirl_server.model.flow_model import FlowModel
from pirl_server.model.layers.lora import DOWN, UP, LoraConfig, adapt
from pirl_server.training.master_weights import widen


def freeze_and_adapt(model: FlowModel, config: FlowMatchingConfig) -> list[nn.Parameter]:
    """Freeze and adapt the model as the config says, in place; return what learns, in float32.

    Raises ValueError when nothing would.
    """
    widen(model, config.vlm, config.expert)
    modes = {model.VLM_TOWER: config.vlm, model.EXPERT_TOWER: config.expert}
    if towers := tuple(tower for tower, mode in modes.items() if mode == "lora"):
        adapt(model, LoraConfig(config.lora_rank, config.lora_alpha, towers))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_learns(model, name, config))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("vlm and expert are both 'frozen': no parameter is left to train")
    return parameters


def _learns(model: FlowModel, name: str, config: FlowMatchingConfig) -> bool:
    if name.endswith((DOWN, UP)):
        return True
    if name.startswith(model.VLM_PARTS):
        return config.vlm == "train"
    around = not name.startswith(f"{model.EXPERT_TOWER}.")
    return config.expert == "train" or (config.expert == "lora" and around)
