"""Where --device auto puts a memory of contexts, and that on a CPU it needs no torch."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sepzip
from command import run
from sepzip.devices import Resources
from sepzip.memory import Share
from sepzip.pipeline import compress_stream, decompress_stream
from sepzip.presets import LEVELS, NETWORKS, Preset
from sepzip.profile import Profile
from sepzip.recall.placement import is_sooner_on_cpu, threads_for
from sepzip.scheduler import Scheduler

MIB = 1 << 20
GPUS = ["cuda:0", "cuda:1"]


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have two processors, and Triton."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name if name == "triton" else find_spec(name)
    )


@pytest.fixture
def machine(stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine with two GPUs, which notes where segments were coded and whether the GPUs are in use."""
    seen: dict[str, Any] = {"devices": [], "begun": False}

    def noting(function: Callable[..., Any], at: int) -> Callable[..., Any]:
        def note(*arguments: Any) -> Any:
            device = arguments[at]
            seen["devices"].append(device)
            seen["begun"] |= device != "cpu"
            return function(*arguments)

        return note

    stand_in.encode_segment = noting(stand_in.encode_segment, 3)  # type: ignore[attr-defined]
    stand_in.decode_segment = noting(stand_in.decode_segment, 4)  # type: ignore[attr-defined]
    names = {"auto": GPUS, "cuda": GPUS, "cpu": ["cpu"]}
    monkeypatch.setattr("sepzip.scheduler.pick_devices", lambda name: names.get(name, [name]))
    monkeypatch.setattr("sepzip.scheduler.uses_cuda", lambda: seen["begun"])
    monkeypatch.setattr("sepzip.memory.available", lambda device: 100 << 30)
    monkeypatch.setattr("sepzip.scheduler.kernels_run", lambda device, of_networks: device != "cpu")
    return seen


@pytest.mark.parametrize(
    ("level", "size", "expected"),
    [
        (5, 10_000, "cpu"),
        (5, MIB, "cpu"),
        (5, 64 * MIB, "cuda"),
        (1, 4 * MIB, "cpu"),
        (1, 64 * MIB, "cuda"),
        (8, MIB // 2, "cpu"),
        (8, 64 * MIB, "cuda"),
        (9, MIB, "cpu"),
        (9, 64 * MIB, "cuda"),
    ],
)
def test_a_gpu_is_for_many_lanes_and_much_input(level: int, size: int, expected: str) -> None:
    preset = LEVELS[level]
    on_cpu = is_sooner_on_cpu(preset.model, preset.lanes_for(size), size, size, begun=False)
    assert on_cpu is (expected == "cpu")


def test_a_gpu_in_use_needs_no_start() -> None:
    preset = LEVELS[5]
    lanes = preset.lanes_for(MIB)
    assert is_sooner_on_cpu(preset.model, lanes, MIB, MIB, begun=False)
    assert not is_sooner_on_cpu(preset.model, lanes, MIB, MIB, begun=True)
    assert is_sooner_on_cpu(preset.model, 1, 10_000, 10_000, begun=True)


def test_more_processors_are_worth_more(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = LEVELS[5]
    arguments = preset.model, 128, 4 * MIB, 4 * MIB
    assert not is_sooner_on_cpu(*arguments, begun=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    assert is_sooner_on_cpu(*arguments, begun=False)
    assert [threads_for(lanes) for lanes in (1, 31, 32, 2048)] == [1, 1, 2, 8]


def test_without_triton_it_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "triton" else find_spec(name)
    )
    assert is_sooner_on_cpu(LEVELS[5].model, 128, 64 * MIB, 64 * MIB, begun=True)


@pytest.mark.parametrize(
    ("size", "device", "expected"),
    [
        (100_000, "auto", {"cpu"}),
        (8 * MIB, "auto", {"cuda:0"}),
        (100_000, "cuda:1", {"cuda:1"}),
        (8 * MIB, "cpu", {"cpu"}),
    ],
)
def test_both_directions_go_to_the_same_device(
    machine: dict[str, Any], size: int, device: str, expected: set[str]
) -> None:
    content = bytes(size)
    packed = sepzip.compress(content, device=device)
    assert set(machine["devices"]) == expected
    machine["begun"] = False
    assert sepzip.decompress(packed, device=device) == content
    assert set(machine["devices"]) == expected
    assert machine["devices"] != []


def test_small_parts_are_coded_on_cpus_meanwhile(machine: dict[str, Any], text: bytes) -> None:
    """The recipe of a segment with packed streams has few bytes; it is no slower there than on a GPU."""
    packed_streams = [zlib.compress(text[100 * number :][:1500], 6) for number in range(200)]
    content = bytes(8 * MIB) + b"".join(packed_streams)
    for device, expected in (("auto", "cuda:0"), ("cuda:1", "cuda:1")):
        machine["devices"].clear()
        packed = sepzip.compress(content, device=device)
        assert machine["devices"] == [expected, "cpu"]
        machine["devices"].clear()
        assert sepzip.decompress(packed, device=device) == content
        assert machine["devices"] == ["cpu", expected]


def test_a_network_goes_to_the_gpus(machine: dict[str, Any]) -> None:
    packed = sepzip.compress(bytes(1000), network="pac-small")
    assert sepzip.decompress(packed) == bytes(1000)
    assert set(machine["devices"]) == {"cuda:0"}


def test_what_is_known_of_the_whole_counts(machine: dict[str, Any]) -> None:
    """Segments too small for a GPU's start go there if there are enough, where that is known at once."""
    content = bytes(8 * MIB)
    sepzip.compress(content, segment_size=2 * MIB, unpack=False)
    assert set(machine["devices"]) == set(GPUS)


def test_a_gpu_is_begun_with_when_it_would_have_been_worth_it(machine: dict[str, Any]) -> None:
    """Of a pipe, nobody knows how much is to come."""
    source = io.BytesIO(bytes(12 * MIB))
    preset = Preset(LEVELS[5].model, lanes=128, segment_size=MIB, bytes_per_lane=1 << 14, unpacks=False)
    sink, back, profile = io.BytesIO(), io.BytesIO(), Profile()
    compress_stream(source, sink, preset, profile=profile)
    kinds = [device != "cpu" for device in machine["devices"]]
    assert kinds == sorted(kinds)
    assert 2 <= kinds.count(False) <= 6
    assert {"cpu", "cuda:0"} <= set(profile.report().devices)
    machine["devices"].clear()
    machine["begun"] = False
    sink.seek(0)
    decompress_stream(sink, back)
    assert back.getvalue() == source.getvalue()
    assert machine["devices"][0] == "cpu"
    assert machine["devices"][-1] != "cpu"


def test_a_share_is_one_of_the_device_that_is_chosen(
    machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def installed(device: str) -> int:
        asked.append(device)
        return 64 << 30

    monkeypatch.setattr("sepzip.memory.installed", installed)
    for size, device in ((MIB, "cpu"), (8 * MIB, "cuda:0")):
        asked.clear()
        compress_stream(io.BytesIO(bytes(size)), io.BytesIO(), LEVELS[5], memory_limit=Share(50), size=size)
        assert asked[0] == device


def test_only_memories_of_contexts_go_to_the_cpu(machine: dict[str, Any]) -> None:
    scheduler = Scheduler(Resources(), overlap=True)
    model = LEVELS[5].model
    assert scheduler.devices_for(model, 1, 1000) == ["cpu"]
    assert scheduler.devices_for(model, 128, 64 * MIB) == GPUS
    assert scheduler.devices_for(NETWORKS["pac"][True].model, 1, 1000) == GPUS


_SCRIPT = """
import io, sys
import sepzip
from sepzip.cli.run import main

device, path = sys.argv[1:]
content = bytes(range(100)) * 90
packed = sepzip.compress(content, device=device)
assert len(packed) < 1000
assert sepzip.decompress(packed, device=device) == content
with sepzip.open(path + ".2", "wb", device=device, memory_limit=1 << 30) as file:
    file.write(content)
with sepzip.open(path + ".2", device=device) as file:
    file.seek(5000)
    assert file.read() == content[5000:]
with open(path, "wb") as file:
    file.write(content)
options = ["--device", device]
for arguments in (
    ["--verify", "-M", "50%", path],
    ["-l", path + ".sep"],
    ["-t", path + ".sep"],
    ["-df", "-o", path, path + ".sep"],
    ["--help"],
    ["--streams", "2", "--segment", "4KiB", "-f", path],
    ["-t", path + ".sep"],
):
    assert main("sep", [*options, *arguments]) == 0
assert "numpy" in sys.modules
loaded = sorted({"torch", "triton", "rich"} & set(sys.modules))
assert not loaded, loaded
"""


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_a_small_file_needs_no_torch(tmp_path: Path, device: str) -> None:
    """For so little, auto need not ask whether there is a GPU."""
    line = [sys.executable, "-c", _SCRIPT, device, str(tmp_path / "file")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_large_file_without_a_gpu_needs_no_torch(tmp_path: Path) -> None:
    """Where a GPU would be worth it, the driver says that there is none."""
    script = f"""
import sys
import sepzip
from sepzip import devices, scheduler
devices.cuda_devices = lambda: 0
scheduler.is_sooner_on_cpu = lambda *given, begun: False
assert sepzip.decompress(sepzip.compress({bytes(range(100))!r} * 90)) == {bytes(range(100))!r} * 90
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_command_says_where(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)) * 90)
    shown = run("-v", path).stderr.decode().splitlines()
    assert shown[1:] == ["  on cpu, which --device auto chose"]
    assert len(run("-tv", "--device", "cpu", f"{path}.sep").stderr.splitlines()) == 1
    path.write_bytes(b"too little to be coded")
    assert len(run("-vf", path).stderr.splitlines()) == 1
