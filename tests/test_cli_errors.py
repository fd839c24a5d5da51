"""What goes wrong: one clear line for each file, status 1, no partial output, nothing deleted."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sepzip
from command import run
from sepzip.cli import transfer
from sepzip.cli.messages import explain, printable
from sepzip.cli.run import FAILED, main
from sepzip.frame import FrameWriter
from sepzip.header import MAGIC

CONTENT = b"What is stored as it is\n"
PACKED = sepzip.compress(CONTENT)

Captured = pytest.CaptureFixture[str]


def sep(*arguments: str | Path) -> int:
    return main("sep", list(map(str, arguments)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def only_line(captured: Captured) -> str:
    out, error = captured.readouterr()
    assert out == ""
    assert error.startswith("sep: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty"),
        (b"plain text", "not a .sep file"),
        (MAGIC + b"\xff" + PACKED[5:], "version 255"),
        (PACKED[:-1], "cut short"),
        (PACKED[:20] + bytes([PACKED[20] ^ 1]) + PACKED[21:], "damaged"),
        (PACKED + b"!", "follow the last frame"),
    ],
)
@pytest.mark.parametrize("mode", ["-d", "-t"])
def test_bad_input(tmp_path: Path, capfd: Captured, content: bytes, complaint: str, mode: str) -> None:
    bad = tmp_path / "bad.sep"
    bad.write_bytes(content)
    rm = ["--rm"] if mode == "-d" else []
    assert sep(mode, *rm, bad) == FAILED
    line = only_line(capfd)
    assert line.startswith(f"sep: {bad}: ")
    assert complaint in line
    assert names(tmp_path) == ["bad.sep"]
    assert bad.read_bytes() == content


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (MemoryError(), "out of memory; free some, or compress with fewer --lanes or a lower level"),
        (sepzip.OutOfMemoryError("9 GB do not fit; take --lanes 4"), "9 GB do not fit; take --lanes 4"),
        (sepzip.DeviceError("no device cuda:7; choose cuda:0"), "no device cuda:7; choose cuda:0"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left for the output; free some"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk quota is used up"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "the device failed to read or write"),
        (OSError(errno.EBUSY, "Device or resource busy"), "Device or resource busy; check"),
        (BlockingIOError("no bytes yet"), "no bytes yet; check"),
        (ImportError("no torch"), "a library cannot be loaded (no torch); install sepzip again"),
        (RuntimeError("two\nlines"), "an error in sepzip itself, RuntimeError: two lines; please report it"),
    ],
)
def test_every_error_is_one_line_and_discards_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured, error: Exception, complaint: str
) -> None:
    def fail(source: Any, sink: Any, *arguments: Any, **settings: Any) -> None:
        sink.write(b"half an outp")
        raise error

    monkeypatch.setattr(transfer, "compress_stream", fail)
    source = tmp_path / "name"
    source.write_bytes(CONTENT)
    assert sep("--rm", source) == FAILED
    assert only_line(capfd).startswith(f"sep: {source}: {complaint}")
    assert names(tmp_path) == ["name"]


def test_a_full_device(tmp_path: Path, capfd: Captured) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    source = tmp_path / "name"
    source.write_bytes(CONTENT)
    assert sep("--rm", "-o", full, source) == FAILED
    assert only_line(capfd).startswith(f"sep: {source}: /dev/full: no space left for the output")
    assert source.exists()


def test_a_full_standard_output(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    packed = tmp_path / "name.sep"
    packed.write_bytes(PACKED)
    with open("/dev/full", "wb") as full:
        for arguments in (["-dc", packed], ["-l", packed], ["-h"]):
            done = run(*arguments, stdout=full)
            assert done.returncode == FAILED
            assert done.stderr.count(b"\n") == 1
            assert b"no space left" in done.stderr


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    source = tmp_path / "name"
    packed = tmp_path / "large.sep"
    content = io.BytesIO()
    writer = FrameWriter(content, None)
    writer.write_stored(bytes(1 << 16))
    writer.finish()
    packed.write_bytes(content.getvalue())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))

    done = run("-d", "--rm", "-o", source, packed, preexec_fn=limit)
    assert done.returncode == FAILED
    assert done.stderr.startswith(f"sep: {packed}: the output is larger than a file may be here; ".encode())
    assert done.stderr.count(b"\n") == 1
    assert names(tmp_path) == ["large.sep"]


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder that anyone may read and only its owner write, and a process that is not its owner."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "readable").write_bytes(CONTENT)
    (folder / "secret").write_bytes(CONTENT)
    (folder / "closed").mkdir()
    (folder / "secret").chmod(0)
    (folder / "closed").chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        # Nobody forbids root anything.
        os.seteuid(65534)
    else:
        folder.chmod(0o555)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)
    (folder / "closed").chmod(0o755)
    shutil.rmtree(folder)


def test_no_permission(unprivileged: Path, capfd: Captured) -> None:
    assert sep(unprivileged / "secret") == FAILED
    assert only_line(capfd).startswith(f"sep: {unprivileged}/secret: permission denied; check")
    assert sep("--rm", unprivileged / "readable") == FAILED
    readable = f"{unprivileged}/readable"
    assert only_line(capfd).startswith(f"sep: {readable}: {readable}.sep: permission denied; check")
    assert sep("-tr", unprivileged) == FAILED
    assert only_line(capfd).startswith(f"sep: {unprivileged}/closed: permission denied; check")
    assert names(unprivileged) == ["closed", "readable", "secret"]


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    source = tmp_path / "name"
    source.write_bytes(b"text " * 100)
    done = run("--device", "cuda:99", source)
    assert done.returncode == FAILED
    assert done.stderr.startswith(f"sep: {source}: ".encode())
    assert done.stderr.count(b"\n") == 1
    assert names(tmp_path) == ["name"]


def test_a_name_cannot_command_the_terminal_or_break_the_line(tmp_path: Path, capfd: Captured) -> None:
    assert sep(tmp_path / "a\x1b[2J\nb") == FAILED
    assert f"{tmp_path}/a\\x1b[2J\\nb: no such file" in only_line(capfd)
    assert printable("caf\xe9 \udcff\u202e") == "caf\xe9 \\udcff\\u202e"


def test_an_error_names_another_file_only_if_it_is_another() -> None:
    error = OSError(errno.ENOENT, os.strerror(errno.ENOENT), "a")
    assert explain(error, "a") == "no such file or directory; check the name"
    assert explain(error, "b") == "a: no such file or directory; check the name"
