"""Where the time goes: stages from any thread, idle time, and what the command shows of it."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sepzip import presets
from sepzip.cli.profiles import fitting_streams, profile_json, profile_table
from sepzip.cli.run import FAILED, main
from sepzip.errors import UsageError
from sepzip.memory import memory_needed
from sepzip.pipeline import compress_stream, decompress_stream
from sepzip.presets import Preset
from sepzip.profile import DeviceReport, Profile, Report

REPORT = Report(
    10.0,
    {"read": 1.0, "step": 15.0, "write": 0.5, "idle": 25.0},
    {
        "cuda:0": DeviceReport(2, None, None, {"step": 15.0, "idle": 5.0}),
        "cuda:1": DeviceReport(2, 1, 3_100_000_000, {"idle": 20.0}),
    },
)


def test_seconds_are_added_up_for_the_device_of_each_thread() -> None:
    profile = Profile()
    profile.set_streams("a", 2)
    profile.set_streams("b", 1)

    def work(device: str) -> None:
        with profile.working_on(device):
            for _ in range(1000):
                profile.add("step", 0.5)
            with profile.stage("code"):
                time.sleep(0.01)
        profile.add("step", 3.0)

    threads = [threading.Thread(target=work, args=(device,)) for device in "aab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = profile.report()
    assert report.total["step"] == 1509.0
    assert report.devices["a"].seconds["step"] == 1000.0
    assert report.devices["b"].seconds["step"] == 500.0
    assert report.total["code"] >= 0.03
    assert report.total["code"] == sum(report.devices[device].seconds["code"] for device in "ab")


def test_idle_is_the_time_without_a_step() -> None:
    profile = Profile()
    profile.set_streams("a", 3)
    time.sleep(0.05)
    with profile.working_on("a"):
        profile.add("step", 0.04)
    report = profile.report()
    assert report.wall >= 0.05
    assert report.devices["a"].seconds["idle"] == pytest.approx(3 * report.wall - 0.04)
    with profile.working_on("a"):
        profile.add("step", 100.0)
    assert profile.report().devices["a"].seconds["idle"] == 0


def test_a_stage_that_raises_is_counted() -> None:
    profile = Profile()
    with pytest.raises(KeyError), profile.stage("write"):
        time.sleep(0.01)
        raise KeyError
    assert profile.report().total["write"] >= 0.01


def test_reading_writing_and_the_engine_are_counted(text: bytes, tiny: Preset, stand_in: ModuleType) -> None:
    encode, decode = stand_in.encode_segment, stand_in.decode_segment

    def stepping(function: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            next(one for one in arguments if isinstance(one, Profile)).add("step", 0.25)
            return function(*arguments)

        return timed

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.001)
            return super().read(size)

        def write(self, data: Any, /) -> int:
            time.sleep(0.001)
            return super().write(data)

    stand_in.encode_segment, stand_in.decode_segment = stepping(encode), stepping(decode)  # type: ignore[attr-defined]
    profile, frame = Profile(), Slow()
    compress_stream(Slow(text[:2000]), frame, tiny, "cpu", streams=2, profile=profile)
    report = profile.report()
    assert report.devices["cpu"].streams == 2
    assert report.devices["cpu"].seconds["step"] == report.total["step"] == 5 * 0.25
    assert 0.005 <= report.total["read"] < report.wall
    assert 0.005 <= report.total["write"] < report.wall
    assert "read" not in report.devices["cpu"].seconds
    frame.seek(0)
    profile = Profile()
    decompress_stream(frame, Slow(), "cpu", profile=profile)
    report = profile.report()
    assert report.devices["cpu"].seconds["step"] == 5 * 0.25
    assert min(report.total["read"], report.total["write"]) >= 0.005


def test_the_table_shows_seconds_and_shares() -> None:
    table = [line.split() for line in profile_table(REPORT)]
    assert table[0] == ["10.00", "s", "total", "cuda:0", "x", "2", "cuda:1", "x", "2"]
    assert table[1] == ["read", "1.00", "s", "10.0%", "-", "-"]
    assert table[4] == ["step", "15.00", "s", "37.5%", "15.00", "s", "75.0%", "-"]
    assert table[-1] == ["idle", "25.00", "s", "62.5%", "5.00", "s", "25.0%", "20.00", "s", "100.0%"]
    assert len({len(line) for line in profile_table(REPORT)}) == 1
    assert profile_table(Report(0.0, {}, {}))


def test_streams_that_do_not_fit_are_told() -> None:
    assert fitting_streams(REPORT) == ["cuda:1: 1 of 2 streams fit in 3.1 GB"]
    alone = Report(1.0, {}, {"cpu": DeviceReport(4, 2, 3_100_000_000, {})})
    assert fitting_streams(alone) == ["2 of 4 streams fit in 3.1 GB"]
    assert fitting_streams(Report(1.0, {}, {"cpu": DeviceReport(4, None, None, {})})) == []


def test_json() -> None:
    document = json.loads(profile_json([("a name", REPORT)]))
    assert document["files"][0]["name"] == "a name"
    assert document["files"][0]["total"]["idle"] == 25.0
    assert document["files"][0]["devices"]["cuda:1"]["fitting"] == 1


@pytest.fixture
def source(tmp_path: Path, text: bytes) -> Path:
    """A file of text."""
    path = tmp_path / "name"
    path.write_bytes(text[:1500])
    return path


def test_the_command_says_where_the_time_went(
    source: Path, stand_in: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    encode = stand_in.encode_segment

    def slow(*arguments: Any) -> Any:
        time.sleep(0.02)
        return encode(*arguments)

    stand_in.encode_segment = slow  # type: ignore[attr-defined]
    needed = -(-memory_needed(presets.NETWORKS["pac-small"][True].model, 4, 400) >> 20) << 20
    arguments = ["--network", "pac-small", "--device", "cpu", "--lanes", "4"]
    arguments += ["--segment", "400", "--streams", "4"]
    assert main("sep", [*arguments, "-M", str(2 * needed), "-vv", str(source)]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith(f"{source}: 1500 => ")
    assert lines[1] == f"  2 of 4 streams fit in {2 * needed / 1e6:.1f} MB"
    assert lines[2].split()[2:] == ["total", "cpu", "x", "4"]
    assert [line.split("  ")[1] for line in lines[3:]] == [
        "read", "unpack", "copy in", "step", "copy out", "code", "pack", "write", "idle",
    ]  # fmt: skip
    assert main("sep", [*arguments, "-M", str(2 * needed), "-vf", str(source)]) == 0
    assert capfd.readouterr().err.splitlines()[1:] == [lines[1]]
    assert main("sep", [*arguments, "-vf", str(source)]) == 0
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert main("sep", [*arguments, "-f", str(source)]) == 0
    assert capfd.readouterr().err == ""


def test_the_command_writes_profiles(
    source: Path, stand_in: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    profile = source.with_name("profile.json")
    missing = source.with_name("missing")
    arguments = ["--device", "cpu", "--profile", str(profile), str(source), str(missing)]
    assert main("sep", arguments) == FAILED
    assert str(missing) in capfd.readouterr().err
    first = profile.read_bytes()
    files = json.loads(first)["files"]
    assert [file["name"] for file in files] == [str(source)]
    assert files[0]["wall"] > 0
    assert set(files[0]["devices"]) == {"cpu"}
    # What exists is kept, and said at once.
    packed = source.with_name("name.sep")
    packed.unlink()
    assert main("sep", arguments[:-1]) == FAILED
    assert capfd.readouterr().err == f"sep: {profile}: exists already; -f overwrites it\n"
    assert not packed.exists()
    assert profile.read_bytes() == first
    assert main("sep", ["-f", "--verify", *arguments[:-1]]) == 0
    assert profile.read_bytes() != first
    assert sorted(path.name for path in source.parent.iterdir()) == ["name", "name.sep", "profile.json"]


def test_segments_of_a_size(source: Path, text: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    # The networks themselves, with several segments in flight.
    arguments = ["--network", "pac-small", "--device", "cpu", "--lanes", "20"]
    arguments += ["--segment", "500", "--streams", "2", "--verify"]
    assert main("sep", [*arguments, str(source)]) == 0
    assert main("sep", ["-l", "--json", f"{source}.sep"]) == 0
    segments = json.loads(capfd.readouterr().out)["files"][0]["frames"][0]["segments"]
    assert [segment["content_size"] for segment in segments] == [500, 500, 500]
    with pytest.raises(UsageError):
        presets.resolve(segment_size=0)
