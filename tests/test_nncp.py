"""The network nncp: relative attention, predictions beside reviews, updates of several steps, round trips."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from conftest import TINY_LSTM
from round_trips import comes_back
from sepzip import memory
from sepzip.engine import encode_segment
from sepzip.errors import UsageError
from sepzip.exact.concatenate import behind, newest_rows
from sepzip.exact.guard import ExactOnly
from sepzip.exact.softmax_attention import softmax_attention
from sepzip.exact.tape import Tape
from sepzip.header import encode_header
from sepzip.model import Model
from sepzip.networks import base
from sepzip.networks.nncp import NNCP
from sepzip.presets import NETWORKS, ModelSettings
from sepzip.runs import CHUNK_STEPS
from test_exact import gradients, random, relative_error

CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
SETTINGS = replace(
    TINY_LSTM, network="nncp", context=4, embedding=12, heads=3, hidden=16, layers=2, update_steps=3
)
SEMANTIC = replace(SETTINGS, semantics=True, patch=1, stride=2)


def relative_attention(query: Tensor, both: Tensor, distances: Tensor, lanes: int, heads: int) -> Tensor:
    """Return what each of a lane's newest tokens gets, in float64, pair by pair of tokens."""
    width = query.shape[1]
    by_lane, key_value = query.view(lanes, -1, heads, width // heads), both.view(lanes, -1, 2 * width)
    tokens, queries = key_value.shape[1], by_lane.shape[1]
    rows = []
    for index in range(queries):
        last = tokens - queries + index
        key = key_value[:, : last + 1, :width] + distances[: last + 1].flip(0)
        key = key.view(lanes, last + 1, heads, -1)
        value = key_value[:, : last + 1, width:].view(key.shape)
        score = torch.einsum("lhd,lthd->lht", by_lane[:, index], key) / math.sqrt(width // heads)
        rows.append(torch.einsum("lht,lthd->lhd", torch.softmax(score, 2), value).reshape(lanes, width))
    return torch.stack(rows, 1).view(-1, width)


@pytest.mark.parametrize(
    ("lanes", "heads", "size", "tokens", "queries", "farthest"),
    [(5, 4, 8, 7, 1, 9), (3, 1, 16, 16, 16, 16), (4, 2, 3, 9, 4, 9), (2, 3, 5, 6, 2, 20), (3, 5, 1, 2, 1, 2)],
)
@pytest.mark.parametrize("factor", [1e-2, 1.0])
def test_relative_attention(
    lanes: int, heads: int, size: int, tokens: int, queries: int, farthest: int, factor: float
) -> None:
    width = heads * size
    pairs = gradients(
        lambda tape, n: softmax_attention(tape, n[0], n[1], lanes, heads, n[2]),
        lambda w: relative_attention(w[0], w[1], w[2], lanes, heads),
        random(lanes * queries, width) * factor,
        random(lanes * tokens, 2 * width, seed=2) * factor,
        random(farthest, width, seed=3) * factor,
    )
    for pair in pairs:
        assert relative_error(*pair) < 1e-2


def test_rows_behind_older_ones() -> None:
    older = random(3, 2, 5, seed=2)
    pairs = gradients(
        lambda tape, n: behind(tape, older, n[0]),
        lambda w: torch.cat([older.double(), w[0].view(3, 4, 5)], 1).view(-1, 5),
        random(12, 5),
    )
    pairs += gradients(
        lambda tape, n: newest_rows(tape, n[0], 3, 2),
        lambda w: w[0].view(3, 4, 5)[:, 2:].reshape(-1, 5),
        random(12, 5),
    )
    for ours, theirs in pairs:
        assert torch.equal(ours.double(), theirs)


def with_context(window: Tensor, context: int = SETTINGS.context) -> Tensor:
    """Return the bytes, int64 [steps, lanes], behind others that are there for the first one's context."""
    return torch.cat([torch.full((context - 1, window.shape[1]), 255), window])


def built(lanes: int, settings: ModelSettings = SETTINGS) -> NNCP:
    network = base.build(settings, lanes, CPU)
    assert isinstance(network, NNCP)
    network.parameters.make_gradients()
    return network


def reference(weights: list[Tensor], symbols: Tensor, memories: list[Tensor], heads: int) -> Tensor:
    """Return the logits after all `symbols`, int64 [steps, lanes], in float64; `memories` are moved on."""
    steps, lanes = symbols.shape
    table, *rest = weights
    layers, (gain, offset, out, out_bias) = rest[:-4], rest[-4:]
    x = table[symbols.t()]  # [lanes, steps, width]
    width = x.shape[2]
    for index, remembered in enumerate(memories):
        of_layer = layers[15 * index : 15 * index + 15]
        norm, norm2 = of_layer[:2], of_layer[9:11]
        query, query_bias, both, both_bias, distances, attended, attended_bias = of_layer[2:9]
        into, into_bias, out_of, out_of_bias = of_layer[11:]
        tokens = torch.cat([remembered, x], 1)
        memories[index] = tokens[:, -remembered.shape[1] :].detach()
        normal = layer_norm(tokens, (width,), norm[0], norm[1])
        gained = relative_attention(
            (normal[:, -steps:] @ query + query_bias).reshape(-1, width),
            (normal @ both + both_bias).view(-1, 2 * width),
            distances,
            lanes,
            heads,
        )
        x = x + (gained @ attended + attended_bias).view(x.shape)
        hidden = gelu(layer_norm(x, (width,), norm2[0], norm2[1]) @ into + into_bias)
        x = x + hidden @ out_of + out_of_bias
    return (layer_norm(x, (width,), gain, offset) @ out + out_bias).view(-1, 256)


def test_gradients_of_the_whole_network() -> None:
    lanes = 9
    network = built(lanes)
    wide = [node.data.double().requires_grad_() for node in network.parameters.nodes]
    memories = [layer.memory.double() for layer in network.layers]
    symbols = torch.randint(0, 256, (9, lanes), generator=torch.Generator().manual_seed(1))
    pull = random(lanes * 3, 256, seed=7)
    # In the second update and the third, the memory comes from those before.
    for window in symbols.split(3):
        network.parameters.begin_step()
        tape = Tape()
        logits = network.review(tape, with_context(window))
        logits.add_gradient(pull)
        tape.run_backward()
        network.parameters.end_step()
        expected = reference(wide, window, memories, SETTINGS.heads)
        assert relative_error(logits.data, expected.detach()) < 0.03
        wanted = torch.autograd.grad(expected, wide, pull.double())
        for node, want in zip(network.parameters.nodes, wanted, strict=True):
            # The part of the keys' bias that all tokens share moves no weight of attention.
            assert relative_error(node.gradient_view, want) < 0.06
    for layer, remembered in zip(network.layers, memories, strict=True):
        assert relative_error(layer.memory, remembered) < 0.03


@pytest.mark.parametrize("model", [SETTINGS, SEMANTIC])
def test_byte_by_byte_is_near_all_at_once(model: ModelSettings) -> None:
    lanes = 7
    network = built(lanes, model)
    symbols = torch.randint(0, 256, (9, lanes), generator=torch.Generator().manual_seed(1))
    for window in symbols.split(3):
        seen = with_context(window)
        single = [network.forward(Tape(), seen[index : index + 4]).data for index in range(3)]
        together = network.review(Tape(), seen).data.view(lanes, 3, 256)
        for index, logits in enumerate(single):
            assert relative_error(logits, together[:, index].double()) < 0.02


def test_the_weights_change_with_the_last_step_of_an_update_only() -> None:
    model = Model(SETTINGS, 4, CPU)
    prints = []
    for step in range(7):
        model.predict()
        model.learn(torch.full((4,), step))
        prints.append(int(model.fingerprint()))
    assert prints[0] == prints[1] != prints[2] == prints[3] == prints[4] != prints[5] == prints[6]


def test_other_networks_learn_every_step() -> None:
    with pytest.raises(UsageError, match="lstm cannot learn several steps at once"):
        Model(replace(TINY_LSTM, update_steps=2), 4, CPU)


def test_start_forgets() -> None:
    network = built(5)
    context = torch.arange(20).view(4, 5)

    def two_updates() -> list[Tensor]:
        seen = []
        for _ in range(2):
            seen += [network.forward(Tape(), context).data for _ in range(3)]
            network.review(Tape(), with_context(context[:3]))
        return seen

    network.start(context)
    first = two_updates()
    assert not torch.equal(first[0], first[3])
    network.forward(Tape(), context)
    network.start(context)
    assert all(map(torch.equal, two_updates(), first))


@pytest.mark.parametrize("model", [SETTINGS, SEMANTIC, NETWORKS["nncp"][False].model])
def test_its_steps_are_exact_and_its_weights_counted(model: ModelSettings) -> None:
    model = replace(model, update_steps=3)
    with torch.inference_mode(), ExactOnly():
        run = Model(model, 2, CPU)
        for _ in range(7 if model.embedding < 100 else 4):
            run.predict().starts()
            run.learn(torch.arange(2))
    nodes = base.build(model, 2, CPU).parameters.nodes
    assert memory.parameter_count(model, 2) == sum(node.data.numel() for node in nodes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lanes", [1, 9])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"update_steps": 1},
        {"semantics": True, "patch": 1, "stride": 2},
        {"semantics": True, "patch": 1, "stride": 1, "context": 1, "update_steps": 1},
        {"update_steps": 1000, "context": 1},
        {"context": 1, "update_steps": 7, "embedding": 1, "heads": 1, "hidden": 1},
        {"context": 30, "layers": 3, "learning_rate": 1_000_000},
    ],
)
def test_all_sizes_come_back(text: bytes, changes: dict[str, int], lanes: int, device: str) -> None:
    model = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    data = text[: 30 * lanes - lanes // 2]
    comes_back(data, model, lanes, device)


def test_updates_reach_across_chunks(text: bytes) -> None:
    data = text[: CHUNK_STEPS + 50]
    assert CHUNK_STEPS % SETTINGS.update_steps
    comes_back(data, SETTINGS, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"heads": 5},
        {"update_steps": 0},
        {"update_steps": 1025},
        {"context": 4096, "embedding": 16, "heads": 1, "hidden": 1},
        {"semantics": True, "patch": 2, "stride": 1},
        {"layers": 0},
        {"token": 1},
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        encode_header(replace(SETTINGS, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [SETTINGS, SEMANTIC])
def test_it_learns(text: bytes, model: ModelSettings) -> None:
    blocks = encode_segment(text[:8000], model, 40, "cpu")
    assert sum(len(block.payload) for block in blocks) < 0.75 * 8000
