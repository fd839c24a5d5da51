"""The memory's kernels against its plain twin: state, bytes and payloads after every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kernels import DEVICE
from sepzip.coder.binary import MOST_BYTES_A_STEP, LaneCoders
from sepzip.lanes import longer_lanes, split_lanes
from sepzip.recall.device import DeviceCoders, DeviceMemory
from sepzip.recall.kernels.fields import follow_instruction
from sepzip.recall.native import BoundSegment
from sepzip.recall.plan import Plan, Settings, uses_of
from sepzip.recall.profiles import PROFILES
from sepzip.recall.recurrent import WINDOW
from sepzip.recall.state import LANE_CODE, PAD, Memory, arrays_of, new_memory, new_records

# Behind `kernels`, which sets Triton up.
import triton  # isort: skip
import triton.language as tl  # isort: skip

Bytes = NDArray[np.uint8]
Case = tuple[Plan, Settings]

SCALE = 6 if DEVICE.type == "cuda" else 1
"""The interpreter takes a good part of a second for a lane's byte."""


class Plain:
    """The compiled twin on the host, step by step."""

    def __init__(
        self, plan: Plan, settings: Settings, size: int, lanes: int, coders: LaneCoders, decodes: bool
    ) -> None:
        self.size, self.lanes = size, lanes
        self.memory, records = new_memory(plan, settings, size, lanes), new_records(settings, lanes)
        self._arguments = self.memory, records, settings, uses_of(plan), coders
        self._decodes = decodes
        self._steps = self.memory.history.shape[1] - PAD
        self._at = 0

    def step(self, symbols: Bytes | None) -> Bytes:
        """Code a byte of every lane and learn it; return them."""
        step, lanes, history = self._at, self.lanes, self.memory.history
        active = longer_lanes(self.size, lanes) if step == self._steps - 1 else lanes
        if symbols is not None:
            history[:, PAD + step] = symbols
        BoundSegment(*self._arguments, self._decodes).run(step, 1, active)
        self._at += 1
        return history[:, PAD + step].copy()


def new_coders(lanes: int, steps: int) -> LaneCoders:
    """Return coders that begin to encode so many steps."""
    room = steps * MOST_BYTES_A_STEP + 4
    at = np.arange(lanes, dtype=np.int64) * room
    low = np.zeros(lanes, np.int64)
    return LaneCoders(low, low + 0xFFFFFFFF, low.copy(), at, at + room, np.zeros(lanes * room, np.uint8))


def decoders_of(coders: LaneCoders, first: NDArray[np.int64]) -> LaneCoders:
    """Return coders that begin to decode what others have coded from their places `first` on."""
    lanes = len(first)
    data, end = coders.data.copy(), coders.at.copy()
    code = np.zeros(lanes, np.int64)
    for lane in range(lanes):
        for shift in (24, 16, 8, 0):
            data[end[lane]] = int(coders.low[lane]) >> shift & 255
            end[lane] += 1
        for i in range(4):
            code[lane] = code[lane] << 8 | data[first[lane] + i]
    low = np.zeros(lanes, np.int64)
    return LaneCoders(low, low + 0xFFFFFFFF, code, first + 4, end, data)


def step_behind(plain: Memory) -> dict[str, NDArray[np.generic]]:
    """Return copies of what a device's recurrent network changes only when the next step begins."""
    names = ("node_weights", "node_squares", "node_whole")
    return {name: array.copy() for name, array in arrays_of(plain).items() if name in names}


def same_memory(
    device: DeviceMemory, plain: Memory, before: dict[str, NDArray[np.generic]], step: int
) -> None:
    """Assert that both are the same to the last bit, apart from what is a step behind."""
    of_plain = arrays_of(plain) | before
    for name, array in arrays_of(device.numpy()).items():
        expected = of_plain[name]
        if name == "window_slopes":
            # The step's own are made with the next one's logits.
            array[step % WINDOW] = expected[step % WINDOW]
        assert array.dtype == expected.dtype and array.shape == expected.shape
        assert np.array_equal(array, expected), (name, step, np.argwhere(array != expected)[:5].tolist())


def same_coders(device: DeviceCoders, plain: LaneCoders) -> None:
    for name, array in device.numpy()._asdict().items():
        assert np.array_equal(array[: len(getattr(plain, name))], getattr(plain, name)), name


def check(case: Case, data: Bytes, lanes: int, directions: tuple[bool, ...] = (False, True)) -> None:
    """Assert that the twins are the same after every step, encoding and then decoding."""
    plan, settings = case
    symbols = split_lanes(data, lanes)
    coders = new_coders(lanes, len(symbols))
    first = coders.at.copy()
    for decodes in directions:
        if decodes:
            coders = decoders_of(coders, first)
        plain = Plain(plan, settings, len(data), lanes, coders, decodes)
        memory = DeviceMemory(plan, settings, len(data), lanes, DEVICE)
        on_device = DeviceCoders.new(lanes, len(coders.data), DEVICE)
        on_device.load(coders)
        if not decodes:
            memory.see(torch.from_numpy(symbols).to(DEVICE), 0)
        for step, row in enumerate(symbols):
            memory.step(on_device, decodes)
            before = step_behind(plain.memory)
            found = plain.step(None if decodes else row)
            assert found.tolist() == row.tolist()
            assert memory.seen(step, step + 1).cpu().numpy()[0].tolist() == row.tolist()
            if not decodes:
                # The plain twin has not seen what is still to come.
                plain.memory.history[:, PAD + step + 1 :] = symbols[step + 1 :].T
            same_memory(memory, plain.memory, before, step)
            same_coders(on_device, coders)
        assert int(memory.position.item()) == len(symbols)


def whole(
    profile: int,
    table_bits: int,
    record: int = 0,
    sample: int = 0,
    big_endian: int = 0,
    contexts: int = 0,
    recurrent: int = 0,
) -> Case:
    """Return a plan with all of its profile's contexts, or so many, and tables of a given size."""
    plan = Plan(profile, record, sample, big_endian)
    contexts = contexts or len(PROFILES[profile].contexts)
    columns = record if record < 1024 else 0
    return plan, Settings(contexts, table_bits, record, columns, sample, big_endian, recurrent)


def some_text(text: bytes, size: int) -> Bytes:
    # The same again and again, for matches.
    return np.frombuffer((text[2000 : 2000 + size // 3] * 4)[:size], np.uint8).copy()


def waves(size: int, sample: int, big_endian: bool, record: int) -> Bytes:
    generator = np.random.default_rng(size)
    count = size // sample + 1
    wave = 9000 * np.sin(np.arange(count) / 7) + generator.normal(0, 90, count)
    if record:
        wave += 4000 * np.sin(np.arange(count) * 6.28 * sample / record)
    if sample == 1:
        return (128 + wave / 110).astype(np.uint8)[:size]
    return wave.astype(">i2" if big_endian else "<i2").view(np.uint8)[:size].copy()


CODE = bytes.fromhex(
    "55 4889e5 8b442410 66c745fe3412 c5f96f0d00010000 f20f108424a0000000 0f8412000000 41b805000000"
    "48b81122334455667788 f6c101 f7d8 660f3a0fc108 8d0485f0ffffff c4e27918c1 0f38f000 62f17c4858c1"
    "66b80100 c8100000 803d1000000005 c3 e8"
)
"""x86 instructions of every form that is followed, the last one without its end."""


@pytest.mark.parametrize("lanes, size", [(1, 16), (3, 29), (20, 50), (64, 40)])
def test_text(text: bytes, lanes: int, size: int) -> None:
    check(whole(0, 12), some_text(text, size * SCALE), lanes)


def test_tables() -> None:
    # Lines of several lengths and gaps, an empty one, and one that is shorter than where it is looked above.
    lines = b"ab 1,2\ncd 34,,5\n\nxy\t6 7\nz\n"
    check(whole(6, 10), np.frombuffer((lines * 12)[: 44 * SCALE], np.uint8).copy(), 2)


def test_fields_of_lines() -> None:
    # Paragraphs, gaps of several kinds and lengths, fields that the line above has not or has longer, and a
    # line of more fields than are told apart.
    lines = b"ab  12|x;Yz\nC  345\t\n\r\n\nab 1,,2;k\n" + b"," * 35 + b"7\n1 2,3\n"
    check(whole(6, 10), np.frombuffer(lines[: 50 * SCALE], np.uint8).copy(), 1)
    check(whole(6, 10), np.frombuffer(lines[-64:], np.uint8).copy(), 1)


def test_markup() -> None:
    # Elements in elements, one that is empty, one that is no element, and one with an attribute.
    text = b"<a><b c='1'>x</b><d/>y</a><!-- z --><a\n>< 1</a>\r\n<?e?><f>"
    check(whole(7, 10), np.frombuffer(text * 2, np.uint8)[: 124 * SCALE].copy(), 2)


def test_text_in_pieces() -> None:
    # Letters behind backslashes, numbers that part words and such that do not.
    text = b"[(P)28(o)-414(\\246\\25)1(a\\2520)\\n(c\xe9D)-3333( g)]TJ 0 -13.5 Td "
    check(whole(9, 10), np.frombuffer(text, np.uint8)[: 66 * SCALE].copy(), 1)


@pytest.mark.parametrize("table_bits", [5, 7])
def test_lanes_that_fight_for_buckets(text: bytes, table_bits: int) -> None:
    check(whole(1, table_bits), some_text(text, 34 * SCALE), 12)


def test_a_recurrent_network(text: bytes) -> None:
    # Two windows of its steps, so that its weights have moved by what either half of the room held.
    check(whole(0, 8, contexts=2, recurrent=1), some_text(text, 2 * WINDOW + 2), 1, (False,))


def test_a_recurrent_network_of_lanes(text: bytes) -> None:
    steps = 2 * WINDOW + 2 if DEVICE.type == "cuda" else 4
    check(whole(0, 8, contexts=2, recurrent=1), some_text(text, 3 * steps), 3)


def test_long_matches() -> None:
    # At the 33rd byte a lane finds what was there before, of 32 bytes, and then goes on in it.
    check(whole(5, 9, contexts=2), np.frombuffer(b"abc" * 25 * SCALE, np.uint8), 2)


@pytest.mark.parametrize("record", [3, 1000, 1024])
def test_records(record: int) -> None:
    data = np.random.default_rng(record).integers(0, 4, 25 * SCALE).astype(np.uint8)
    check(whole(2, 10, record=record), data, 2)


@pytest.mark.parametrize(
    "sample, big_endian, record",
    [(1, 0, 0), (1, 0, 5), (2, 0, 0), (2, 0, 6), (2, 1, 0), (2, 1, 6), (2, 1, 7)],
)
def test_samples(sample: int, big_endian: int, record: int) -> None:
    data = waves(27 * SCALE, sample, big_endian > 0, record)
    check(whole(3, 10, record=record, sample=sample, big_endian=big_endian), data, 2)


def test_floats() -> None:
    values = np.cumsum(np.random.default_rng(1).normal(0, 1, 5 * SCALE)).astype("<f8")
    data = values.view(np.uint8)[:-3].copy()
    check(whole(4, 10, record=16), data, 1)
    check(whole(4, 10), data[:21].copy(), 2)


def test_genome() -> None:
    data = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(1).integers(0, 4, 22 * SCALE)]
    check(whole(5, 10), data, 3)


def test_instructions() -> None:
    # The second lane begins within one.
    check(whole(8, 10), np.frombuffer((CODE * 6)[: 36 * SCALE], np.uint8), 2)


@triton.jit
def _follow(state, followed_code, instructions, data, count):
    for i in range(count):
        follow_instruction(state, followed_code, instructions, tl.load(data + i).to(tl.int32))
        tl.debug_barrier()


def test_instructions_are_followed() -> None:
    # Again, for what followed, and then bytes that are none.
    noise = np.random.default_rng(8).integers(0, 256, 500 * SCALE).astype(np.uint8)
    data = np.concatenate([np.frombuffer(CODE + CODE, np.uint8), noise])
    case = whole(8, 10, contexts=1)
    plain = Plain(*case, len(data), 1, new_coders(1, len(data)), False)
    memory = DeviceMemory(*case, len(data), 1, DEVICE).tensors
    at = 0
    for end in (len(CODE) // 2, len(CODE), 2 * len(CODE), len(data)):
        symbols = torch.from_numpy(data[at:end]).to(DEVICE)
        _follow[(1,)](memory["lane"], memory["followed_code"], memory["instructions"], symbols, end - at)
        for symbol in data[at:end]:
            plain.step(np.array([symbol]))
        at = end
        numbers = memory["lane"].cpu().numpy()[0, LANE_CODE : LANE_CODE + 7]
        assert numbers.tolist() == plain.memory.lane[0, LANE_CODE : LANE_CODE + 7].tolist()
        assert np.array_equal(memory["followed_code"].cpu().numpy(), plain.memory.followed_code)
    assert len(np.unique(plain.memory.followed_code)) > 100
