"""Segments through the model and the coder and back."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TINY, TRACE_TINY, TRACE_TINY_SEMANTIC
from sepzip import eager, engine, runs, tensors
from sepzip.coder import coders_for, plain
from sepzip.engine import decode_segment, encode_segment
from sepzip.errors import CorruptError, DeviceError, MismatchError, UnsupportedError
from sepzip.presets import ModelSettings
from sepzip.segment import CodedBlock

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
PLAIN = replace(TINY, semantics=False, context=5, patch=0, stride=0)


def round_trip(
    data: bytes, model: ModelSettings, lanes: int, encode: str = "cpu", decode: str = "cpu"
) -> int:
    """Code and decode, compare, and return the coded size."""
    blocks = list(encode_segment(data, model, lanes, encode))
    assert decode_segment(blocks, len(data), model, lanes, decode) == data
    return sum(len(block.payload) for block in blocks)


MODELS = [TINY, PLAIN, TRACE_TINY_SEMANTIC, TRACE_TINY]


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=1, max_size=120), st.integers(1, 12), st.sampled_from(MODELS))
def test_any_bytes_come_back(data: bytes, lanes: int, model: ModelSettings) -> None:
    round_trip(data, model, min(lanes, len(data)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 300 * 8, 300 * 8 + 1])
def test_lengths_around_lanes_and_chunks(text: bytes, size: int, device: str) -> None:
    lanes = min(8, size)
    round_trip(text[:size], TINY, lanes, device, device)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("encode", "decode"), list(itertools.product(DEVICES, DEVICES)))
def test_devices_make_and_read_the_same_blocks(
    text: bytes, model: ModelSettings, encode: str, decode: str
) -> None:
    data = text[1000:3000]
    blocks = list(encode_segment(data, model, 7, "cpu"))
    if encode != "cpu":
        assert list(encode_segment(data, model, 7, encode)) == blocks
    assert decode_segment(blocks, len(data), model, 7, decode) == data


@pytest.mark.parametrize("device", DEVICES)
def test_the_frequencies_of_the_last_chunk_say_what_it_costs(text: bytes, device: str) -> None:
    steps, lanes = (runs.CHUNK_STEPS, 9), 5
    symbols = np.frombuffer(bytearray(text[: sum(steps) * lanes]), np.uint8).reshape(-1, lanes)
    bits = 0.0
    with tensors.exactly(device):
        run = tensors.encoding(TINY, lanes, device, None)
        for chunk in np.split(symbols, [steps[0]]):
            run.queue(chunk, lanes, len(chunk) == steps[1])
            assert run.frequencies.shape == chunk.shape
            bits += float((24 - np.log2(run.frequencies)).sum())
            block = run.collect()
    assert block is not None
    # Two coders, which end with a few bytes each.
    assert 0 <= len(block.payload) - bits / 8 < 20


@pytest.mark.parametrize("model", MODELS)
def test_it_learns(text: bytes, model: ModelSettings) -> None:
    data = text[:6000]
    model = replace(model, learning_rate=5000, learning_rate_last=5000)
    assert round_trip(data, model, 40) < 0.75 * len(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"lane_widths": (16,)},
        {"lane_widths": (3, 7)},
        {"lane_widths": (1,), "hidden": 1},
        {"embedding": 1, "patch": 6, "stride": 1, "lane_widths": (2,)},
        {"stride": 5, "lanes_per_coder": 1},
        {"context": 40, "patch": 1, "lane_widths": (4,)},
        {"seed": (1 << 32) - 1, "learning_rate": 1_000_000},
    ],
)
def test_all_sizes_are_free(text: bytes, changes: dict[str, int]) -> None:
    round_trip(text[:500], replace(TINY, **changes), 9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"heads": 1},
        {"token": 6, "heads": 42},
        {"token": 1, "positions": 0, "heads": 2},
        {"context": 40, "token": 1, "embedding": 1, "positions": 1, "heads": 1, "hidden": 1},
        {"seed": (1 << 32) - 1, "learning_rate": 1_000_000},
    ],
)
def test_all_sizes_of_tokens_are_free(text: bytes, changes: dict[str, int]) -> None:
    round_trip(text[:500], replace(TRACE_TINY, **changes), 9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 1, "mixing": 1, "heads": 1},
        {"tokens": 7, "patch": 6, "stride": 1, "heads": 14},
        {"patch": 1, "stride": 6, "heads": 7},
        {"seed": (1 << 32) - 1, "learning_rate": 1_000_000},
    ],
)
def test_all_sizes_of_fused_tokens_are_free(text: bytes, changes: dict[str, int]) -> None:
    round_trip(text[:500], replace(TRACE_TINY_SEMANTIC, **changes), 9)  # type: ignore[arg-type]


def test_several_blocks(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "BLOCK_WORDS", 10)
    for module in (engine, eager):
        monkeypatch.setattr(module, "CHUNK_STEPS", 16)
    data = text[:700]
    blocks = list(encode_segment(data, TINY, 5, "cpu"))
    assert len(blocks) == 3
    assert all(block.steps % 16 == 0 for block in blocks[:-1])
    for device in DEVICES:
        assert decode_segment(iter(blocks), len(data), TINY, 5, device) == data
    with pytest.raises(CorruptError, match="do not cover"):
        decode_segment(blocks[:-1], len(data), TINY, 5, "cpu")
    with pytest.raises(CorruptError, match="more steps"):
        decode_segment([*blocks, blocks[-1]], len(data), TINY, 5, "cpu")
    with pytest.raises((CorruptError, MismatchError)):
        decode_segment([blocks[1], blocks[0], *blocks[2:]], len(data), TINY, 5, "cpu")


@pytest.fixture(scope="module")
def coded(text: bytes) -> tuple[bytes, CodedBlock]:
    data = text[:300]
    (block,) = encode_segment(data, TINY, 6, "cpu")
    return data, block


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_never_silent(coded: tuple[bytes, CodedBlock], data: st.DataObject) -> None:
    content, block = coded
    payload = bytearray(block.payload)
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8
    try:
        found = decode_segment([block._replace(payload=bytes(payload))], len(content), TINY, 6, "cpu")
    except (CorruptError, MismatchError):
        return
    # The low bits of a coder's last word are free; the model and the content are then right.
    assert found == content


def test_fingerprint_mismatch_names_the_step(coded: tuple[bytes, CodedBlock]) -> None:
    content, block = coded
    wrong = block._replace(fingerprint=block.fingerprint ^ 1)
    with pytest.raises(MismatchError, match=f"step {block.steps}"):
        decode_segment([wrong], len(content), TINY, 6, "cpu")


def test_a_payload_that_ends_early_stops_the_work(coded: tuple[bytes, CodedBlock]) -> None:
    _, block = coded
    asked: list[int] = []
    short = CodedBlock(100_000, 0, block.payload[: 6 * coders_for(6, TINY.lanes_per_coder)])
    with pytest.raises(CorruptError, match="ends before"):
        decode_segment([short], 600_000, TINY, 6, "cpu", asked.append)
    assert sum(asked) < 10 * runs.CHUNK_STEPS * 6


def test_advance_counts_every_byte(text: bytes) -> None:
    counts: list[int] = []
    blocks = list(encode_segment(text[:1201], TINY, 4, "cpu", counts.append))
    assert sum(counts) == 1201
    counts.clear()
    decode_segment(blocks, 1201, TINY, 4, "cpu", counts.append)
    assert sum(counts) == 1201


def test_blocks_are_pulled_one_by_one(coded: tuple[bytes, CodedBlock]) -> None:
    content, block = coded

    def blocks() -> Iterator[CodedBlock]:
        yield block
        raise RuntimeError("pulled after the end")

    with pytest.raises(RuntimeError, match="pulled"):
        decode_segment(blocks(), len(content), TINY, 6, "cpu")


def test_seed_changes_the_weights(text: bytes) -> None:
    one, other = (
        next(iter(encode_segment(text[:200], replace(TINY, seed=seed), 4, "cpu"))) for seed in (0, 1)
    )
    assert one.payload != other.payload


def test_unknown_network() -> None:
    with pytest.raises(UnsupportedError, match="later"):
        list(encode_segment(b"x" * 100, replace(TINY, network="later"), 2, "cpu"))


_RUN_OUT = """
import resource, torch
from dataclasses import replace
from sepzip import OutOfMemoryError, memory
from sepzip.engine import encode_segment
from sepzip.presets import ModelSettings
memory.available = lambda device: None
list(encode_segment(b"x" * 64, replace(ModelSettings(), hidden=16), 4, "cpu"))
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    list(encode_segment(b"x" * 4096, ModelSettings(), 64, "cpu"))
except OutOfMemoryError as error:
    print(error)
"""


def test_memory_that_runs_out_is_said_so() -> None:
    done = subprocess.run([sys.executable, "-c", _RUN_OUT], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("memory ran out on cpu")


def test_flushed_subnormals_are_refused() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush them")
    try:
        with pytest.raises(DeviceError, match="subnormal"):
            list(encode_segment(b"x" * 100, TINY, 4, "cpu"))
    finally:
        torch.set_flush_denormal(False)


def test_a_careless_caller_cannot_lower_the_precision(text: bytes) -> None:
    reference = list(encode_segment(text[:400], TINY, 4, "cpu"))
    torch.set_float32_matmul_precision("medium")
    try:
        assert list(encode_segment(text[:400], TINY, 4, "cpu")) == reference
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_coders_share_lanes() -> None:
    assert [coders_for(lanes, 8) for lanes in (1, 8, 9, 64)] == [1, 1, 2, 8]
