"""The options of supervised training: what learns, in which precision, on which dimensions, from which inputs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_arm import INSTRUCTIONS, Heard, spoken_policy, toy_card, toy_policy

from pirl_server.config.training import FlowMatchingConfig
from pirl_server.model import families
from pirl_server.model.layers.lora import merged_state_dict
from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Array, Images
from pirl_server.policy.tabletop_processor import TabletopProcessor
from pirl_server.training.chunk_dataset import ChunkDataset, make_windows
from pirl_server.training.supervised import flow_matching
from pirl_server.training.supervised.flow_matching import fit, learning_rate_share, loss, prefixes

CONFIG = FlowMatchingConfig(steps=3, batch_size=8, learning_rate=3e-3)
COUNT = 12


def windows_for(policy: FlowPolicy, count: int = COUNT) -> ChunkDataset:
    random = np.random.default_rng(0)
    state = random.normal(size=(count, 21)).astype(np.float32) * 0.1
    actions = random.uniform(-0.05, 0.05, size=(count, policy.horizon, 2)).astype(np.float32)
    images: Images | None = None
    if policy.card.model.vision is not None:
        images = {name: random.integers(256, size=(count, 16, 16, 3), dtype=np.uint8) for name in ("base", "wrist")}
    return make_windows(policy, state, [INSTRUCTIONS[row % 2] for row in range(count)], actions, images)


def train(policy: FlowPolicy, **changes: object) -> tuple[dict[str, Tensor], set[str], list[float]]:
    """Weights after training, names of those that changed, losses."""
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    heard = Heard()
    fit(policy, windows_for(policy), replace(CONFIG, **changes), 0, heard)  # type: ignore[arg-type]
    after = merged_state_dict(policy.model)
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    return after, changed, [numbers["loss"] for numbers in heard.numbers]


@pytest.mark.parametrize("sees", [False, True])
@pytest.mark.parametrize(
    ("vlm", "expert"),
    [("train", "train"), ("frozen", "train"), ("lora", "lora"), ("frozen", "lora"), ("lora", "frozen")],
)
@pytest.mark.parametrize("family", ["pi0", "smolvla"])
def test_only_what_is_chosen_learns(family: str, sees: bool, vlm: str, expert: str) -> None:
    if (vlm, expert) == ("frozen", "frozen"):
        return  # refused: below
    policy = toy_policy(sees=sees, family=family)
    plain = {name: tensor.shape for name, tensor in policy.model.state_dict().items()}
    after, changed, losses = train(policy, vlm=vlm, expert=expert, lora_rank=2)
    assert {name: tensor.shape for name, tensor in after.items()} == plain, "the result is a plain model"
    assert np.isfinite(losses).all()
    of_vlm = {name for name in changed if name.startswith(policy.model.VLM_PARTS)}
    of_expert = {name for name in changed if name.startswith("expert.")}
    assert bool(of_vlm) == (vlm != "frozen")
    assert bool(changed - of_vlm) == (expert != "frozen")
    if vlm == "lora":
        assert all(name.endswith("_proj.weight") for name in of_vlm)
    if expert == "lora":
        assert of_expert
        assert all(name.endswith("_proj.weight") for name in of_expert)
        assert "action_out_proj.weight" in changed


@pytest.mark.parametrize("family", ["pi0", "smolvla"])
def test_a_merged_policy_is_the_one_that_was_trained(family: str) -> None:
    policy = toy_policy(sees=True, family=family)
    plain = families.build(policy.card.model).eval()
    after, _, _ = train(policy, vlm="lora", expert="lora", steps=20)
    plain.load_state_dict(after)
    windows, rows = windows_for(policy), torch.arange(COUNT)
    adapted = prefixes(policy, windows, CONFIG, torch.Generator())(rows)
    merged = prefixes(FlowPolicy(policy.card, plain, "plain"), windows, CONFIG, torch.Generator())(rows)
    x, t = torch.randn(COUNT, 2, 2, generator=torch.Generator().manual_seed(0)), torch.full((COUNT,), 0.5)
    with torch.no_grad():
        expected = policy.model.velocity(adapted, windows.features, x, t)
        torch.testing.assert_close(plain.velocity(merged, windows.features, x, t), expected, rtol=0, atol=1e-5)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="both 'frozen'"):
        train(toy_policy(), vlm="frozen", expert="frozen")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="device 'nonsense' can't be used"):
        train(toy_policy(), device="nonsense")


@pytest.mark.parametrize("sees", [False, True])
@pytest.mark.parametrize("vlm", ["train", "frozen"])
@pytest.mark.parametrize("family", ["pi0", "smolvla"])
def test_bfloat16_keeps_float32_weights_and_comes_near(family: str, sees: bool, vlm: str) -> None:
    exact, rough = (toy_policy(sees=sees, family=family) for _ in range(2))
    _, changed, losses = train(exact, steps=1, vlm=vlm)
    after, changed_too, near = train(rough, steps=1, vlm=vlm, precision="bfloat16")
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert changed_too == changed
    assert near[0] == pytest.approx(losses[0], rel=0.02)
    assert near != losses, "negative control: something was computed in another precision"
    gradients = [p.grad for p in rough.model.parameters() if p.grad is not None]
    assert gradients
    assert all(grad.dtype == torch.float32 and torch.isfinite(grad).all() for grad in gradients)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["train", "lora"])
def test_pi05_learns_in_every_mode(mode: str, precision: str) -> None:
    policy = spoken_policy(sees=True)
    start = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    after, changed, losses = train(
        policy, steps=100, vlm=mode, expert=mode, precision=precision, augment=1.0, ema_decay=0.9, lora_rank=4
    )
    assert {name for name in changed if name.startswith("expert.")}
    assert all(after[name].dtype == tensor.dtype for name, tensor in start.items())
    assert losses[-1] < 0.8 * losses[0], losses


def test_saved_weights_are_the_average_when_asked() -> None:
    last, _, losses = train(toy_policy(), steps=20)
    smooth, _, same = train(toy_policy(), steps=20, ema_decay=0.99)
    start = toy_policy().model.state_dict()
    assert losses == same, "the average does not steer the training"
    name = "action_out_proj.weight"
    assert 0 < float((smooth[name] - start[name]).norm()) < float((last[name] - start[name]).norm())


def test_the_learning_rate_rises_then_falls_to_a_twentieth() -> None:
    config = replace(CONFIG, steps=110, warmup_steps=10)
    shares = [learning_rate_share(config, step) for step in range(111)]
    assert shares[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert shares[10] == max(shares) == 1.0
    assert shares[60] == pytest.approx(0.525)
    assert shares[110] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in pairwise(shares[10:]))
    assert learning_rate_share(CONFIG, 0) == 1.0


def test_weight_decay_shrinks_weights() -> None:
    plain, _, _ = train(toy_policy(), steps=20)
    small, _, _ = train(toy_policy(), steps=20, weight_decay=1.0)
    assert float(small["action_in_proj.weight"].norm()) < float(plain["action_in_proj.weight"].norm())


def test_augmentation_changes_what_is_learnt_and_only_with_pictures() -> None:
    for sees in (True, False):
        plain, _, _ = train(toy_policy(sees=sees), steps=2)
        shaken, _, _ = train(toy_policy(sees=sees), steps=2, augment=1.0)
        assert all(torch.equal(plain[name], shaken[name]) for name in plain) == (not sees)


@pytest.mark.parametrize("vlm", ["train", "frozen"])
def test_several_draws_share_one_encoded_picture(vlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each window of a batch comes with so many noises and times, and its own prefix."""
    policy = toy_policy(sees=True)
    windows, encoded, asked = windows_for(policy), [], []
    encode, plain_loss = policy.model.encode_prefix, flow_matching.loss

    def watched_encode(*inputs: Tensor | None, **options: bool) -> Prefix:
        encoded.append(encode(*inputs, **options))
        return encoded[-1]

    def watched_loss(policy: FlowPolicy, windows: ChunkDataset, rows: Tensor, prefix: Prefix, *more: Any) -> Tensor:
        asked.append((rows, prefix.keys))
        return plain_loss(policy, windows, rows, prefix, *more)

    monkeypatch.setattr(policy.model, "encode_prefix", watched_encode)
    monkeypatch.setattr(flow_matching, "loss", watched_loss)
    fit(policy, windows, replace(CONFIG, steps=1, draws=3, vlm=vlm), 0, Heard())  # type: ignore[arg-type]
    ((rows, keys),) = asked
    (prefix,) = encoded
    assert (len(prefix.mask), len(rows)) == (8, 24)
    assert torch.equal(rows.view(3, 8), rows[:8].expand(3, 8))
    assert torch.equal(keys, torch.cat([prefix.keys] * 3, dim=1))


class Padded(TabletopProcessor):
    """Model space is one dimension wider than the robot's."""

    def to_model(self, actions_NHD: Array, state_NS: Array) -> Tensor:
        return torch.nn.functional.pad(super().to_model(actions_NHD, state_NS), (0, 1))


def test_only_the_robot_s_dimensions_are_in_the_loss() -> None:
    card = toy_card()
    wide = replace(card, model=replace(card.model, action_dim=3))
    torch.manual_seed(0)
    policy = FlowPolicy(wide, families.build(wide.model), "wide", Padded(card))
    windows, rows, random = windows_for(policy), torch.arange(COUNT), torch.Generator()
    assert windows.actions.shape == (COUNT, 2, 3)
    value = loss(policy, windows, rows, prefixes(policy, windows, CONFIG, random)(rows), random)
    value.backward()  # type: ignore[no-untyped-call]
    gradient = policy.model.action_out_proj.weight.grad
    assert gradient is not None
    assert float(gradient[:2].abs().max()) > 0
    assert not gradient[2].any(), "nothing is asked of the padding"


def test_a_prompt_with_the_state_is_a_row_of_its_own() -> None:
    policy = spoken_policy()
    windows, plain = windows_for(policy), windows_for(toy_policy())
    assert (len(windows.tokens), len(plain.tokens)) == (COUNT, 2)
    assert plain.prompt.tolist() == [0, 1] * (COUNT // 2)
    rows = torch.tensor([3, 0, 3, 7])
    for vlm in ("train", "frozen"):
        found = prefixes(policy, windows, replace(CONFIG, vlm=vlm, batch_size=5), torch.Generator())(rows)
        alone = policy.model.encode_prefix(None, None, windows.tokens[rows], windows.token_mask[rows])
        assert torch.equal(found.count, alone.count)
        for row, tokens in enumerate(alone.count.tolist()):
            torch.testing.assert_close(found.keys[:, row, :, :tokens], alone.keys[:, row, :, :tokens])
        assert found.keys.requires_grad == (vlm == "train")


def test_an_action_that_may_not_be_learnt_is_in_no_loss() -> None:
    policy, rows = toy_policy(horizon=3), torch.arange(4)
    windows = windows_for(policy, 4)
    masked = replace(windows, valid=torch.tensor([[True, True, False]] * 4))
    prefix = prefixes(policy, windows, CONFIG, torch.Generator())(rows).detach()

    def gradient(data: ChunkDataset, prefix_delay: int = 0) -> Tensor:
        policy.model.zero_grad()
        bias = policy.model.get_parameter("action_out_proj.bias")
        loss(policy, data, rows, prefix, torch.Generator().manual_seed(0), prefix_delay).backward()
        assert bias.grad is not None
        return bias.grad.clone()

    assert not torch.equal(gradient(masked), gradient(windows))
    nothing = replace(windows, valid=torch.tensor([[True, False, False]] * 4))
    assert not gradient(nothing, prefix_delay=2).isnan().any(), "the given actions may be all that is valid"
    one = replace(windows, valid=torch.zeros(4, 3, dtype=torch.bool))
    assert not gradient(one).any()


@pytest.mark.parametrize("valid", [True, False])
def test_a_fresh_target_moves_the_loss_only_where_it_is_valid(valid: bool) -> None:
    """With the velocity cut to 0 the loss is the mean of (noise - action)^2 over the valid actions alone."""
    policy, rows = toy_policy(horizon=3), torch.arange(4)
    torch.nn.init.zeros_(policy.model.get_parameter("action_out_proj.weight"))
    torch.nn.init.zeros_(policy.model.get_parameter("action_out_proj.bias"))
    windows = replace(windows_for(policy, 4), valid=torch.tensor([[True, True, valid]] * 4))
    changed = windows.actions.clone()
    changed[:, 2] += 5.0
    prefix = prefixes(policy, windows, CONFIG, torch.Generator())(rows)

    def found(data: ChunkDataset) -> float:
        return float(loss(policy, data, rows, prefix, torch.Generator().manual_seed(0)).detach())

    noise = torch.randn(windows.actions.shape, generator=torch.Generator().manual_seed(0))
    error = ((noise - windows.actions) ** 2)[windows.valid]
    assert found(windows) == pytest.approx(float(error.mean()), rel=1e-5)
    assert (found(replace(windows, actions=changed)) == found(windows)) == (not valid)
