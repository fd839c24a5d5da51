"""A fused model against the plain one, from the bytes to the coder's payload and back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import TINY, TRACE_TINY_SEMANTIC
from kernels import DEVICE
from sepzip.coder.fused import DeviceDecoder, DeviceEncoder
from sepzip.engine import decode_segment, encode_segment
from sepzip.exact.workspace import Workspace
from sepzip.fused import FusedModel
from sepzip.lanes import split_lanes
from sepzip.presets import LEVELS, ModelSettings, with_ngrams

_SEB = replace(TINY, lanes_per_coder=2)
_PLAIN = replace(_SEB, semantics=False, context=3, patch=0, stride=0, embedding=5, lane_widths=(6, 15))
# Dropped within a chunk; the tokens' kernels read other positions as well from then on.
_DROPPING = replace(_SEB, context=9, drop_step=2, drop_below=500)
_TOKENS = replace(TRACE_TINY_SEMANTIC, context=9, drop_step=2, drop_below=900, lanes_per_coder=2)
# They see more of the past than the network, which is told of its own loss or not.
_NGRAMS = replace(with_ngrams(_PLAIN), ngram_bits=8, ngram_size=3)
_BOTH = replace(_DROPPING, ngrams=(1, 6, 1 << 11), ngram_bits=8, ngram_size=5, ngram_rate=50_000)
_MODELS = {
    "seb": _SEB,
    "plain": _PLAIN,
    "dropping": _DROPPING,
    "tokens": _TOKENS,
    "ngrams": _NGRAMS,
    "both": _BOTH,
}


@pytest.mark.parametrize("settings", _MODELS.values(), ids=_MODELS)
def test_a_segment_has_the_same_bytes(text: bytes, settings: ModelSettings) -> None:
    """The chunk is shorter than the segment, and also than one of the contexts, which are carried over."""
    lanes, chunk_steps, data = 3, 3, text[:11]
    (block,) = encode_segment(data, settings, lanes, "cpu")
    matrix = torch.from_numpy(split_lanes(np.frombuffer(data, np.uint8), lanes))
    shape, dropped = (chunk_steps, lanes), 0
    with torch.inference_mode():
        model = FusedModel(settings, lanes, chunk_steps, DEVICE, Workspace(DEVICE))
        encoder = DeviceEncoder(lanes, settings.lanes_per_coder, chunk_steps, DEVICE)
        intervals = tuple(torch.zeros(shape, dtype=torch.int32, device=DEVICE) for _ in range(2))
        for first, chunk in zip(range(0, 4, chunk_steps), matrix.split(chunk_steps), strict=True):
            model.begin_chunk(min(first, chunk_steps))
            model.history[settings.seen : settings.seen + len(chunk)].copy_(chunk)
            for _ in chunk:
                model.predict()
                model.learn((intervals[0], intervals[1]))
                dropped += model.count(1)
            is_last = first + len(chunk) == len(matrix)
            encoder.code(intervals[0], intervals[1], len(chunk), 2 if is_last else lanes, is_last)
            encoder.collect()
        assert encoder.finish_block() == block.payload
        assert int(model.fingerprint().item()) == block.fingerprint

        model = FusedModel(settings, lanes, chunk_steps, DEVICE, Workspace(DEVICE))
        decoder = DeviceDecoder(lanes, settings.lanes_per_coder, len(block.payload) // 3, DEVICE)
        decoder.load(block.payload)
        found = []
        for first in range(0, 4, chunk_steps):
            model.begin_chunk(min(first, chunk_steps))
            steps = range(first, min(4, first + chunk_steps))
            for step in steps:
                model.predict()
                active = 2 if step == 3 else lanes
                decoder.step(model.starts, model.history, model.position, model.context, active)
                model.learn()
                dropped += model.count(1)
            found.append(model.history[model.context : model.context + len(steps)].cpu().clone())
        assert torch.equal(torch.cat(found), matrix)
        assert decoder.words_left == 0
        assert dropped == 2 * (settings.drop_step > 0)
        assert int(model.fingerprint().item()) == block.fingerprint


@pytest.mark.parametrize("settings", _MODELS.values(), ids=_MODELS)
def test_models_work_in_turns_in_one_workspace(settings: ModelSettings) -> None:
    """Whatever a step finds there, also what was made while another model had steps."""
    lanes, chunk_steps = 3, 3
    symbols = torch.from_numpy(np.random.default_rng(0).integers(97, 101, (2, 3, lanes), np.uint8)).to(DEVICE)

    def steps(model: FusedModel, number: int) -> Iterator[None]:
        model.begin_chunk(0)
        model.history[settings.seen : settings.seen + chunk_steps].copy_(symbols[number])
        for _ in range(chunk_steps):
            model.predict()
            model.learn()
            model.count(1)
            yield

    def new(workspace: Workspace) -> FusedModel:
        return FusedModel(settings, lanes, chunk_steps, DEVICE, workspace)

    with torch.inference_mode():
        alone = []
        for number in range(2):
            model = new(Workspace(DEVICE))
            list(steps(model, number))
            alone.append(int(model.fingerprint().item()))
        shared = Workspace(DEVICE)
        first = new(shared)
        of_first = steps(first, 0)
        next(of_first)
        size = shared.size
        second = new(shared)
        of_second = steps(second, 1)
        for turn in (of_second, of_first, of_second, of_second, of_first):
            next(turn)
        assert [int(model.fingerprint().item()) for model in (first, second)] == alone
        assert shared.size == size or settings.drop_step


def test_a_model_goes_when_nobody_needs_it() -> None:
    """It knows nothing that knows it: its memory is free at once, not when garbage is next collected."""
    collects = gc.isenabled()
    gc.disable()
    try:
        for settings in _MODELS.values():
            with torch.inference_mode():
                workspace = Workspace(DEVICE)
                model = FusedModel(settings, 3, 3, DEVICE, workspace)
                gone = [weakref.ref(x) for x in (model, model.history, workspace)]
                del model, workspace
            assert [x() for x in gone] == [None] * 3
    finally:
        if collects:
            gc.enable()


@pytest.mark.skipif(DEVICE.type != "cuda", reason="torch counts a GPU's memory alone")
@pytest.mark.parametrize("model", [_SEB, _NGRAMS, LEVELS[5].model], ids=["network", "ngrams", "memory"])
def test_a_segment_leaves_nothing_on_the_device(text: bytes, model: ModelSettings) -> None:
    data, lanes = text[:3000], 7

    def code() -> None:
        blocks = list(encode_segment(data, model, lanes, "cuda:0"))
        assert decode_segment(blocks, len(data), model, lanes, "cuda:0") == data

    # Kernels and tables that stay are there after the first time.
    code()
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        before = torch.cuda.memory_allocated()
        code()
        assert torch.cuda.memory_allocated() == before
    finally:
        if collects:
            gc.enable()
