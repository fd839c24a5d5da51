"""Faults with several segments in flight: the command ends soon, with one line and nothing half made."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import MODULE, SECONDS, start
from sepzip.cli.run import FAILED, INTERRUPTED
from sepzip.memory import advice

SEGMENT = 2000
SOON = 5.0
"""Seconds within which the command has to have ended after a signal or a fault."""

_ENGINE = """
import os, sys, time, types
from sepzip.cli import sep_main
from sepzip.errors import OutOfMemoryError
from sepzip.segment import CodedBlock
from sepzip.memory import advice
engine = types.ModuleType("sepzip.engine")
def encode_segment(data, model, lanes, device, advance, profile, row=0, prepared=None, shares=False):
    # The first letter says what becomes of the segment.
    with open(BEGUN, "ab") as begun:
        begun.write(bytes(data[:1]))
    while data[:1] in (b"E", b"F"):
        advance(0)
        time.sleep(0.01)
        if data[:1] == b"F" and os.path.getsize(BEGUN) >= 4:
            raise OutOfMemoryError(advice(device))
    steps = -(-len(data) // lanes)
    yield CodedBlock(steps, 0, bytes(len(data) if data[:1] == b"S" else 6 * lanes))
engine.encode_segment = encode_segment
sys.modules["sepzip.engine"] = engine
sep_main()
"""


def command(begun: Path) -> list[str]:
    """Return the command with an engine that codes at once, for ever, or not at all, noted in `begun`."""
    script = f"BEGUN = {str(begun)!r}\n{_ENGINE}"
    return [sys.executable, "-c", script, "--device", "cpu", "--segment", str(SEGMENT)]


def segments(kinds: str) -> bytes:
    """Return content whose segments are coded small (C), stored (S), never done (E) or fail (F)."""
    noise = random.Random(0).randbytes(SEGMENT - 1)
    return b"".join(kind.encode() + noise for kind in kinds)


def wait_for(begun: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until `count` segments were begun."""
    deadline = time.monotonic() + SECONDS
    while not (begun.exists() and begun.stat().st_size >= count):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def threads_at_work(pid: int) -> int:
    """Return how many threads beside the main one have had a processor for a fifth of a second."""
    tasks = [task for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid)]
    # The fields of the time in user mode and in the system, behind a name that may hold spaces.
    fields = [(task / "stat").read_text().rpartition(")")[2].split()[11:13] for task in tasks]
    return sum(sum(map(int, times)) >= os.sysconf("SC_CLK_TCK") // 5 for times in fields)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_with_several_segments_in_flight(tmp_path: Path, number: signal.Signals) -> None:
    begun, folder = tmp_path / "begun", tmp_path / "folder"
    folder.mkdir()
    (folder / "name").write_bytes(segments("CSCEEEEEE"))
    line = [*command(begun), "--rm", "--streams", "3", "--profile", str(folder / "profile")]
    with start(folder / "name", command=line) as process:
        wait_for(begun, 6, process)
        sent = time.monotonic()
        process.send_signal(number)
        error = process.communicate(timeout=SECONDS)[1]
        assert time.monotonic() - sent < SOON
    assert (process.returncode, error) == (INTERRUPTED, b"sep: interrupted\n")
    assert [path.name for path in folder.iterdir()] == ["name"]


@pytest.mark.parametrize("network", ["pac-small", "recall"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_networks_work(
    tmp_path: Path, text: bytes, network: str, number: signal.Signals
) -> None:
    size = 100_000 if network == "pac-small" else 3_000_000
    (tmp_path / "name").write_bytes((text * (1 + size // len(text)))[:size])
    line = ["env", "OMP_NUM_THREADS=1", *MODULE, "--network", network, "--device", "cpu", "--lanes", "8"]
    with start("--segment", "8K", "--streams", "2", tmp_path / "name", command=line) as process:
        # A stream that imports torch cannot be interrupted, and the other one waits for it meanwhile.
        while threads_at_work(process.pid) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        sent = time.monotonic()
        process.send_signal(number)
        error = process.communicate(timeout=SECONDS)[1]
        assert time.monotonic() - sent < SOON
    assert (process.returncode, error) == (INTERRUPTED, b"sep: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_memory_that_runs_out_in_one_segment(tmp_path: Path) -> None:
    begun, source = tmp_path / "begun", tmp_path / "name"
    source.write_bytes(segments("CCEF" + 20 * "C"))
    with start("--rm", "--streams", "2", source, command=command(begun)) as process:
        wait_for(begun, 1, process)
        started = time.monotonic()
        error = process.communicate(timeout=SECONDS)[1]
        assert time.monotonic() - started < SOON
    assert process.returncode == FAILED
    assert error.decode() == f"sep: {source}: {advice('cpu')}\n"
    for option in ("--lanes", "--streams", "--device", "-M"):
        assert option in advice("cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "name"]
    assert sorted(begun.read_bytes()) == sorted(b"CCEF")


def test_a_full_disk_stops_what_is_in_flight(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    begun, source = tmp_path / "begun", tmp_path / "name"
    # More than is buffered before the device hears of it.
    source.write_bytes(segments(10 * "S" + "EEEE"))
    with start("-o", "/dev/full", "--streams", "3", source, command=command(begun)) as process:
        wait_for(begun, 1, process)
        started = time.monotonic()
        error = process.communicate(timeout=SECONDS)[1]
        assert time.monotonic() - started < SOON
    assert process.returncode == FAILED
    assert error.decode().startswith(f"sep: {source}: no space left for the output; free some")
    assert error.count(b"\n") == 1


def test_a_reader_that_stops_ends_what_is_in_flight(tmp_path: Path) -> None:
    begun, source = tmp_path / "begun", tmp_path / "name"
    source.write_bytes(segments(100 * "S" + "EEEE"))
    line = [*command(begun), "-c", "--streams", "3", str(source)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert len(process.stdout.read(100)) == 100
        process.stdout.close()
        assert process.wait(SECONDS) == FAILED
        assert process.stderr.read() == b""


@pytest.mark.parametrize("to_fifo", [False, True])
def test_a_signal_while_the_reader_takes_nothing(tmp_path: Path, to_fifo: bool) -> None:
    begun, source, fifo = tmp_path / "begun", tmp_path / "name", tmp_path / "fifo"
    source.write_bytes(segments(100 * "S" + "EEEE"))
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    to = ["-o", str(fifo)] if to_fifo else ["-c"]
    with fifo.open("wb") as writing:
        line = [*command(begun), *to, "--streams", "3", str(source)]
        process = subprocess.Popen(line, stdout=writing, stderr=subprocess.PIPE)
    try:
        # A pipe holds 64 KiB: the command waits for the reader by now, with segments in flight behind it.
        wait_for(begun, 30, process)
        noted = 0
        while noted < begun.stat().st_size:
            noted = begun.stat().st_size
            time.sleep(0.2)
        assert noted < 100
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON) == INTERRUPTED
        assert process.stderr is not None
        assert process.stderr.read() == b"sep: interrupted\n"
    finally:
        process.kill()
        process.communicate()
        os.close(reading)
