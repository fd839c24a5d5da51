"""The memory of contexts: what it codes comes back, whatever the plan, and damage is an error."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sepzip.coder.binary import read_streams
from sepzip.engine import decode_segment, encode_segment
from sepzip.errors import CorruptError, SepError
from sepzip.presets import NETWORKS, ModelSettings
from sepzip.recall import analysis, host, segments, state
from sepzip.recall.calls import make_absolute, make_relative
from sepzip.recall.functions import SQUASH_MOST, functions
from sepzip.recall.plan import Plan, encode_plan, read_plan
from sepzip.recall.profiles import FIELDS, MOST_CONTEXTS, PROFILES, WORD, Field
from sepzip.recall.state import LANE_CODE, LANE_CODE_1, LANE_OPCODES, LANE_PART, fingerprint
from sepzip.segment import CodedBlock

MODEL = replace(NETWORKS["recall"][False].model, table_bits=14)
SMALL = replace(MODEL, contexts=4, table_bits=12)
TEXT, PROGRAM, RECORDS, SAMPLES, FLOATS, GENOME, TABLE, MARKUP, X86, IN_PIECES = range(10)

PLANS = [
    Plan(TEXT),
    Plan(PROGRAM, calls=1),
    Plan(RECORDS, 13),
    Plan(RECORDS, 2000),
    Plan(SAMPLES, 0, 1),
    Plan(SAMPLES, 3, 1),
    Plan(SAMPLES, 40, 2),
    Plan(SAMPLES, 0, 2, 1),
    Plan(FLOATS, 8),
    Plan(GENOME),
    Plan(TABLE),
    Plan(MARKUP),
    Plan(X86),
    Plan(X86, calls=2),
    Plan(IN_PIECES),
]


def with_plan(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """Let the encoder take this plan."""
    monkeypatch.setattr(analysis, "choose_plan", lambda data, model, row=0: plan)


def bytes_of(kind: str, size: int) -> bytes:
    """Return material with repeats, numbers and noise."""
    generator = random.Random(f"{kind} {size}")
    if kind == "text":
        words = ["the", "lane", "of", "a", "memory", "\n", "context", "1984"]
        return " ".join(generator.choice(words) for _ in range(size)).encode()[:size]
    if kind == "samples":
        steps = np.cumsum([generator.randrange(-40, 41) for _ in range(size // 2 + 1)])
        return steps.astype("<i2").tobytes()[:size]
    if kind == "code":
        ends = [b"\0", b"\xff"]
        return b"".join(b"\xe8" + generator.randbytes(3) + generator.choice(ends) for _ in range(size // 5))
    return generator.randbytes(size)


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize(
    ("kind", "size", "lanes"), [("text", 3000, 7), ("samples", 5001, 3), ("noise", 700, 1)]
)
def test_a_segment_comes_back(
    plan: Plan, kind: str, size: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_plan(monkeypatch, plan)
    data = bytes_of(kind, size)
    blocks = list(encode_segment(data, MODEL, lanes, "cpu"))
    assert decode_segment(blocks, size, MODEL, lanes, "cpu") == data


@settings(max_examples=25, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=400),
    repeats=st.integers(1, 4),
    lanes=st.integers(1, 40),
    plan=st.sampled_from(PLANS),
)
def test_any_bytes_come_back(data: bytes, repeats: int, lanes: int, plan: Plan) -> None:
    content = data * repeats
    lanes = min(lanes, len(content))
    with pytest.MonkeyPatch.context() as patch:
        with_plan(patch, plan)
        blocks = list(encode_segment(content, SMALL, lanes, "cpu"))
        assert decode_segment(blocks, len(content), SMALL, lanes, "cpu") == content


def test_repeats_are_found_in_other_lanes() -> None:
    x, y, z = (random.Random(i).randbytes(4000) for i in range(3))
    contents = x + y + z + y, x + y + z + x
    sizes = [sum(len(b.payload) for b in encode_segment(content, MODEL, 2, "cpu")) for content in contents]
    # In the second, what the second lane ends with is what the first began with.
    assert sizes[0] > 16_000
    assert sizes[1] < 12_500


@pytest.mark.parametrize("threads", ["2", "3"])
def test_threads_change_nothing(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes_of("text", 12_000)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = list(encode_segment(data, MODEL, 64, "cpu"))
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert list(encode_segment(data, MODEL, 64, "cpu")) == alone
    assert decode_segment(alone, len(data), MODEL, 64, "cpu") == data


def test_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sepzip.coder.binary.BLOCK_BYTES", 1000)
    data = bytes_of("noise", 9000)
    blocks = list(encode_segment(data, MODEL, 4, "cpu"))
    assert len(blocks) > 3
    assert decode_segment(blocks, len(data), MODEL, 4, "cpu") == data


def test_a_damaged_payload_is_an_error() -> None:
    data = bytes_of("text", 2000)
    (block,) = encode_segment(data, MODEL, 5, "cpu")
    generator = random.Random(1)
    errors = 0
    for _ in range(60):
        payload = bytearray(block.payload)
        payload[generator.randrange(len(payload))] ^= 1 << generator.randrange(8)
        damaged = CodedBlock(block.steps, block.fingerprint, bytes(payload))
        try:
            # The last bits of what a lane emitted may be any.
            assert decode_segment([damaged], len(data), MODEL, 5, "cpu") == data
        except SepError:
            errors += 1
    assert errors > 50


@settings(max_examples=150, deadline=None)
@given(head=st.binary(max_size=6), rest=st.binary(max_size=200), lanes=st.integers(1, 9))
def test_a_hostile_payload_is_an_error_or_bytes(head: bytes, rest: bytes, lanes: int) -> None:
    block = CodedBlock(40, 0, head + rest)
    with pytest.raises(SepError):
        decode_segment([block], 40 * lanes, SMALL, lanes, "cpu")


@given(st.binary(max_size=12))
def test_a_plan_is_read_as_it_is_written(payload: bytes) -> None:
    try:
        plan, rest = read_plan(payload)
    except CorruptError:
        return
    assert encode_plan(plan) + rest == payload


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_plans_can_be_read(plan: Plan) -> None:
    assert read_plan(encode_plan(plan) + b"rest") == (plan, b"rest")


@given(payload=st.binary(max_size=40), lanes=st.integers(1, 50))
def test_lengths_are_checked(payload: bytes, lanes: int) -> None:
    try:
        coders = read_streams(payload, lanes)
    except CorruptError:
        return
    assert coders.end[-1] == len(payload)


CODES = [0xE8, 0xE9, 0, 255, 1, 5, 0x0F, 0x10, 0x48, 0x4C, 0x80, 0x8B, 0x8D]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(CODES), max_size=60), st.binary(max_size=40), st.booleans())
def test_calls_go_back(codes: list[int], data: bytes, wide: bool) -> None:
    # Displacements within others.
    content = np.frombuffer(bytes(codes) + data + bytes(codes), np.uint8)
    absolute = make_absolute(content, wide)
    make_relative(absolute, wide)
    assert (absolute == content).all()


CALL, LOAD, BARE, VECTOR = (bytes.fromhex(code) for code in ("e8", "488d05", "8b0d", "0f1005"))


@pytest.mark.parametrize(
    ("codes", "wide"), [([CALL] * 3, False), ([CALL] * 3, True), ([LOAD, CALL, LOAD, BARE, VECTOR], True)]
)
def test_what_has_one_address_looks_alike(codes: list[bytes], wide: bool) -> None:
    content = np.zeros(400, np.uint8)
    places = []
    for number, code in enumerate(codes):
        place = 10 + 70 * number + len(code)
        content[place - len(code) : place] = np.frombuffer(code, np.uint8)
        content[place : place + 4] = np.frombuffer((1001 - place).to_bytes(4, "little"), np.uint8)
        places.append(place)
    absolute = make_absolute(content, wide)
    assert [absolute[p : p + 4].tolist() for p in places] == [[232, 3, 0, 0]] * len(codes)


def test_operands_of_narrow_code_stay_as_they_are() -> None:
    content = np.frombuffer(bytes(9) + LOAD + (5000).to_bytes(4, "little") + bytes(20), np.uint8)
    assert (make_absolute(content) == content).all()
    assert (make_absolute(content, True) != content).any()


def test_functions_are_what_they_say() -> None:
    tables = functions()
    p = (np.arange(4096) + 0.5) / 4096
    assert (tables.stretch == np.round(256 * np.log(p / (1 - p)))).all()
    x = np.arange(-SQUASH_MOST - 1, SQUASH_MOST + 2)
    expected = np.clip(np.round(65536 / (1 + np.exp(-x / 256))), 1, 65535)
    assert (tables.squash[: len(x) - 1] == expected[:-1]).all()
    assert tables.root[100] == 409


def test_profiles_fit_the_mixer() -> None:
    for profile in PROFILES.values():
        assert 0 < len(profile.contexts) <= MOST_CONTEXTS
        assert len(set(profile.contexts)) == len(profile.contexts)
    assert max(Field) < FIELDS and Field.SAMPLE + 9 <= Field.LEFT_OF_ABOVE


def parts_of(instructions: list[str]) -> list[tuple[bytes, NDArray[np.int64]]]:
    """Return each instruction and what a lane knows behind it, having followed it from its first byte."""
    known = []
    for instruction in instructions:
        code = bytes.fromhex(instruction)
        numbers = []
        for end in range(1, len(code) + 1):
            numbers.append(run_of(code[:end], 1, Plan(X86))._run.memory.lane[0].copy())
        known.append((code, np.array(numbers)))
    return known


def test_instructions_end_where_they_do() -> None:
    instructions = (
        "55 90 c3 4889e5 8b442410 a100004000 66c745fe3412 8b0411 8d0485f0ffffff 8b8500010000 488b0510000000"
        " f20f108424a0000000 0f8412000000 48b81122334455667788 41b801000000 66b80100 c8100000 6a01 6800010000"
        " f6c101 f6d8 f7c101000000 f7d8 66f7c10100 c1e002 803d1000000005 69c010270000 6bc00a 7405 ebfe"
        " e8f0ffffff c20800 660f3a0fc108 0f38f00f 0fb6c0 0fa2 0f77 c5f96f0d00010000 c4e27918c1 c5f9c5c001"
        " c4e37921c001 62f17c4858c1 9a001122334455 d9c0 ff1510000000"
    )
    for code, numbers in parts_of(instructions.split()):
        parts = numbers[:, LANE_PART]
        within = (parts != 0) | (numbers[:, LANE_CODE] != 0)
        # A prefix that changes nothing leaves no mark, but none is the last byte here.
        assert not within[-1] and (numbers[:-1, LANE_CODE_1] == 0).all(), code.hex()
        opcodes = int(numbers[-1, LANE_OPCODES])
        assert 0 < opcodes < 256, code.hex()


def test_parts_of_an_instruction() -> None:
    # add dword [ebp + 0x1234], 0x55667788
    ((_, numbers),) = parts_of(["818534120000 88776655".replace(" ", "")])
    parts = numbers[:-1, LANE_PART]
    kinds, places, sizes = parts & 15, parts >> 4 & 15, parts >> 8 & 15
    assert kinds.tolist() == [4, 6, 6, 6, 6, 7, 7, 7, 7]
    assert places.tolist() == [0, 0, 1, 2, 3, 0, 1, 2, 3]
    assert sizes.tolist() == [0] + [4] * 8
    assert numbers[-1, LANE_CODE_1] == 0x8581
    assert Field.SAMPLE + 9 <= Field.LEFT_OF_ABOVE and max(Field) < FIELDS


def choose(data: NDArray[np.uint8]) -> Plan:
    """Return the plan for these bytes."""
    return analysis.choose_plan(data, MODEL)


def test_plans_follow_the_data() -> None:
    generator = np.random.default_rng(3)
    rows = np.cumsum(generator.integers(-3, 4, (200, 60)), 0)[:, :, None] + np.zeros(1, np.int64)
    assert choose(np.frombuffer(bytes_of("text", 9000), np.uint8)).profile in (TEXT, MARKUP)
    bases = generator.choice(np.frombuffer(b"ACGT", np.uint8), 40_000)
    assert choose(bases).profile in (TEXT, GENOME, MARKUP)
    walk = np.cumsum(generator.integers(-300, 301, 40_000)).astype("<i2").view(np.uint8)
    assert choose(walk)[::2] == (SAMPLES, 2, 0)
    assert choose(rows.astype(np.uint8).reshape(-1)).record % 60 == 0


def test_programs_for_x86_are_known_by_their_calls() -> None:
    generator = random.Random(8)
    call, load = b"\xe8\x10%c\0\0", b"\x48\x8d\x0d\x20%c\0\0"
    pieces = []
    for _ in range(1000):
        pieces.append(call % generator.randrange(256) + generator.randbytes(generator.randrange(20, 50)))
    narrow = np.frombuffer(b"".join(pieces), np.uint8)
    assert choose(narrow)[::4] == (X86, 1)
    pieces = [piece + load % generator.randrange(256) for piece in pieces]
    assert choose(np.frombuffer(b"".join(pieces), np.uint8))[::4] == (X86, 2)
    # One in twenty is what chance gives.
    assert choose(np.frombuffer(b"".join(pieces[:50]) + bytes_of("noise", 35_000), np.uint8)).calls == 0


@pytest.mark.parametrize("block", [3, 7, 64, 1 << 17])
def test_what_is_searched_in_blocks_is_counted_once(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "_BLOCK", block)

    def content(size: int, *pieces: tuple[bytes, int]) -> NDArray[np.uint8]:
        data = bytearray(b"\1") * size
        for place, (piece, count) in enumerate(pieces):
            for number in range(count):
                at = number * (size // count) + 10 * place
                data[at : at + len(piece)] = piece
        return np.frombuffer(data, np.uint8)

    call, load = (b"\xe8\x10\x20\x30\0", 20), (b"\x48\x8d\x0d\x20\1\1\xff", 2)
    assert [analysis._calls(content(size, call)) for size in (7999, 8000)] == [1, 0]
    assert [analysis._calls(content(size, call, load)) for size in (7999, 8000)] == [2, 0]
    more = (call[0], 30)
    assert [analysis._calls(content(size, more, load)) for size in (7999, 8000)] == [2, 1]
    pieces = (b")2", 50)
    assert [analysis._is_in_pieces(content(size, pieces)) for size in (1999, 2000)] == [True, False]


def test_a_plan_for_code_of_64_bits_has_calls() -> None:
    assert read_plan(bytes([X86, 8 + 32, 0]))[0] == Plan(X86, calls=2)
    with pytest.raises(CorruptError):
        read_plan(bytes([X86, 32, 0]))


def test_lines_of_columns_are_a_table(text: bytes) -> None:
    lines = "".join(f"{i:6d}{i * i:10d}{math.sqrt(i):12.6f}\n" for i in range(1000)).encode()
    full = replace(MODEL, table_bits=18)
    assert analysis.choose_plan(np.frombuffer(lines, np.uint8), full).profile == TABLE
    # Zeros between texts, as in archives, make no program of them.
    archive = b"".join(text[at : at + 2000] + bytes(150) for at in range(0, 40_000, 2000))
    assert analysis.choose_plan(np.frombuffer(archive, np.uint8), full).profile == MARKUP


def test_text_in_pieces_has_a_profile(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, ends = random.Random(7), ["", "", ")28("]
    kerned = "".join(
        f")-{generator.randrange(280, 300)}(" if letter.isspace() else letter + generator.choice(ends)
        for letter in text[:20_000].decode("latin-1").replace("(", "").replace(")", "")
    )
    pages = np.frombuffer(f"[({kerned})]TJ".encode("latin-1"), np.uint8)
    tried = set()

    def note(sample: NDArray[np.uint8], plan: Plan, model: ModelSettings) -> int:
        tried.add(plan.profile)
        return -plan.profile

    assert analysis.choose_plan(pages, replace(MODEL, table_bits=18)).profile == IN_PIECES
    monkeypatch.setattr(analysis, "_size", note)
    assert choose(pages).profile == IN_PIECES
    tried.clear()
    choose(np.frombuffer(text, np.uint8))
    assert IN_PIECES not in tried


def lane_of(data: bytes, plan: Plan, names: tuple[int, ...]) -> list[int]:
    """Return some of a lane's numbers after these bytes."""
    return [int(number) for number in run_of(data, 1, plan)._run.memory.lane[0, list(names)]]


def word_of(word: bytes) -> int:
    """Return the hash of a word."""
    known = 0
    for byte in word:
        known = (known + byte + 1) * WORD & 0xFFFFFFFF
    return known


def test_words_go_on_over_what_parts_their_pieces() -> None:
    names = (state.LANE_LETTERS, state.LANE_SPOKEN, state.LANE_SPOKEN_1, state.LANE_INSIDE)
    octal = word_of(b"g252o")
    assert lane_of(b"[(P)28(o)-414(G\\2)1(52)", Plan(IN_PIECES), names)[2:] == [word_of(b"po"), 0]
    letters = int.from_bytes(b"\0g\xaao", "big")
    assert lane_of(b"[(P)28(o)-414(G\\252)1(o", Plan(IN_PIECES), names) == [letters, octal, word_of(b"po"), 1]
    assert lane_of(b"ab-c 99 de", Plan(MARKUP), names)[:3] == [0x63006465, word_of(b"de"), word_of(b"abc")]


def test_open_elements_are_known() -> None:
    numbers = state.LANE_DEPTH, *range(state.LANE_NAME, state.LANE_FIELD)

    def tags(data: bytes) -> list[int]:
        depth, *names = lane_of(data, Plan(MARKUP), numbers)
        return [names[depth & 15], names[(depth - 1) & 15]]

    html, p = word_of(b"html"), word_of(b"p")
    assert tags(b"<?xml?><html><p class='a'>x<br/>") == [p, html]
    assert tags(b"<html><p>x</") == [p, html]
    assert tags(b"<html><p>x</p>")[0] == html
    assert tags(b"<html>a < b <!-- c --><p") == [p, html]


def test_fields_above_are_known() -> None:
    names = (state.LANE_FIELD, state.LANE_FIELD_ABOVE, state.LANE_FIELD_ABOVE_END, state.LANE_TOKEN_ABOVE)
    assert lane_of(b"ab,cd,efg\nx,", Plan(TABLE), names) == [1, 3, 6, word_of(b"cd")]
    assert lane_of(b"ab,cd,efg\nx,yyyy  ", Plan(TABLE), names) == [2, 6, 10, word_of(b"efg")]
    assert lane_of(b"ab,cd\nx,yyyy;", Plan(TABLE), names)[:2] == [2, -1]
    paragraph = (state.LANE_PARAGRAPH,)
    assert lane_of(b"a\n\nb\r\n\r\nc\n", Plan(TABLE), paragraph) == [2]


def test_rows_of_pixels_that_are_known_are_tried() -> None:
    generator = np.random.default_rng(6)
    # A row is much like the one above, a byte nothing like the one before; five rows are too few to see it.
    row = generator.integers(0, 256, 3001)
    rows = row + generator.integers(-1, 2, (5, 3001))
    data = np.ascontiguousarray(rows).astype(np.uint8).reshape(-1)
    assert analysis.choose_plan(data, MODEL, 3001).record == 3001
    assert analysis.choose_plan(data, MODEL).record != 3001


@pytest.mark.parametrize("size", [32_769, 40_003, 70_007, 1_000_001])
@pytest.mark.parametrize("record", [0, 3, 24, 502, 4095])
def test_plans_are_tried_on_pieces_from_all_over(size: int, record: int) -> None:
    """Numbers and records go on: places in the sample and in the data differ by whole ones of them."""
    data = np.arange(-(-size // 4), dtype="<u4").view(np.uint8)[:size]
    sample = analysis._sample(data, 1 << 15, Plan(2, record))
    assert len(sample) == 1 << 15
    # Each number of four bytes says where it lies, but for those that a piece cuts.
    places = 4 * sample[: 1 << 15].view("<u4").astype(np.int64) - np.arange(0, 1 << 15, 4)
    offsets = places.reshape(4, -1)
    assert (offsets == offsets[:, :1]).all() and (offsets >= 0).all()
    assert not (offsets % 8).any() and not (offsets % max(1, record)).any()
    middles = offsets[:, 0] + (np.arange(4) + 0.5) * 8192
    if size > 300_000:
        assert (np.abs(middles / size - np.array([1, 3, 5, 7]) / 8) < 0.05).all()
    few = data[: 1 << 15]
    assert analysis._sample(few, 1 << 15, Plan(2, record)) is few


def test_the_middle_alone_chooses_no_plan() -> None:
    """Steps of sound between two texts, of which there is more, are no reason to code these as sound."""
    sound = np.cumsum(np.random.default_rng(4).integers(-300, 301, 1 << 15)).astype("<i2").tobytes()
    source = Path(__file__).read_bytes() * 4
    assert choose(np.frombuffer(sound, np.uint8)).profile == 3
    assert choose(np.frombuffer(source + sound + source, np.uint8)).profile != 3


def run_of(data: bytes, lanes: int, plan: Plan) -> host.HostEncoding:
    """Return an encoder that has seen these bytes in so many lanes."""
    run = host.HostEncoding(plan, MODEL, len(data), lanes, None, None)
    symbols = np.frombuffer(data, np.uint8).reshape(lanes, -1).T
    run.queue(np.ascontiguousarray(symbols), lanes, False)
    return run


@pytest.mark.parametrize(("recurrent", "expected"), [(0, 1 << 15), (1, 1 << 16)])
def test_plans_are_tried_on_more_where_coding_takes_long(
    recurrent: int, expected: int, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = set()

    def size(sample: NDArray[np.uint8], plan: Plan, model: ModelSettings) -> int:
        tried.add(len(sample))
        return len(sample)

    monkeypatch.setattr(analysis, "_size", size)
    data = np.frombuffer((text * (1 + (1 << 20) // len(text)))[: 1 << 20], np.uint8)
    analysis.choose_plan(data, replace(MODEL, recurrent=recurrent))
    assert tried == {expected}


def test_slots_keep_their_last_two_bits() -> None:
    slots = run_of(bytes_of("text", 256), 1, Plan(TEXT))._run.memory.slots[:, :, 1:]
    count, recent, p = slots >> 16 & 127, slots >> 23, (slots & 0xFFFF) ^ 0x8000
    assert (slots[count == 0] == 0).all() and (recent < 4).all()
    once, twice = count == 1, count == 2
    assert (recent[once] == (p[once] > 32768)).all()
    assert ((recent[twice] == 0) == (p[twice] < 10_000)).all()
    assert ((recent[twice] == 3) == (p[twice] > 50_000)).all()


@pytest.mark.parametrize(
    ("ones", "zeros", "recent"),
    [(1, 0, 1), (0, 1, 0), (0, 3, 0), (3, 0, 3), (2, 1, 1), (1, 2, 2), (1, 1, 2)],
)
def test_bits_of_lanes_that_meet(ones: int, zeros: int, recent: int) -> None:
    lanes = ones + zeros
    slots = run_of(b"\x88" * ones + b"\0" * zeros, lanes, Plan(GENOME))._run.memory.slots[:, :, 1]
    met = slots[slots >> 16 & 127 == lanes]
    assert len(met) and (met >> 23 == recent).all()


def test_kinds_of_bytes() -> None:
    kinds = run_of(b"a", 1, Plan(TEXT))._run.memory.kinds
    for kind, members in enumerate((b" ", b"azAZ", b"09", b"\x80\xff", b"\0\n\x1f", b"!./", b":@[`{\x7f")):
        assert {int(kinds[byte]) for byte in members} == {kind}


def test_the_fingerprint_sees_each_part() -> None:
    data = bytes_of("text", 256)
    memory = run_of(data, 1, Plan(TEXT))._run.memory
    before = fingerprint(memory)
    for part in (memory.weights, memory.final_weights, memory.cells, memory.lengths):
        part.reshape(-1)[-1] += 1
        assert fingerprint(memory) != before
        part.reshape(-1)[-1] -= 1
    assert fingerprint(memory) == before
    assert segments.prepare(np.zeros(100, np.uint8), MODEL)[0].profile in PROFILES
