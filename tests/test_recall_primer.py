"""The primer: small texts gain by it, and it is learnt alike by whoever reads it, wherever."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from kernels import DEVICE
from sepzip.engine import decode_segment, encode_segment
from sepzip.errors import CorruptError
from sepzip.memory import memory_needed
from sepzip.presets import NETWORKS
from sepzip.recall import analysis, primer
from sepzip.recall.device import DeviceMemory
from sepzip.recall.plan import Plan, encode_plan, read_plan, settings_of
from sepzip.recall.state import arrays_of, new_memory
from sepzip.segment import CodedBlock

FULL = NETWORKS["recall"][False].model
DIGEST = "bd4ac19784fdd386894a5f87162f5c83e9e544b04bbfac4a70deb33446c60f78"
MODEL = replace(FULL, contexts=6, table_bits=16)
TEXT, PROGRAM, RECORDS = range(3)


def with_plan(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """Let the encoder take this plan."""
    monkeypatch.setattr(analysis, "choose_plan", lambda data, model, row=0: plan)


def test_the_primer_is_the_one_of_the_format() -> None:
    data = primer.primer().tobytes()
    assert hashlib.sha256(data).hexdigest() == DIGEST


@pytest.mark.parametrize("plan", [Plan(TEXT, primer=1), Plan(PROGRAM, calls=1, primer=1)], ids=str)
@pytest.mark.parametrize(("size", "lanes"), [(1, 1), (3000, 1), (5001, 7)])
def test_a_primed_segment_comes_back(
    text: bytes, plan: Plan, size: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_plan(monkeypatch, plan)
    data = text[:size]
    blocks = list(encode_segment(data, MODEL, lanes, "cpu"))
    assert decode_segment(blocks, size, MODEL, lanes, "cpu") == data


def test_what_was_kept_is_what_is_learnt_afresh(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with_plan(monkeypatch, Plan(TEXT, primer=1))
    blocks = list(encode_segment(text[:2000], MODEL, 2, "cpu"))
    assert list(encode_segment(text[:2000], MODEL, 2, "cpu")) == blocks
    monkeypatch.setattr(primer, "_KEPT_MOST", 0)
    assert list(encode_segment(text[:2000], MODEL, 2, "cpu")) == blocks
    assert decode_segment(blocks, 2000, MODEL, 2, "cpu") == text[:2000]


def test_small_texts_gain_by_it_and_the_plan_says_so(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    data = text[20_000:30_000]
    plan = analysis.choose_plan(np.frombuffer(data, np.uint8), FULL)
    assert plan == Plan(plan.profile, primer=1)
    sizes = []
    for primed in (0, 1):
        with_plan(monkeypatch, Plan(plan.profile, primer=primed))
        sizes.append(sum(len(block.payload) for block in encode_segment(data, FULL, 1, "cpu")))
    assert sizes[1] < 0.92 * sizes[0]


def test_other_bytes_do_without_it() -> None:
    data = np.random.default_rng(1).integers(0, 256, 9000).astype(np.uint8)
    repeated = np.frombuffer(b"\xce\xb1\xce\xb2 " * 2000, np.uint8)
    for content in (data, repeated):
        assert analysis.choose_plan(content, MODEL).primer == 0


def test_large_segments_are_not_tried_with_it(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "_PRIMED_MOST", dict.fromkeys(analysis._PRIMED_MOST, 5000))
    assert analysis.choose_plan(np.frombuffer(text[:5001], np.uint8), MODEL).primer == 0


@pytest.mark.parametrize("plan", [Plan(RECORDS, 5, primer=1), Plan(5, primer=1)], ids=str)
def test_a_primer_for_other_profiles_is_damage(plan: Plan) -> None:
    with pytest.raises(CorruptError):
        read_plan(encode_plan(plan))


def test_a_primed_payload_that_was_cut_is_an_error(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with_plan(monkeypatch, Plan(TEXT, primer=1))
    (block,) = encode_segment(text[:3000], MODEL, 3, "cpu")
    for plan in (Plan(TEXT), Plan(PROGRAM, primer=1)):
        # The same payload under another plan gives other bytes, which the fingerprint finds.
        _, rest = read_plan(block.payload)
        damaged = CodedBlock(block.steps, block.fingerprint, encode_plan(plan) + rest)
        with pytest.raises(CorruptError):
            decode_segment([damaged], 3000, MODEL, 3, "cpu")


def test_tables_have_room_for_it() -> None:
    size = 1000
    plain, primed = (settings_of(Plan(TEXT, primer=primer), FULL, size) for primer in (0, 1))
    assert (plain.table_bits, primed.table_bits) == (12, 17)
    assert memory_needed(FULL, 1, size) > new_memory(Plan(TEXT, primer=1), primed, size, 1).slots.nbytes


def test_a_device_begins_with_the_same_memory() -> None:
    plan = Plan(TEXT, primer=1)
    settings = settings_of(plan, MODEL, 4000)
    memory = primer.first_memory(plan, settings, 4000, 3)
    assert memory.slots.any()
    on_device = DeviceMemory(plan, settings, 4000, 3, DEVICE).numpy()
    copies = arrays_of(on_device)
    for name, array in arrays_of(memory).items():
        assert np.array_equal(array, copies[name]), name
