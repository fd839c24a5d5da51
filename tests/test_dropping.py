"""The SEB without the patches that have learned no weight: what is left, and the same bytes back."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sepzip
from conftest import TINY, TRACE_TINY_SEMANTIC
from sepzip import runs
from sepzip.cli.listing import list_files
from sepzip.cli.messages import Messages
from sepzip.cli.options import read_arguments
from sepzip.engine import decode_segment, encode_segment
from sepzip.errors import CorruptError, UsageError
from sepzip.exact.guard import ExactOnly
from sepzip.exact.initialise import Initialiser
from sepzip.exact.tape import Node, Parameters, Tape
from sepzip.header import encode_header, read_header
from sepzip.lanes import split_lanes
from sepzip.model import Model
from sepzip.presets import NETWORKS, ModelSettings, resolve, with_drop
from sepzip.semantics import SemanticsEnhancement, TokenSemantics
from sepzip.wire import ByteSink, ByteSource

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
PAC = replace(TINY, context=14, drop_step=20, drop_below=500)
LSTM = replace(PAC, network="lstm", lane_widths=(), hidden=6, layers=1)
NNCP = replace(LSTM, network="nncp", patch=1, heads=2, update_steps=4)
TRACE = replace(TRACE_TINY_SEMANTIC, context=9, drop_step=20, drop_below=900)
MODELS = {
    "pac": PAC,
    "oreo": replace(LSTM, network="oreo"),
    "lstm": LSTM,
    "decmac": replace(LSTM, network="decmac"),
    "nncp": NNCP,
    "trace": TRACE,
    "patchtst": replace(TRACE, network="patchtst"),
    "ngrams": replace(PAC, ngrams=(1, 3), ngram_bits=8, ngram_size=2, ngram_rate=100_000),
}


def _train(data: bytes, model: ModelSettings, lanes: int, steps: int) -> tuple[Model, list[Tensor]]:
    """Return a model after so many steps, and what the encoder got of each."""
    symbols = torch.from_numpy(split_lanes(np.frombuffer(data, np.uint8), lanes)[:steps].astype(np.int64))
    made = Model(model, lanes, torch.device("cpu"))
    starts = []
    with torch.inference_mode():
        for step in symbols:
            starts.append(made.predict().starts())
            made.learn(step)
            made.dropping.count(1)
    return made, starts


@pytest.mark.parametrize(
    ("weights", "left"),
    [
        # From the oldest patch to the newest; every one counts that is not below a quarter of the largest.
        ([0.0, 0.24, 0.1, 0.2, 0.0, 0.0, 1.0], 1),
        ([0.0, 0.0, 0.1, 0.2, 0.0, -0.26, 1.0], 2),
        # Of three come four, so that few sizes arise; and of five all, for eight there are not.
        ([0.0, 0.0, 0.0, 0.0, -0.25, 0.0, 1.0], 4),
        ([0.0, 0.0, 0.3, 0.0, 0.0, 0.0, -1.0], 7),
        # The newest goes only with all.
        ([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 7),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 7),
    ],
)
def test_what_is_left_begins_with_the_oldest_patch_of_weight(weights: list[float], left: int) -> None:
    parameters = Parameters(torch.device("cpu"))
    settings = replace(TINY, context=10, patch=4, stride=1)
    semantics = SemanticsEnhancement(settings, parameters, Initialiser(0, parameters.device))
    parameters.seal()
    assert parameters.semantics is semantics
    semantics.weight.data.copy_(torch.tensor(weights))
    semantics.drop(250)
    assert len(weights) - semantics.dropped == left


def test_a_mask_that_lets_nothing_through_takes_the_weight_away() -> None:
    parameters = Parameters(torch.device("cpu"))
    settings = replace(TINY, context=5, patch=4, stride=2)
    semantics = SemanticsEnhancement(settings, parameters, Initialiser(0, parameters.device))
    parameters.seal()
    semantics.weight.data.copy_(torch.tensor([1.0, 1.0]))
    semantics.drop(250)
    assert semantics.dropped == 0
    semantics.mask.data[0] = -20.0
    semantics.drop(250)
    assert semantics.dropped == 1


def _short_twin(
    settings: ModelSettings, front: SemanticsEnhancement | TokenSemantics
) -> tuple[Parameters, SemanticsEnhancement | TokenSemantics]:
    """Return an SEB that was built with the patches that are left to another, with its weights."""
    parameters = Parameters(torch.device("cpu"))
    short = replace(settings, context=settings.context - front.dropped)
    twin = type(front)(short, parameters, Initialiser(3, parameters.device))
    parameters.seal()
    for name in ("table", "weight", "bias", "mask"):
        data = getattr(front, name).data
        first = front.dropped if name in ("weight", "mask") else 0
        getattr(twin, name).data.copy_(data[first:])
    if isinstance(front, TokenSemantics) and isinstance(twin, TokenSemantics):
        twin.positions = front.positions[front.dropped :]
    return parameters, twin


@pytest.mark.parametrize("kind", [SemanticsEnhancement, TokenSemantics])
def test_the_rest_is_an_seb_of_fewer_patches(kind: type[SemanticsEnhancement | TokenSemantics]) -> None:
    settings = TRACE if kind is TokenSemantics else PAC
    parameters = Parameters(torch.device("cpu"))
    front = kind(settings, parameters, Initialiser(1, parameters.device))
    parameters.seal()
    generator = torch.Generator().manual_seed(4)
    front.mask.data.copy_(torch.randn(front.mask.data.shape, generator=generator))
    front.dropped = dropped = len(front.weight.data) - 2
    short, twin = _short_twin(settings, front)
    context = torch.randint(0, 256, (settings.context, 5), generator=generator)
    results = []
    gradient = torch.linspace(-1, 1, 5 * settings.width * max(1, settings.tokens))
    for owner, made, seen in ((parameters, front, context), (short, twin, context[dropped:])):
        owner.make_gradients()
        owner.begin_step()
        tape = Tape()
        with torch.inference_mode(), ExactOnly():
            out: Node = made.forward(tape, seen)
            out.add_gradient(gradient.view(out.data.shape))
            tape.run_backward()
        owner.end_step()
        by_weight, by_mask = made.weight.gradient_view, made.mask.gradient_view
        if made is front:
            assert not by_weight[:dropped].any() and not by_mask[:dropped].any()
            by_weight, by_mask = by_weight[dropped:], by_mask[dropped:]
        assert by_weight.any() and by_mask.any()
        results.append([out.data, by_weight, by_mask, made.table.gradient_view, made.bias.gradient_view])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


@pytest.mark.parametrize("name", MODELS)
def test_every_network_drops_and_comes_back(text: bytes, name: str) -> None:
    model, lanes, data = MODELS[name], 5, text[2000:2202]
    blocks = list(encode_segment(data, model, lanes, "cpu"))
    assert decode_segment(blocks, len(data), model, lanes, "cpu") == data
    trained, starts = _train(data, model, lanes, 40)
    semantics = trained.semantics
    assert semantics is not None and semantics.dropped > 0
    for node in (semantics.weight, semantics.mask):
        assert not node.data[: semantics.dropped].any()
    assert semantics.weight.data[semantics.dropped :].all()
    _, without = _train(data, replace(model, drop_step=0, drop_below=0), lanes, 40)
    same = [torch.equal(a, b) for a, b in zip(starts, without, strict=True)]
    # Nothing changes before the step, and something after it.
    assert all(same[: model.drop_step]) and not any(same[model.drop_step + 1 :])
    assert list(encode_segment(data, replace(model, drop_step=41 // 4 * 4 + 4), lanes, "cpu")) != blocks


@pytest.mark.parametrize("network", ["pac", "trace"])
@pytest.mark.parametrize("step", [1, runs.CHUNK_STEPS, runs.CHUNK_STEPS + 1, 299, 300, 301])
def test_around_chunks_and_the_end(text: bytes, step: int, network: str) -> None:
    """The last step that is coded may be the one after which patches go, and one may never come."""
    lanes, data = 3, text[5000:5899]
    model = replace(MODELS[network], drop_step=step)
    made = []
    for device in DEVICES:
        blocks = list(encode_segment(data, model, lanes, device))
        made.append(blocks)
        for other in DEVICES:
            assert decode_segment(blocks, len(data), model, lanes, other) == data
    assert all(blocks == made[0] for blocks in made)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("encode", "decode"), list(itertools.product(DEVICES, DEVICES)))
def test_devices_make_and_read_the_same_blocks(text: bytes, name: str, encode: str, decode: str) -> None:
    data, model = text[1000:3000], MODELS[name]
    blocks = list(encode_segment(data, model, 7, encode))
    assert blocks == list(encode_segment(data, model, 7, decode))
    assert decode_segment(blocks, len(data), model, 7, decode) == data


def _header(model: ModelSettings) -> ByteSource:
    file = io.BytesIO()
    sink = ByteSink(file)
    sink.write(encode_header(model))
    sink.write_check()
    return ByteSource(io.BytesIO(file.getvalue()))


def test_the_header_has_it_only_where_patches_are_dropped() -> None:
    header = read_header(_header(PAC), first=True)
    assert header is not None and header.model == PAC
    plain = replace(PAC, drop_step=0, drop_below=0)
    # Two identifiers, a number of one byte, and one of two.
    assert len(encode_header(PAC)) == len(encode_header(plain)) + 5
    header = read_header(_header(plain), first=True)
    assert header is not None and header.model == plain


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"drop_below": 0}, "drop_below is 0"),
        ({"drop_below": 1001}, "drop_below is 1001"),
        ({"drop_step": (1 << 20) + 4}, "drop_step is"),
        ({"drop_step": 0}, "drop_below is 500 although drop_step is not set"),
        ({"drop_step": 22}, "drop_step is 22, not a multiple of update_steps, 4"),
        ({"semantics": False, "patch": 0, "stride": 0}, "although the SEB is off"),
    ],
)
def test_settings_that_do_not_go_together(change: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        encode_header(replace(NNCP, **change))


def test_a_header_with_half_of_it_is_damaged() -> None:
    whole = encode_header(PAC)
    # The last setting, its two bytes, and the zero after it.
    cut = bytearray(whole[:-4] + whole[-1:])
    assert cut[6] == whole[6]
    cut[6] -= 3
    file = io.BytesIO()
    sink = ByteSink(file)
    sink.write(bytes(cut))
    sink.write_check()
    with pytest.raises(CorruptError, match="lacks the setting drop_below"):
        read_header(ByteSource(io.BytesIO(file.getvalue())), first=True)


@pytest.mark.parametrize("name", [name for name in NETWORKS if True in NETWORKS[name]])
def test_every_network_with_the_seb_can(name: str) -> None:
    model = resolve(network=name, semantics="drop").model
    assert model == with_drop(NETWORKS[name][True].model)
    header = read_header(_header(model), first=True)
    assert header is not None and header.model == model


def test_a_memory_of_contexts_has_no_patches(text: bytes) -> None:
    for network in (None, "recall"):
        with pytest.raises(UsageError, match="name a network"):
            sepzip.compress(text[:100], network=network, semantics="drop", device="cpu")


def test_the_command_has_it() -> None:
    options = read_arguments("sep", ["--network", "oreo", "--seb", "drop", "a"])
    assert options is not None and options.preset == resolve(network="oreo", semantics="drop")


def test_the_listing_tells_it(text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.sep"
    made = sepzip.compress(text[:4000], network="pac-small", semantics="drop", lanes=16, device="cpu")
    path.write_bytes(made)
    options = read_arguments("sep", ["-l", str(path)])
    assert options is not None and list_files(options, Messages("sep")) == 0
    assert "seb-drop+pac" in capsys.readouterr().out
