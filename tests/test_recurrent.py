"""The recurrent network of a memory, on a host: every build of it learns the same, and bytes come back."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sepzip.coder.binary import new_coders
from sepzip.engine import decode_segment, encode_segment
from sepzip.presets import NETWORKS
from sepzip.recall import analysis
from sepzip.recall.native import BoundSegment, use_recurrent_build
from sepzip.recall.plan import Plan, settings_of, uses_of
from sepzip.recall.primer import primer
from sepzip.recall.recurrent import WINDOW
from sepzip.recall.state import PAD, arrays_of, new_memory, new_records

MODEL = replace(NETWORKS["recall"][False].model, contexts=2, table_bits=12, recurrent=1)
PLAN = Plan(0)
STEPS = 20 * WINDOW + 7


def some_bytes(kind: str, size: int) -> NDArray[np.uint8]:
    """Return bytes of English text or of a compiled program, from places with something in them."""
    if kind == "text":
        return primer()[:size]
    spec = importlib.util.find_spec("sepzip.recall._memory")
    assert spec is not None
    assert spec.origin is not None
    return np.frombuffer(Path(spec.origin).read_bytes(), np.uint8)[0x2000 : 0x2000 + size]


def learnt(
    build: int | None, data: NDArray[np.uint8], lanes: int, threads: int, ends: tuple[int, ...] = (STEPS,)
) -> dict[str, NDArray[np.generic]]:
    """Return all that is known after coding these bytes by a build, bound anew after each of these steps."""
    use_recurrent_build(build)
    settings = settings_of(PLAN, MODEL, data.size)
    memory, records = new_memory(PLAN, settings, data.size, lanes), new_records(settings, lanes)
    memory.history[:, PAD : PAD + STEPS] = data.reshape(lanes, STEPS)
    coders = new_coders(lanes, STEPS)
    for begin, end in zip((0, *ends), ends, strict=False):
        bound = BoundSegment(memory, records, settings, uses_of(PLAN), coders, decodes=False)
        bound.run(begin, end - begin, lanes, threads)
    return arrays_of(memory) | {"codes": coders.data}


def check_equal(found: dict[str, NDArray[np.generic]], expected: dict[str, NDArray[np.generic]]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


@pytest.fixture(autouse=True)
def _fastest_afterwards() -> Iterator[None]:
    yield
    use_recurrent_build(None)


@pytest.mark.parametrize(("lanes", "threads"), [(1, 1), (2, 1), (3, 1), (8, 2)])
@pytest.mark.parametrize("kind", ["text", "program"])
def test_every_build_learns_the_same(kind: str, lanes: int, threads: int) -> None:
    data = some_bytes(kind, lanes * STEPS)
    builds = use_recurrent_build(None)
    if builds == 1:
        pytest.skip("plain C is the only build for this processor")
    plain = learnt(0, data, lanes, 1)
    # All weights have moved.
    assert (plain["node_whole"] != 0).any()
    assert (plain["unit_squares"][1] != 0).all()
    for build in (*range(1, builds), None):
        check_equal(learnt(build, data, lanes, threads), plain)


@pytest.mark.parametrize("build", [0, None])
def test_a_room_is_made_anew_at_any_step(build: int | None) -> None:
    data = some_bytes("text", 2 * STEPS)
    ends = WINDOW, WINDOW + 1, 3 * WINDOW - 1, 5 * WINDOW + 3, STEPS
    check_equal(learnt(build, data, 2, 1, ends), learnt(build, data, 2, 1))


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_what_one_build_codes_another_decodes(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "choose_plan", lambda data, model, row=0: PLAN)
    data = some_bytes("text", 6001).tobytes()
    blocks = list(encode_segment(data, MODEL, lanes, "cpu"))
    without = list(encode_segment(data, replace(MODEL, recurrent=0), lanes, "cpu"))
    # It is beside the contexts, and of use.
    assert sum(len(block.payload) for block in blocks) < sum(len(block.payload) for block in without)
    use_recurrent_build(0)
    assert decode_segment(blocks, len(data), MODEL, lanes, "cpu") == data
