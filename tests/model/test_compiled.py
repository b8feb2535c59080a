"""The compiled runner gives eager's chunks: on a CPU by compiled calls, on a GPU by CUDA graphs as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from pirl_server.interchange.parity.golden import Golden, load_golden
from pirl_server.interchange.parity.parity import SAMPLE_GATE
from pirl_server.model.flow_model import ChunkInputs
from pirl_server.model.pi0.compiled import CompiledPi0

FOLDER = Path(__file__).parent / "golden"


class Tracing:
    """A compiler that runs what was traced as it is: what `inductor` would take minutes to compile on one core."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, traced: GraphModule, _: list[Tensor]) -> Callable[..., object]:
        self.graphs += 1
        return traced.forward


def read(family: str) -> tuple[Golden, ChunkInputs]:
    golden = load_golden(FOLDER / f"{family}_tiny.safetensors")
    images, image_mask, tokens, token_mask = golden.prefix.values()
    assert tokens is not None
    assert token_mask is not None
    state = torch.zeros(len(golden.noise), golden.model.config.state_dim) if golden.state is None else golden.state
    return golden, ChunkInputs(images, image_mask, tokens, token_mask, state, golden.noise)


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_compiled_samples_match_the_goldens(family: str) -> None:
    """Two text lengths, and fewer rows than it was built for after a full batch; the K steps share one graph."""
    golden, inputs = read(family)
    compiler = Tracing()
    runner = CompiledPi0(golden.model, batch=3, cameras=3, steps=4, buckets=(8, 12), backend=compiler)
    assert float((runner.chain(inputs)[:, -1] - golden.samples[4]).abs().max()) <= SAMPLE_GATE
    lengths = inputs.token_mask.sum(dim=1)
    short = int(lengths.argmin())
    assert int(lengths[short]) <= 8 < int(lengths.max())
    one = {name: value[short : short + 1] for name, value in vars(inputs).items()}
    assert float((runner.chain(ChunkInputs(**one))[:, -1] - golden.samples[4][short]).abs().max()) <= SAMPLE_GATE
    assert compiler.graphs == 2 * 2


def test_what_does_not_fit_is_refused() -> None:
    golden, inputs = read("pi0")
    runner = CompiledPi0(golden.model, batch=2, cameras=3, steps=4, buckets=(8,), backend=Tracing())
    with pytest.raises(ValueError, match="3 rows, 3 cameras and 12 tokens exceed"):
        runner.chain(inputs)
    assert inputs.images is not None
    fewer = {name: value[:1] for name, value in vars(inputs).items()}
    with pytest.raises(ValueError, match="2 cameras"):
        runner.chain(replace(ChunkInputs(**fewer), images=inputs.images[:1, :2]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: CUDA graphs are not tested")
@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_cuda_graphs_match_the_goldens(family: str) -> None:
    golden, inputs = read(family)
    runner = CompiledPi0(golden.model.cuda(), batch=3, cameras=3, steps=10, buckets=(12,))
    runner.warm_up()
    torch.backends.cuda.matmul.allow_tf32 = False
    for _ in range(2):
        assert float((runner.chain(inputs)[:, -1].cpu() - golden.samples[10]).abs().max()) <= 10 * SAMPLE_GATE
