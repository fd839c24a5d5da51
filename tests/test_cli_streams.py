"""Pipes, terminals, interrupts: the command as a process among others."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

import sepzip
from command import MODULE, SECONDS, call, on_terminal, run, start
from sepzip.cli.run import FAILED, INTERRUPTED, USAGE

CONTENT = b"What is stored as it is\n"
PACKED = sepzip.compress(CONTENT)
BINARY = sepzip.compress(bytes(range(60)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_pipes() -> None:
    packed = run(data=CONTENT)
    assert (packed.returncode, packed.stderr) == (0, b"")
    unpacked = run(command=call("unsep_main"), data=packed.stdout)
    assert (unpacked.returncode, unpacked.stdout, unpacked.stderr) == (0, CONTENT, b"")


def test_a_real_network_through_pipes() -> None:
    text = b"a line of a text that repeats itself\n" * 8
    # So small a network is done sooner by one thread than by several that wait for each other.
    alone = ["env", "OMP_NUM_THREADS=1", *MODULE]
    packed = run("-1", "--device", "cpu", data=text, command=alone)
    assert (packed.returncode, packed.stderr) == (0, b"")
    assert len(packed.stdout) < len(text)
    assert run("-dc", "--device", "cpu", "-", data=packed.stdout, command=alone).stdout == text


def test_sepcat_joins_files_and_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "name.sep"
    path.write_bytes(PACKED)
    done = run(path, "-", path, command=call("sepcat_main"), data=sepzip.compress(b"from a pipe\n"))
    assert done.stdout == CONTENT + b"from a pipe\n" + CONTENT
    assert names(tmp_path) == ["name.sep"]


def test_standard_input_into_a_named_file(tmp_path: Path) -> None:
    output = tmp_path / "out.sep"
    done = run("--verify", "-o", output, data=CONTENT, umask=0o027)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert sepzip.decompress(output.read_bytes()) == CONTENT
    assert output.stat().st_mode & 0o777 == 0o640


def test_standard_output_that_is_the_source(tmp_path: Path) -> None:
    path = tmp_path / "name"
    path.write_bytes(CONTENT)
    with path.open("ab") as end:
        done = run("-c", path, stdout=end)
    assert done.returncode == FAILED
    assert b"the same file" in done.stderr
    assert path.read_bytes() == CONTENT


def test_a_reader_that_has_seen_enough_is_no_error_to_talk_about(tmp_path: Path) -> None:
    path = tmp_path / "name.sep"
    path.write_bytes(PACKED)
    for arguments in (["-dc"], ["-l"], ["-t", "--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            done = run(*arguments, path, stdout=pipe)
        assert (done.returncode, done.stderr) == (FAILED, b"")


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_a_closed_standard_stream(tmp_path: Path, descriptor: int) -> None:
    path = tmp_path / "name"
    path.write_bytes(CONTENT)
    command = ["sh", "-c", f'exec "$@" {descriptor}>&-', "sh", *MODULE]
    assert run(path, command=command).returncode == 0
    assert sepzip.decompress(path.with_name("name.sep").read_bytes()) == CONTENT
    piped = run("-", command=command, data=CONTENT)
    assert piped.returncode == (0 if descriptor == 2 else FAILED)
    assert piped.stderr.count(b"\n") == (0 if descriptor == 2 else 1)
    assert b"Traceback" not in piped.stderr


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.sep"
    with open(path, "wb") as file:
        file.write(PACKED)
    listing = run("-l", os.fsdecode(path), command=["env", "PYTHONIOENCODING=ascii", *MODULE])
    assert listing.stdout.endswith(b"\\udcff.sep\n")


def test_verbose_and_quiet(tmp_path: Path) -> None:
    path = tmp_path / "name"
    path.write_bytes(CONTENT)
    line = run("-v", path).stderr.decode()
    size = len(PACKED)
    assert line.startswith(f"{path}: {len(CONTENT)} => {size} bytes, ratio {len(CONTENT) / size:.3f}, ")
    assert line.endswith(f"B/s, to {path}.sep\n")
    assert run("-tv", f"{path}.sep").stderr.decode().endswith("B/s, whole\n")
    assert run("-q", "-f", path).stderr == b""
    assert run("-q", path).stderr.count(b"\n") == 1


def test_a_terminal_is_given_no_binary(tmp_path: Path) -> None:
    path = tmp_path / "name"
    path.write_bytes(CONTENT)
    status, shown = on_terminal("-c", path)
    assert status == FAILED
    assert shown.endswith(
        b"compressed data is not for a terminal; name a file with -o, or insist with -f\r\n"
    )
    status, shown = on_terminal("-cf", path)
    assert status == 0
    assert PACKED[:4] in shown
    path.write_bytes(BINARY)
    status, shown = on_terminal("-dc", path)
    assert status == FAILED
    assert b"\x00" not in shown
    path.write_bytes(PACKED)
    assert on_terminal("-dc", path) == (0, CONTENT.replace(b"\n", b"\r\n"))


def test_a_terminal_alone_is_no_input() -> None:
    status, shown = on_terminal()
    assert status == USAGE
    assert shown == b"sep: give a file, or pipe data in; sep -h lists the options\r\n"
    status, shown = on_terminal("-d", "-")
    assert status == FAILED
    assert shown.startswith(b"sep: standard input: is a terminal")


@pytest.mark.parametrize(("answer", "content"), [(b"y\n", CONTENT), (b"n\n", b"old"), (b"\x04", b"old")])
def test_overwriting_is_asked_about_on_a_terminal(tmp_path: Path, answer: bytes, content: bytes) -> None:
    packed = tmp_path / "name.sep"
    packed.write_bytes(PACKED)
    output = tmp_path / "name"
    output.write_bytes(b"old")
    status, shown = on_terminal("-d", packed, typed=answer)
    assert f"sep: {output} exists already; overwrite it (y/n)?".encode() in shown
    assert output.read_bytes() == content
    assert status == (0 if content == CONTENT else FAILED)


def test_nothing_is_asked_where_standard_input_is_data(tmp_path: Path) -> None:
    output = tmp_path / "name"
    output.write_bytes(b"old")
    status, shown = on_terminal("-o", output, "-", typed=b"y\n\x04")
    assert status == FAILED
    assert b"(y/n)" not in shown
    assert output.read_bytes() == b"old"


_SLOW = """
import time
from sepzip.cli import sep_main, transfer
def compress(source, sink, preset, device, *, progress, size, **settings):
    for done in (1, 2, 3):
        time.sleep(0.2)
        if progress:
            progress(done * size // 4, done * size // 16)
    # The time left is drawn anew every half second only.
    time.sleep(0.6)
    return size, sink.write(b'x' * (size // 4))
transfer.compress_stream = compress
sep_main()
"""


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    path = tmp_path / ("long-name-" * 10)
    path.write_bytes(bytes(10_000))
    slow = [sys.executable, "-c", _SLOW]
    status, shown = on_terminal("-f", path, command=slow)
    assert status == 0
    for part in (b"compress long-name", b"75%, ratio 4.000, ", b"kB/s", b"0:00:0"):
        assert part in shown
    assert shown.endswith(f"to {path}.sep\r\n".encode())
    assert on_terminal("-qf", path, command=slow) == (0, b"")
    assert run("-f", path, command=slow).stderr == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing_half_made(tmp_path: Path, number: signal.Signals) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with start("--rm", "-o", tmp_path / "out.sep", pipe) as process, pipe.open("wb") as writing:
        writing.write(CONTENT)
        writing.flush()
        while len(names(tmp_path)) == 1:
            assert process.poll() is None
            time.sleep(0.01)
        while process.poll() is None:
            # One that comes just before the process waits for input is heeded only after that wait.
            process.send_signal(number)
            time.sleep(0.05)
        error = process.communicate(timeout=SECONDS)[1]
    assert (process.returncode, error) == (INTERRUPTED, b"sep: interrupted\n")
    assert names(tmp_path) == ["pipe"]


_INTERRUPTED_TWICE = """
import os, signal
from sepzip.cli import output, sep_main, transfer
def compress(source, sink, *arguments, **settings):
    sink.write(b'half')
    os.kill(os.getpid(), signal.SIGINT)
discard = output.OutputFile.discard
def discard_interrupted(self):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    discard(self)
transfer.compress_stream = compress
output.OutputFile.discard = discard_interrupted
sep_main()
"""


def test_cleaning_up_is_not_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "name"
    path.write_bytes(CONTENT)
    with start("--rm", path, command=[sys.executable, "-c", _INTERRUPTED_TWICE]) as process:
        error = process.communicate(timeout=SECONDS)[1]
    assert (process.returncode, error) == (INTERRUPTED, b"sep: interrupted\n")
    assert names(tmp_path) == ["name"]
