"""What fits into memory: the ledger of a device, and segments that wait for room or are refused."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

import sepzip
from conftest import TINY, TINY_LSTM, TRACE_TINY, TRACE_TINY_SEMANTIC
from sepzip import memory, sepfile
from sepzip.devices import Resources
from sepzip.errors import OutOfMemoryError
from sepzip.frame import read_summary
from sepzip.memory import Ledger, Share, memory_needed, within_limit, workspace_needed
from sepzip.networks import base
from sepzip.pipeline import compress_stream, decompress_stream
from sepzip.presets import LEVELS, NETWORKS, ModelSettings, Preset
from sepzip.profile import Profile
from sepzip.recall.sizes import table_bits
from sepzip.scheduler import Job, Scheduler
from sepzip.segment import CodedBlock

MIB = 1 << 20
NEEDED = memory_needed(TINY, 4, 400)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The bytes that are free on each device, for a test to change; kernels run on its GPUs."""
    sizes = {"cpu": 1000 * MIB, "cuda:0": 1000 * MIB, "cuda:1": 1000 * MIB}
    monkeypatch.setattr("sepzip.gpu_kernels._found", {(name, True): True for name in sizes})
    monkeypatch.setattr(memory, "available", lambda device: sizes[device])
    return sizes


def test_what_is_free_and_installed_is_known() -> None:
    free, installed = memory.available("cpu"), memory.installed("cpu")
    assert free is not None and installed is not None
    assert MIB < free < installed


def test_segments_are_admitted_as_long_as_they_fit_together(free: dict[str, int]) -> None:
    ledger = Ledger("cpu", None)
    assert ledger.admit(400 * MIB)
    second = ledger.admit(500 * MIB)
    assert second is not None
    # Nothing of what was promised may have been taken yet, so that what is free now says nothing.
    assert not ledger.admit(200 * MIB)
    assert ledger.admit(100 * MIB)
    assert ledger.in_flight == 3
    ledger.release(second)
    assert ledger.admit(200 * MIB)


def test_what_does_not_fit_may_do_by_sharing(free: dict[str, int]) -> None:
    ledger = Ledger("cuda:0", 1000 * MIB)
    kind, other = (TINY, 4), (TINY, 5)
    assert ledger.admit(400 * MIB, kind, 300 * MIB) is None
    owner = ledger.admit(700 * MIB, kind)
    assert owner is not None
    assert ledger.admit(700 * MIB, kind) is None
    assert ledger.admit(700 * MIB, other, 500 * MIB) is None
    sharers = [ledger.admit(700 * MIB, kind, 600 * MIB) for _ in range(3)]
    assert all(sharers)
    assert ledger.admit(700 * MIB, kind, 600 * MIB) is None
    # What three had from the first is now promised to one of them.
    ledger.release(owner)
    assert ledger.in_flight == 3
    assert ledger.admit(101 * MIB) is None
    last = ledger.admit(100 * MIB)
    assert last is not None
    for promise in [last, *sharers]:
        assert promise is not None
        ledger.release(promise)
    assert ledger.admit(1000 * MIB)


@pytest.mark.parametrize("network", ["tiny", "eager"])
def test_segments_share_where_memory_is_short(
    text: bytes,
    tiny: Preset,
    stand_in: ModuleType,
    free: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    network: str,
) -> None:
    """Two of a network with kernels are in flight where one workspace less than for two would fit."""
    enough = 2 * NEEDED - workspace_needed(TINY, 4)
    monkeypatch.setattr("sepzip.scheduler.pick_devices", lambda name: [name])
    monkeypatch.setattr("sepzip.tensors.has_kernels", lambda *_: network == "tiny")
    meter = Meter(stand_in)
    files = []
    for limit, most in ((None, 2), (enough, 2 if network == "tiny" else 1)):
        meter.most.clear()
        meter.shared.clear()
        sink, back = io.BytesIO(), io.BytesIO()
        arguments: dict[str, Any] = {"streams": 2, "memory_limit": limit}
        preset = replace(tiny, unpacks=False)
        compress_stream(io.BytesIO(text[:4000]), sink, preset, "cuda:0", **arguments)
        assert meter.most == {"cuda:0": most}
        assert any(meter.shared) == (limit is not None and most == 2)
        assert not all(meter.shared)
        decompress_stream(io.BytesIO(sink.getvalue()), back, "cuda:0", **arguments)
        assert back.getvalue() == text[:4000]
        files.append(sink.getvalue())
    assert files[0] == files[1]


def test_what_others_take_meanwhile_is_not_promised(free: dict[str, int]) -> None:
    ledger = Ledger("cpu", None)
    assert ledger.admit(100 * MIB)
    free["cpu"] = 150 * MIB
    assert not ledger.admit(200 * MIB)
    assert ledger.admit(100 * MIB)


@pytest.mark.parametrize(
    ("limit", "room"), [(300 * MIB, 300 * MIB), (Share(20), 400 * MIB), (1 << 40, 1000 * MIB)]
)
def test_a_limit_caps_all_segments_together(
    free: dict[str, int], monkeypatch: pytest.MonkeyPatch, limit: int | Share, room: int
) -> None:
    monkeypatch.setattr(memory, "installed", lambda device: 2000 * MIB)
    ledger = Ledger("cpu", limit)
    assert not ledger.admit(room + 1)
    assert ledger.admit(room - 10)
    assert ledger.room == room
    assert not ledger.admit(11)
    assert ledger.admit(10)


def test_without_any_knowledge_all_is_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: None)
    ledger = Ledger("cpu", None)
    assert ledger.room is None
    assert all(ledger.admit(1 << 50) for _ in range(5))


def test_a_refusal_says_what_to_pass(free: dict[str, int]) -> None:
    free["cpu"] = 50 * MIB
    large = replace(TINY, lane_widths=(16,) * 30)
    ledger = Ledger("cpu", None)
    assert not ledger.admit(memory_needed(large, 4096, 100_000))
    text = str(ledger.refusal(large, 4096, 100_000))
    for part in (
        "50 MiB are free on cpu",
        "another --device",
        "fewer --lanes",
        " would fit",
        "a lower level",
    ):
        assert part in text
    assert "-M" not in text
    fitting = int(text.partition(" would fit")[0].rpartition("(")[2])
    assert ledger.admit(memory_needed(large, fitting, 100_000))
    ledger = Ledger("cpu", 40 * MIB)
    needed = memory_needed(replace(TINY, hidden=1_000_000), 4, 100)
    assert not ledger.admit(needed)
    text = str(ledger.refusal(replace(TINY, hidden=1_000_000), 4, 100))
    for part in ("the limit is 40 MiB of cpu", f"-M {-(-needed // MIB)}MiB", "even 1 is too many"):
        assert part in text


class Meter:
    """Encodes like the stand-in, and measures how many segments are in flight on each device."""

    def __init__(self, stand_in: ModuleType) -> None:
        self._encode = stand_in.encode_segment
        self._lock = threading.Lock()
        self._active: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.shared: list[bool] = []
        stand_in.encode_segment = self  # type: ignore[attr-defined]

    def __call__(self, *arguments: Any) -> Iterator[CodedBlock]:
        device = arguments[3]
        with self._lock:
            self.shared.append(arguments[8])
            self._active[device] = self._active.get(device, 0) + 1
            self.most[device] = max(self.most.get(device, 0), self._active[device])
        time.sleep(0.01)
        with self._lock:
            self._active[device] -= 1
        yield from self._encode(*arguments)


def test_segments_wait_for_room(
    text: bytes, tiny: Preset, stand_in: ModuleType, free: dict[str, int]
) -> None:
    meter = Meter(stand_in)
    expected = io.BytesIO()
    compress_stream(io.BytesIO(text[:4000]), expected, tiny, "cpu")
    assert meter.most == {"cpu": 1}
    for limit, most in ((2 * NEEDED, 2), (NEEDED, 1), (3 * NEEDED + 1, 3), (None, 4)):
        meter.most.clear()
        sink, profile = io.BytesIO(), Profile()
        compress_stream(
            io.BytesIO(text[:4000]), sink, tiny, "cpu", streams=4, memory_limit=limit, profile=profile
        )
        assert sink.getvalue() == expected.getvalue()
        assert meter.most == {"cpu": most}
        report = profile.report().devices["cpu"]
        assert (report.streams, report.fitting) == (4, most if limit else None)
        assert report.room == limit


def test_a_segment_goes_where_there_is_room(
    text: bytes,
    tiny: Preset,
    stand_in: ModuleType,
    free: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sepzip.scheduler.pick_devices", lambda name: name.split())
    meter = Meter(stand_in)
    free["cuda:0"] = 2 * NEEDED
    free["cpu"] = NEEDED - 1
    compress_stream(io.BytesIO(text[:8000]), io.BytesIO(), tiny, "cpu cuda:0 cuda:1", streams=3)
    assert meter.most == {"cuda:0": 2, "cuda:1": 3}


@pytest.mark.parametrize("streams", [1, 2])
def test_what_does_not_fit_alone_is_refused_before_it_is_begun(
    text: bytes,
    tiny: Preset,
    stand_in: ModuleType,
    free: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    streams: int,
) -> None:
    frame = io.BytesIO()
    compress_stream(io.BytesIO(text[:2000]), frame, tiny, "cpu")
    monkeypatch.setattr(sepfile, "resolve", lambda *given: tiny)
    monkeypatch.delattr(stand_in, "encode_segment")
    monkeypatch.delattr(stand_in, "decode_segment")
    settings: dict[str, Any] = {"device": "cpu", "streams": streams, "memory_limit": NEEDED - 1}
    for work in (
        lambda: compress_stream(io.BytesIO(text[:2000]), io.BytesIO(), tiny, **settings),
        lambda: decompress_stream(io.BytesIO(frame.getvalue()), None, **settings),
        lambda: sepzip.compress(text[:2000], **settings),
        lambda: sepzip.decompress(frame.getvalue(), **settings),
        lambda: sepzip.open(io.BytesIO(frame.getvalue()), **settings).read(),
        lambda: sepzip.open(io.BytesIO(), "wb", **settings).write(text[:2000]),
    ):
        with pytest.raises(OutOfMemoryError, match=r"the limit is \d+ MiB of cpu: pass -M"):
            work()


def test_a_segment_too_large_is_refused_when_its_turn_comes(
    text: bytes, tiny: Preset, stand_in: ModuleType, free: dict[str, int]
) -> None:
    """The others are done by then, so that a thread finds that it can never begin."""
    scheduler = Scheduler(Resources("cpu", 2, NEEDED), overlap=True)
    release = threading.Event()

    def work(job: Job[str], device: str) -> str:
        assert release.wait(30)
        return "done"

    small = Job(work, TINY, 4, 400)
    large = Job(work, TINY, 400, 4000)
    try:
        scheduler.submit(small)
        scheduler.submit(large)
        release.set()
        with pytest.raises(OutOfMemoryError, match="lanes 400 needs"):
            scheduler.wait(large)
    finally:
        scheduler.stop()


def test_the_networks_stay_within_a_limit(text: bytes) -> None:
    preset = sepzip.presets.resolve(level=1, lanes=16, segment_size=600)
    limit = 2 * memory_needed(preset.model, 16, 600)
    sink, profile = io.BytesIO(), Profile()
    compress_stream(
        io.BytesIO(text[:2000]), sink, preset, "cpu", streams=3, memory_limit=limit, profile=profile
    )
    assert profile.report().devices["cpu"].fitting == 2
    assert sepzip.decompress(sink.getvalue(), device="cpu", streams=2, memory_limit=limit) == text[:2000]


def test_memory_estimate_is_not_far_off() -> None:
    small = memory_needed(TINY, 4, 1000)
    assert small < 64 << 20
    published = memory_needed(ModelSettings(), 512, 1 << 20)
    assert 55e6 < memory.parameter_count(ModelSettings(), 512) < 56e6
    assert 1 << 30 < published < 4 << 30


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_every_weight_of_an_lstm_is_counted(layers: int) -> None:
    model = replace(TINY_LSTM, layers=layers)
    network = base.build(model, 4, torch.device("cpu"))
    count = sum(node.data.numel() for node in network.parameters.nodes)
    assert memory.parameter_count(model, 4) == count


def test_the_published_lstm_has_a_billion_weights() -> None:
    assert 1.09e9 < memory.parameter_count(sepzip.presets.resolve(network="lstm-large").model, 128) < 1.11e9


@pytest.mark.parametrize(
    "model", [TRACE_TINY, TRACE_TINY_SEMANTIC, *(preset.model for preset in NETWORKS["trace"].values())]
)
def test_the_weights_of_trace_are_counted(model: ModelSettings) -> None:
    parameters = base.build(model, 3, torch.device("cpu")).parameters
    assert memory.parameter_count(model, 3) == sum(node.data.numel() for node in parameters.nodes)


@pytest.mark.parametrize("semantics", [False, True])
def test_the_memory_of_trace_is_not_far_off(semantics: bool) -> None:
    model = NETWORKS["trace"][semantics].model
    assert 300 << 20 < memory_needed(model, 512, 1 << 20) < 3 << 30


def test_tables_of_a_memory_are_halved_until_they_fit() -> None:
    model = LEVELS[9].model
    size = 1 << 23
    needed = memory_needed(model, 2, size)
    assert within_limit(model, 2, size, None) is model
    assert within_limit(model, 2, size, needed) is model
    smaller = within_limit(model, 2, size, needed - 1)
    assert smaller.table_bits == table_bits(model, size) - 1
    assert memory_needed(smaller, 2, size) < needed
    # What is not tables does not become less.
    assert memory_needed(within_limit(model, 2, size, 1), 2, size) > 1


def test_a_limit_makes_smaller_tables_that_are_in_the_header() -> None:
    content = bytes(range(256)) * 400
    frames = []
    for limit in (None, 125 << 20):
        sink = io.BytesIO()
        compress_stream(io.BytesIO(content), sink, LEVELS[5], "cpu", memory_limit=limit, size=len(content))
        frames.append(sink.getvalue())
    models = [read_summary(io.BytesIO(frame)).frames[0].model for frame in frames]
    assert [model is not None and model.table_bits < 22 for model in models] == [False, True]
    for frame in frames:
        back = io.BytesIO()
        decompress_stream(io.BytesIO(frame), back, "cpu")
        assert back.getvalue() == content
