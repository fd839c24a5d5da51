"""What the tests share: real text, a model small enough for a test, and a stand-in for the engine."""

from __future__ import annotations

import os
import pydoc_data.topics
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from sepzip.presets import ModelSettings, Preset
from sepzip.profile import Profile
from sepzip.segment import CodedBlock

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each of the processes that share the tests keeps to one core. Nothing has imported torch yet.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = ModelSettings(
    network="pac",
    semantics=True,
    context=6,
    patch=4,
    stride=2,
    embedding=4,
    lane_widths=(4, 8),
    hidden=16,
    learning_rate=1000,
    learning_rate_last=1000,
    learning_rate_steps=1,
    seed=0,
    lanes_per_coder=4,
)

TINY_LSTM = replace(
    TINY,
    network="lstm",
    semantics=False,
    context=3,
    patch=0,
    stride=0,
    lane_widths=(),
    hidden=6,
    layers=2,
    learning_rate=5000,
    learning_rate_last=5000,
)
TRACE_TINY = replace(
    TINY,
    network="trace",
    semantics=False,
    patch=0,
    stride=0,
    lane_widths=(),
    positions=3,
    token=2,
    heads=7,
)
TRACE_TINY_SEMANTIC = replace(
    TRACE_TINY, semantics=True, patch=3, stride=2, token=0, tokens=2, mixing=5, heads=3
)


@pytest.fixture(scope="session")
def text() -> bytes:
    """Half a megabyte of English with markup, which comes with every Python."""
    return Path(pydoc_data.topics.__file__).read_bytes()


@pytest.fixture(scope="session")
def tiny() -> Preset:
    """The smallest model with all its parts, in segments of 400 bytes and 4 lanes."""
    return Preset(TINY, lanes=4, segment_size=400, bytes_per_lane=1)


def _encode(
    data: bytes | bytearray | memoryview,
    model: ModelSettings,
    lanes: int,
    device: str,
    advance: Callable[[int], None] | None = None,
    profile: Profile | None = None,
    row: int = 0,
    prepared: object = None,
    shares: bool = False,
) -> Iterator[CodedBlock]:
    steps = -(-len(data) // lanes)
    payload = zlib.compress(data, 9)
    if steps > 1:
        half = len(payload) // 2
        if advance:
            advance(lanes)
        yield CodedBlock(1, 1, payload[:half])
        steps, payload = steps - 1, payload[half:]
    yield CodedBlock(steps, 2, payload)


def _decode(
    blocks: Iterable[CodedBlock],
    size: int,
    model: ModelSettings,
    lanes: int,
    device: str,
    advance: Callable[[int], None] | None = None,
    profile: Profile | None = None,
    shares: bool = False,
) -> bytearray:
    if advance:
        advance(size)
    return bytearray(zlib.decompress(b"".join(block.payload for block in blocks)))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An engine that codes with zlib, on "the CPU", without torch: most tests need no network."""
    engine = ModuleType("sepzip.engine")
    monkeypatch.setattr(engine, "encode_segment", _encode, raising=False)
    monkeypatch.setattr(engine, "decode_segment", _decode, raising=False)
    monkeypatch.setitem(sys.modules, "sepzip.engine", engine)
    monkeypatch.setattr("sepzip.scheduler.pick_devices", lambda name: ["cpu"])
    return engine
