"""The range coder: against big integers, and against its device version."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coding import TOTAL, intervals, tables
from sepzip.coder import RANGE_FIRST, RANGE_LEAST, coders_for, plain
from sepzip.coder.device import DeviceDecoder
from sepzip.coder.plain import BlockDecoder, BlockEncoder
from sepzip.errors import CorruptError


def encode(starts: np.ndarray, symbols: np.ndarray, lanes_per_coder: int, last: int) -> tuple[bytes, float]:
    """Return the payload and the ideal size in bits; in the last step only `last` lanes have a symbol."""
    steps, lanes, _ = starts.shape
    encoder = BlockEncoder(lanes, lanes_per_coder)
    bits = 0.0
    true_starts, frequencies = intervals(starts, symbols)
    for step in range(steps):
        active = last if step == steps - 1 else lanes
        encoder.step(true_starts[step, :active], frequencies[step, :active])
        bits -= np.log2(frequencies[step, :active] / TOTAL).sum()
    return encoder.finish_block(), float(bits)


cases = given(
    st.integers(0, 1 << 30),
    st.integers(1, 30),
    st.integers(1, 20),
    st.integers(1, 9),
    st.sampled_from([0.0, 1.0, 20.0, 3000.0]),
    st.booleans(),
)


@pytest.mark.parametrize("together", [1, 7, 64])
def test_digits_that_are_placed_in_several_goes(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(together)
    steps, lanes = 150, 13
    starts = tables(generator, steps, lanes, 20.0)
    symbols = generator.integers(0, 256, (steps, lanes))
    at_once, _ = encode(starts, symbols, 4, 5)
    monkeypatch.setattr(plain, "_TOGETHER", together)
    payload, _ = encode(starts, symbols, 4, 5)
    assert payload == at_once and len(payload) > 3 * 64 * 4
    decoder = BlockDecoder(payload, lanes, 4)
    for step in range(steps):
        active = 5 if step == steps - 1 else lanes
        assert (decoder.step(starts[step, :active]) == symbols[step, :active]).all()
    assert decoder.words_left == 0


@settings(max_examples=60, deadline=None)
@cases
def test_round_trip_on_host_and_device(
    seed: int, steps: int, lanes: int, lanes_per_coder: int, skew: float, likely: bool
) -> None:
    generator = np.random.default_rng(seed)
    starts = tables(generator, steps, lanes, skew)
    if likely:
        widths = np.diff(starts, axis=2, append=TOTAL)
        symbols = widths.argmax(2)
    else:
        symbols = generator.integers(0, 256, (steps, lanes))
    last = int(generator.integers(1, lanes + 1))
    payload, bits = encode(starts, symbols, lanes_per_coder, last)
    coders = coders_for(lanes, lanes_per_coder)
    assert len(payload) * 8 <= bits * 1.0001 + 62 * coders + 1
    host = BlockDecoder(payload, lanes, lanes_per_coder)
    device = DeviceDecoder(lanes, lanes_per_coder, len(payload) // 3, torch.device("cpu"))
    device.load(payload)
    for step in range(steps):
        active = last if step == steps - 1 else lanes
        found = host.step(starts[step, :active])
        assert found.tolist() == symbols[step, :active].tolist()
        same = device.step(torch.from_numpy(starts[step]), active)
        assert same[:active].tolist() == found.tolist() and not same[active:].any()
    assert host.words_left == device.words_left == 0


def encode_with_big_integers(intervals: list[tuple[int, int]]) -> bytes:
    """Return what one coder makes of these intervals, by the definition and Python's integers."""
    low, width, shifts = 0, RANGE_FIRST, 0
    for start, frequency in intervals:
        unit = width >> 24
        low += unit * start
        width = unit * frequency
        if width < RANGE_LEAST:
            low <<= 24
            width <<= 24
            shifts += 1
    rounded = -(-low >> 24) << 24
    return b"".join(
        (rounded >> 24 * place & 0xFFFFFF).to_bytes(3, "little") for place in range(shifts + 1, -1, -1)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 200), st.booleans())
def test_one_coder_equals_big_integers(seed: int, count: int, carry: bool) -> None:
    generator = np.random.default_rng(seed)
    if carry:
        # The top of the interval every time: digits full of ones, which a late carry must pass through.
        frequencies = [int(f) for f in generator.integers(1, 1 << 14, count)]
        intervals = [(TOTAL - f, f) for f in frequencies]
    else:
        starts = generator.integers(0, TOTAL - 1, count)
        intervals = [(int(s), int(generator.integers(1, TOTAL - s + 1))) for s in starts]
    encoder = BlockEncoder(1, 1)
    for start, frequency in intervals:
        encoder.step(np.array([start]), np.array([frequency]))
    assert encoder.finish_block() == encode_with_big_integers(intervals)


def test_words_are_pinned() -> None:
    encoder = BlockEncoder(3, 2)
    for step in range(4):
        start = np.array([1000 * step, 77777, TOTAL - 500])
        encoder.step(start, np.array([300, 5, 500]))
    assert encoder.finish_block().hex() == PINNED


PINNED = "2b0100d12f011bb6fd15ef0583719f69ab1df04f140d5994d4df06000000d1ed34000000000000"


@pytest.mark.parametrize("skew", [1.0, 60.0])
def test_size_is_within_the_bound(skew: float) -> None:
    generator = np.random.default_rng(3)
    steps, lanes = 400, 64
    starts = tables(generator, steps, lanes, skew)
    widths = np.diff(starts, axis=2, append=TOTAL) / TOTAL
    uniform = generator.random((steps, lanes, 1))
    symbols = np.minimum((widths.cumsum(2) < uniform).sum(2), 255)
    payload, bits = encode(starts, symbols, 8, lanes)
    assert len(payload) <= bits / 8 * 1.0001 + 16 * lanes
    assert math.isclose(len(payload), bits / 8, rel_tol=0.01)


def test_blocks_are_independent_and_the_encoder_says_when_one_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plain, "BLOCK_WORDS", 20)
    encoder = BlockEncoder(2, 1)
    payloads = []
    for _ in range(100):
        encoder.step(np.array([5, 6]), np.array([1, 1]))
        if encoder.is_full:
            payloads.append(encoder.finish_block())
    assert len(payloads) == 5 and len(set(payloads)) == 1


@pytest.mark.parametrize("payload", [b"", b"12345", b"1234567"])
def test_impossible_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(CorruptError, match="impossible length"):
        BlockDecoder(payload, 4, 4)


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=12, max_size=90))
def test_any_payload_gives_symbols_and_the_same_on_the_device(payload: bytes) -> None:
    payload = payload[: len(payload) // 3 * 3]
    starts = tables(np.random.default_rng(1), 30, 5, 2.0)
    host = BlockDecoder(payload, 5, 3)
    device = DeviceDecoder(5, 3, len(payload) // 3, torch.device("cpu"))
    device.load(payload)
    for step in range(30):
        found = host.step(starts[step])
        assert found.min() >= 0 and found.max() <= 255
        assert device.step(torch.from_numpy(starts[step]), 5).tolist() == found.tolist()
    assert host.words_left == device.words_left
