"""The range coder's kernels against its plain twins: symbols, payloads and state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coding import TOTAL, intervals, tables
from kernels import DEVICE
from sepzip.coder import kernels, plain
from sepzip.coder.fused import DeviceDecoder, DeviceEncoder
from sepzip.coder.plain import BlockDecoder, BlockEncoder
from sepzip.errors import CorruptError

Integers = NDArray[np.int64]

CONTEXT = 3

# Lanes, lanes to a coder: one of each, one coder, lanes that are no multiple of the coders, many coders.
SHAPES = [(1, 1), (3, 2), (8, 8), (9, 4), (65, 8), (65, 1), (300, 7)]


def on_device(numbers: Integers) -> torch.Tensor:
    return torch.from_numpy(numbers.astype(np.int32)).to(DEVICE)


def encode_both(
    starts: Integers, frequencies: Integers, lanes_per_coder: int, chunks: list[int], last: int
) -> list[tuple[int, bytes]]:
    """Return the steps and the payload of each block, one a chunk, which both encoders agree on.

    In the last step only `last` lanes have a symbol. A chunk of 0 steps joins its neighbours to a block.
    """
    steps, lanes = starts.shape
    host = BlockEncoder(lanes, lanes_per_coder)
    device = DeviceEncoder(lanes, lanes_per_coder, max(chunks), DEVICE)
    blocks, first, begun, joined = [], 0, 0, False
    for chunk in chunks:
        if not chunk:
            joined = True
            continue
        end = first + chunk
        active_last = last if end == steps else lanes
        for step in range(first, end):
            active = active_last if step == end - 1 else lanes
            host.step(starts[step, :active], frequencies[step, :active])
        ends_block = not joined or end == steps
        device.code(
            on_device(starts[first:end]), on_device(frequencies[first:end]), chunk, active_last, ends_block
        )
        device.collect()
        assert device.words == host.words and device.is_full == host.is_full
        if ends_block:
            payload = device.finish_block()
            assert payload == host.finish_block()
            blocks.append((end - begun, payload))
            begun = end
        first, joined = end, False
    assert first == steps
    return blocks


class Decoders:
    """Both decoders side by side."""

    def __init__(self, lanes: int, lanes_per_coder: int, capacity: int, rows: int) -> None:
        self._lanes = lanes
        self._lanes_per_coder = lanes_per_coder
        self._device = DeviceDecoder(lanes, lanes_per_coder, capacity, DEVICE)
        self._history = torch.full((CONTEXT + rows, lanes), 99, dtype=torch.uint8, device=DEVICE)
        self._position = torch.zeros(1, dtype=torch.int64, device=DEVICE)

    def load(self, payload: bytes) -> None:
        """Begin a block."""
        self._host = BlockDecoder(payload, self._lanes, self._lanes_per_coder)
        self._device.load(payload)

    def step(self, starts: Integers, active: int) -> Integers:
        """Return the symbols of the active lanes, which both agree on, and their states."""
        found = self._host.step(starts[:active])
        self._device.step(on_device(starts), self._history, self._position, CONTEXT, active)
        row = self._history[CONTEXT + int(self._position.item())].cpu().numpy()
        assert row[:active].tolist() == found.tolist() and not row[active:].any()
        assert self._device._codes.tolist() == self._host._code.tolist()
        assert self._device._ranges.tolist() == self._host._range.tolist()
        assert self._device.words_left == self._host.words_left
        self._position += 1
        return found

    def check_history(self) -> None:
        """Assert that no row but those of the steps was written."""
        end = CONTEXT + int(self._position.item())
        assert (self._history[:CONTEXT] == 99).all() and (self._history[end:] == 99).all()


def round_trip(
    starts: Integers, symbols: Integers, lanes_per_coder: int, chunks: list[int], last: int
) -> None:
    """Assert that symbols come back, from kernels that agree with their twins throughout."""
    steps, lanes = symbols.shape
    blocks = encode_both(*intervals(starts, symbols), lanes_per_coder, chunks, last)
    capacity = max(len(payload) for _, payload in blocks) // 3
    decoders = Decoders(lanes, lanes_per_coder, capacity, steps + 1)
    step = 0
    for count, payload in blocks:
        decoders.load(payload)
        for _ in range(count):
            active = last if step == steps - 1 else lanes
            found = decoders.step(starts[step], active)
            assert found.tolist() == symbols[step, :active].tolist()
            step += 1
        assert decoders._device.words_left == 0
    decoders.check_history()


@pytest.mark.parametrize("lanes, lanes_per_coder", SHAPES)
def test_round_trip_at_awkward_sizes(lanes: int, lanes_per_coder: int) -> None:
    generator = np.random.default_rng(lanes)
    starts = tables(generator, 3, lanes, 20.0)
    symbols = generator.integers(0, 256, (3, lanes))
    round_trip(starts, symbols, lanes_per_coder, [2, 1], max(1, lanes - 5))


def test_more_coders_than_are_looked_at_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_DECODE_BLOCK_MOST", 16)
    generator = np.random.default_rng(5)
    starts = tables(generator, 3, 85, 20.0)
    symbols = generator.integers(0, 256, (3, 85))
    round_trip(starts, symbols, 2, [3], 60)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any),
    st.integers(1, 20),
    st.integers(1, 9),
    st.sampled_from([0.0, 1.0, 20.0, 3000.0]),
    st.booleans(),
)
def test_round_trip(
    seed: int, chunks: list[int], lanes: int, lanes_per_coder: int, skew: float, likely: bool
) -> None:
    generator = np.random.default_rng(seed)
    steps = sum(chunks)
    starts = tables(generator, steps, lanes, skew)
    if likely:
        symbols = np.diff(starts, axis=2, append=TOTAL).argmax(2)
    else:
        symbols = generator.integers(0, 256, (steps, lanes))
    round_trip(starts, symbols, lanes_per_coder, chunks, int(generator.integers(1, lanes + 1)))


def test_carries_and_certain_symbols() -> None:
    generator = np.random.default_rng(6)
    frequencies = generator.integers(1, 1 << 14, (24, 5))
    # The top of the interval every time: digits full of ones, which a late carry must pass through.
    frequencies[:, 1] = TOTAL - 255
    frequencies[:, 2] = 1
    starts = TOTAL - frequencies
    encode_both(starts, frequencies, 2, [24], 5)
    encode_both(np.zeros_like(starts), frequencies, 1, [8, 0, 8, 8], 4)


def test_blocks_are_independent_and_the_encoder_says_when_one_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plain, "BLOCK_WORDS", 6)
    encoder = DeviceEncoder(2, 1, 2, DEVICE)
    starts = torch.tensor([[5, 6], [5, 6]], dtype=torch.int32, device=DEVICE)
    payloads = []
    for _ in range(9):
        ends_block = encoder.is_full
        encoder.code(starts, torch.ones_like(starts), 2, 2, ends_block)
        encoder.collect()
        if ends_block:
            payloads.append(encoder.finish_block())
    assert len(payloads) == 3 and len(set(payloads)) == 1


def test_two_chunks_may_wait() -> None:
    generator = np.random.default_rng(7)
    starts, frequencies = intervals(tables(generator, 6, 3, 9.0), generator.integers(0, 256, (6, 3)))
    host, device = BlockEncoder(3, 2), DeviceEncoder(3, 2, 2, DEVICE)
    with pytest.raises(RuntimeError, match="no chunk"):
        device.collect()
    for first in range(0, 6, 2):
        if first == 4:
            with pytest.raises(RuntimeError, match="two chunks"):
                device.code(on_device(starts), on_device(frequencies), 2, 3, False)
            device.collect()
        rows = slice(first, first + 2)
        device.code(on_device(starts[rows]), on_device(frequencies[rows]), 2, 3, first == 4)
    for step in range(6):
        host.step(starts[step], frequencies[step])
    device.collect()
    device.collect()
    assert device.words == host.words
    assert device.finish_block() == host.finish_block()


@settings(max_examples=10, deadline=None)
@given(st.binary(min_size=12, max_size=60), st.sampled_from([0.0, 2.0, 60.0]))
def test_any_payload_gives_the_plain_twins_symbols(payload: bytes, skew: float) -> None:
    payload = payload[: len(payload) // 3 * 3]
    starts = tables(np.random.default_rng(1), 4, 5, skew)
    decoders = Decoders(5, 3, 40, 4)
    # What a longer block left behind must not be read.
    decoders.load(bytes(range(120)))
    decoders.load(payload)
    for step in range(4):
        decoders.step(starts[step], 5)


def test_a_code_beyond_all_bounds_gives_the_plain_twins_symbols() -> None:
    starts = np.arange(256)[None].repeat(4, 0)
    # What the division of the range by 2^24 leaves over adds up in the code, until it passes 2^63.
    starts[:, 255] = TOTAL - (1 << 18) - 777
    decoders = Decoders(4, 2, 80, 15)
    decoders.load(b"\xff" * 240)
    below_zero = False
    for _ in range(15):
        decoders.step(starts, 4)
        below_zero |= bool((decoders._host._code < 0).any())
    assert below_zero


@pytest.mark.parametrize("payload", [b"", b"12345", b"1234567"])
def test_impossible_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(CorruptError, match="impossible length"):
        DeviceDecoder(4, 4, 8, DEVICE).load(payload)


def test_a_payload_beyond_the_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="more than the capacity of 8"):
        DeviceDecoder(4, 4, 8, DEVICE).load(bytes(27))
