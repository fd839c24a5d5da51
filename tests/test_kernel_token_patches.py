"""The fused block that makes several tokens against the plain one and the plain Adam, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.adam import adam
from sepzip.exact.initialise import Initialiser
from sepzip.exact.kernels.parameters import Learner, Parameter
from sepzip.exact.kernels.token_patches import FusedTokenSemantics
from sepzip.exact.tape import ParameterNode, Parameters, Tape
from sepzip.exact.workspace import Workspace
from sepzip.presets import ModelSettings
from sepzip.semantics import TokenSemantics

EPSILON = 2.5e-9


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu().view(torch.int32), b.cpu().view(torch.int32))


@pytest.mark.parametrize(
    ("lanes", "settings", "symbols", "spread", "magnitudes"),
    [
        (
            33,
            ModelSettings(context=7, patch=3, stride=2, embedding=2, positions=2, tokens=2),
            40,
            0.5,
            (1.0, 0.0),
        ),
        # Without positions, and weights so large that the activation is at its edge.
        (2, ModelSettings(context=4, patch=2, stride=9, embedding=3, tokens=3), 3, 40.0, (1e12, 1.0)),
        (1, ModelSettings(context=2, patch=1, stride=1, embedding=1, tokens=1), 2, 0.0, (1e-25,)),
    ],
)
def test_steps_equal_the_plain_ones(
    lanes: int, settings: ModelSettings, symbols: int, spread: float, magnitudes: tuple[float, ...]
) -> None:
    generator = torch.Generator().manual_seed(lanes)
    context, tokens = settings.context, settings.tokens
    history = torch.randint(0, symbols, (context + 3, lanes), generator=generator).to(torch.uint8)
    parameters = Parameters(torch.device("cpu"))
    plain = TokenSemantics(settings, parameters, Initialiser(7, torch.device("cpu")))
    parameters.seal()
    parameters.make_gradients()
    flat = parameters.data
    flat.add_(torch.randn(flat.shape, generator=generator) * spread)
    state = (flat, torch.zeros_like(flat), torch.zeros_like(flat))
    fused_state = tuple(part.clone().to(DEVICE) for part in state)

    def parameter(node: ParameterNode) -> Parameter:
        return Parameter(*(node.part_of(part) for part in fused_state))

    position = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    size = torch.zeros(1, device=DEVICE)
    fused = FusedTokenSemantics(
        parameter(plain.table),
        parameter(plain.weight),
        parameter(plain.bias),
        parameter(plain.mask),
        plain.kept.view(-1).to(DEVICE),
        plain.sharpness,
        settings.patch,
        plain.positions.to(DEVICE),
        history.to(DEVICE),
        position,
        Learner(size, EPSILON),
        Workspace(DEVICE),
    )
    for step, magnitude in enumerate(magnitudes):
        position.fill_(step)
        size.fill_(0.05 / (step + 1))
        tape = Tape()
        parameters.begin_step()
        out = plain.forward(tape, history[step : step + context].to(torch.int64))
        assert _same(fused.forward(), out.data)
        gradient = torch.randn((lanes * tokens, settings.width), generator=generator) * magnitude
        out.add_gradient(gradient)
        tape.run_backward()
        parameters.end_step()
        adam(*state, parameters.grad, size.cpu(), EPSILON)
        fused.backward(gradient.to(DEVICE))
        for a, b in zip(fused_state, state, strict=True):
            for node in parameters.nodes:
                assert _same(node.part_of(a), node.part_of(b)), parameters.nodes.index(node)
