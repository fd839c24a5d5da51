"""Buffers and files in the manner of gzip, bz2 and lzma."""

from __future__ import annotations

import array
import io
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sepzip
from sepzip import SepFile, errors, presets, sepfile
from sepzip.errors import OutOfMemoryError, SepError, TrailingDataError, TruncatedError, UsageError
from sepzip.presets import Preset

pytestmark = pytest.mark.usefixtures("stand_in", "short_segments")


@pytest.fixture
def short_segments(tiny: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every level the tiny one, so that files have several segments."""
    resolve = presets.resolve
    monkeypatch.setattr(sepfile, "resolve", lambda *given: (resolve(*given), tiny)[1])


@pytest.fixture
def packed(text: bytes, tmp_path: Path) -> Path:
    """A file of two frames with three segments each, which hold the first 2000 bytes of the text."""
    path = tmp_path / "text.sep"
    path.write_bytes(sepzip.compress(text[:1000]) + sepzip.compress(text[1000:2000]))
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"every second byte")[::2],
        memoryview(bytes(range(60))).cast("B", (3, 4, 5)),
        memoryview(bytes(80)).cast("d"),
        array.array("i", range(300)),
        array.array("d"),
    ],
)
def test_any_buffer_comes_back(data: Any) -> None:
    packed = sepzip.compress(data)
    assert type(packed) is bytes
    assert sepzip.decompress(packed) == memoryview(data).tobytes()
    assert sepzip.decompress(memoryview(bytearray(packed))) == memoryview(data).tobytes()
    file = io.BytesIO()
    with SepFile(file, "w") as out:
        assert out.write(data) == memoryview(data).nbytes
    assert sepzip.decompress(file.getvalue()) == memoryview(data).tobytes()


def test_text_is_not_a_buffer(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        sepzip.compress("text")  # type: ignore[arg-type]
    with sepzip.open(tmp_path / "a.sep", "wb") as file, pytest.raises(TypeError):
        file.write("text")  # type: ignore[arg-type]


def test_wrong_settings_are_refused_before_a_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "kept.sep"
    path.write_bytes(b"kept")
    for wrong in ({"level": 10}, {"network": "none"}, {"lanes": 0}):
        with pytest.raises(UsageError):
            sepzip.compress(b"", **wrong)
        with pytest.raises(UsageError):
            sepzip.open(path, "wb", **wrong)
    assert path.read_bytes() == b"kept"


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_paths_of_any_kind(kind: Any, tmp_path: Path) -> None:
    path = kind(str(tmp_path / "a.sep"))
    with sepzip.open(path, "wb") as file:
        assert file.write(b"content") == 7
        assert file.name == path
    with sepzip.open(path) as file:
        assert file.read() == b"content"
        assert file.name == path


def test_a_file_object_stays_open(text: bytes) -> None:
    below = io.BytesIO()
    with sepzip.open(below, "wb") as file:
        file.write(text[:1000])
    assert file.closed
    assert not below.closed
    below.seek(0)
    with sepzip.open(below) as file:
        assert file.name == ""
        assert file.read() == text[:1000]
    assert not below.closed


def test_names_and_modes(packed: Path) -> None:
    with packed.open("rb") as below, sepzip.open(below) as file:
        assert file.name == str(packed)
        assert file.mode == "rb"
        assert file.fileno() == below.fileno()
        assert (file.readable(), file.writable(), file.seekable()) == (True, False, True)
    with sepzip.open(packed, "ab") as file:
        assert file.mode == "wb"
        assert (file.readable(), file.writable(), file.seekable()) == (False, True, False)


@pytest.mark.parametrize("mode", ["", "rw", "r+", "rbt", "tb", "q", "rr", "U", "rbb"])
def test_wrong_modes(mode: str, packed: Path) -> None:
    with pytest.raises(ValueError, match="mode"):
        sepzip.open(packed, mode)  # type: ignore[call-overload]


def test_wrong_arguments(packed: Path) -> None:
    for argument in ("encoding", "errors", "newline"):
        with pytest.raises(ValueError, match="text"):
            sepzip.open(packed, "rb", **{argument: "x"})  # type: ignore[call-overload]
    for mode in ("r", "w"):
        with pytest.raises(TypeError, match="int"):
            SepFile(7, mode)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        sepzip.open(packed.parent / "missing.sep")
    with pytest.raises(LookupError):
        sepzip.open(packed.parent / "new.sep", "wt", encoding="none such")
    assert (packed.parent / "new.sep").read_bytes() == b""


def test_x_never_overwrites(packed: Path) -> None:
    before = packed.read_bytes()
    with pytest.raises(FileExistsError):
        sepzip.open(packed, "xb")
    assert packed.read_bytes() == before
    with sepzip.open(packed.with_suffix(".new"), "x") as file:
        file.write(b"new")
    assert sepzip.decompress(packed.with_suffix(".new").read_bytes()) == b"new"


def test_a_adds_a_frame(packed: Path, text: bytes) -> None:
    with sepzip.open(packed, "ab") as file:
        file.write(b"appended")
    assert sepzip.decompress(packed.read_bytes()) == text[:2000] + b"appended"
    with sepzip.open(packed, "at", encoding="utf-8") as lines:
        lines.write("é")
    assert sepzip.decompress(packed.read_bytes()) == text[:2000] + b"appended\xc3\xa9"


@pytest.mark.parametrize("size", [0, 1, 399, 400, 401, 800, 1234])
@pytest.mark.parametrize("step", [1, 7, 400, 1000, 5000])
def test_pieces_of_any_size_make_the_frame_of_the_whole(text: bytes, size: int, step: int) -> None:
    below = io.BytesIO()
    with SepFile(below, "w") as file:
        for start in range(0, size, step):
            file.write(text[start : min(size, start + step)])
            assert file.tell() == min(size, start + step)
    assert sepzip.decompress(below.getvalue()) == text[:size]
    assert len(below.getvalue()) <= size + 64 or size > 400


def test_reading_in_every_way(packed: Path, text: bytes) -> None:
    content = text[:2000]
    with sepzip.open(packed) as file:
        assert file.read(0) == b""
        assert file.read(10) == content[:10]
        assert content[10:2000].startswith(file.peek(5))
        assert file.peek()
        assert file.tell() == 10
        piece = file.read1(100)
        assert 1 <= len(piece) <= 100
        buffer = bytearray(900)
        assert file.readinto(buffer) == 900
        assert content[10:].startswith(piece + buffer)
        count = file.readinto1(buffer)
        assert count >= 1
        rest = file.read()
        assert content.endswith(buffer[:count] + rest)
        assert file.tell() == 2000
        assert file.read() == file.read(5) == file.read1() == file.peek() == file.readline() == b""
    with sepzip.open(packed) as file:
        assert list(file) == content.splitlines(keepends=True)
    with sepzip.open(packed) as file:
        assert file.readline(3) == content[:3]
        assert file.readlines() == content[3:].splitlines(keepends=True)


def test_text(packed: Path, text: bytes, tmp_path: Path) -> None:
    with sepzip.open(packed, "rt", encoding="utf-8") as lines:
        assert list(lines) == text[:2000].decode().splitlines(keepends=True)
        lines.seek(0)
        assert lines.readline().encode() == text[: text.index(b"\n") + 1]
    path = tmp_path / "text.sep"
    with sepzip.open(path, "wt", encoding="latin-1", errors="replace", newline="\r\n") as lines:
        lines.write("é\n€\n")
    assert sepzip.decompress(path.read_bytes()) == b"\xe9\r\n?\r\n"
    with sepzip.open(path, "rt", encoding="latin-1", newline="") as lines:
        assert lines.read() == "é\r\n?\r\n"


def test_seeking_gives_what_slicing_gives(packed: Path, text: bytes) -> None:
    content = text[:2000]
    choice = random.Random(0)
    with sepzip.open(packed) as file:
        for _ in range(300):
            here = file.tell()
            whence = choice.choice([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
            target = choice.randrange(2000)
            base = {io.SEEK_SET: 0, io.SEEK_CUR: here, io.SEEK_END: 2000}[whence]
            assert file.seek(target - base, whence) == target
            size = choice.choice([1, 10, 1000])
            assert file.read(size) == content[target : target + size]
        assert file.seek(5000) == 2000
        assert file.read() == b""
        assert file.seek(1990) == 1990
        assert file.read() == content[1990:]
        for wrong in ((-1, 0), (-3000, 2)):
            with pytest.raises(ValueError, match="negative"):
                file.seek(*wrong)
        with pytest.raises((ValueError, io.UnsupportedOperation)):
            file.seek(0, 9)


def test_a_seek_decodes_only_the_segment_it_ends_in(packed: Path, text: bytes, stand_in: ModuleType) -> None:
    right, decoded = stand_in.decode_segment, []

    def counting(blocks: Any, size: int, *rest: Any) -> Any:
        decoded.append(size)
        return right(blocks, size, *rest)

    stand_in.decode_segment = counting  # type: ignore[attr-defined]
    with sepzip.open(packed) as file:
        file.seek(1950)
        assert file.read(10) == text[1950:1960]
        file.seek(10)
        assert file.read(5) == text[10:15]
    assert len(decoded) == 2


def test_a_pipe_is_read_but_not_gone_back_in(packed: Path, text: bytes) -> None:
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.stdout.buffer.write(open({str(packed)!r}, 'rb').read())",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with sepzip.open(process.stdout) as file:
            assert not file.seekable()
            assert file.read(1500) == text[:1500]
            with pytest.raises(io.UnsupportedOperation):
                file.seek(0)
            assert file.read() == text[1500:2000]


def test_reading_begins_where_the_file_stands(packed: Path, text: bytes) -> None:
    below = io.BytesIO(b"before" + packed.read_bytes())
    below.seek(6)
    with sepzip.open(below) as file:
        assert file.read() == text[:2000]
        file.seek(0)
        assert file.read() == text[:2000]


def test_a_closed_file_refuses_everything_but_closing(packed: Path) -> None:
    for file in (SepFile(packed), SepFile(packed, "a")):
        file.close()
        file.close()
        assert file.closed
        for call in (
            file.read,
            file.readline,
            file.peek,
            file.tell,
            file.flush,
            file.fileno,
            file.readable,
            file.seekable,
        ):
            with pytest.raises(ValueError, match="closed"):
                call()
        with pytest.raises(ValueError, match="closed"):
            file.write(b"")
        with pytest.raises(ValueError, match="closed"), file:
            pass
        with pytest.raises(ValueError, match="closed"):
            next(file)


def test_reading_and_writing_do_not_mix(packed: Path) -> None:
    with SepFile(packed) as file, pytest.raises(io.UnsupportedOperation):
        file.write(b"")
    with SepFile(packed, "a") as file:
        for call in (
            file.read,
            file.readline,
            file.peek,
            lambda: file.seek(0),
            lambda: file.readinto(bytearray(1)),
        ):
            with pytest.raises(io.UnsupportedOperation):
                call()
        file.flush()


@pytest.mark.parametrize("size", [0, 10, 1000])
@pytest.mark.parametrize("mode", ["wb", "wt"])
def test_an_exception_leaves_no_whole_frame(mode: str, size: int, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.sep"
    with pytest.raises(KeyError), sepzip.open(path, mode) as file:  # type: ignore[call-overload]
        file.write(text[:size] if mode == "wb" else text[:size].decode())
        raise KeyError
    assert file.closed
    with pytest.raises(TruncatedError):
        sepzip.decompress(path.read_bytes())


def test_a_failed_write_closes_the_file(tmp_path: Path, text: bytes, stand_in: ModuleType) -> None:
    def failing(*arguments: object) -> object:
        raise OutOfMemoryError("no room")

    stand_in.encode_segment = failing  # type: ignore[attr-defined]
    file = SepFile(tmp_path / "a.sep", "w")
    with pytest.raises(OutOfMemoryError):
        file.write(text[:1000])
    assert file.closed
    file = SepFile(tmp_path / "a.sep", "w")
    file.write(text[:300])
    with pytest.raises(OutOfMemoryError):
        file.close()
    assert file.closed
    with pytest.raises(TruncatedError):
        sepzip.decompress((tmp_path / "a.sep").read_bytes())


def test_errors_come_through_reading(packed: Path, text: bytes) -> None:
    whole = packed.read_bytes()
    for damaged, error in (
        (whole[:-1], TruncatedError),
        (whole + b"!", TrailingDataError),
        (b"", TruncatedError),
    ):
        with SepFile(io.BytesIO(damaged)) as file, pytest.raises(error):
            file.read()
    with SepFile(io.BytesIO(whole[:-1])) as file:
        assert file.read(1600) == text[:1600]


def test_the_networks_write_and_read_files(
    text: bytes, tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sepzip.engine")
    monkeypatch.setattr(sepfile, "resolve", lambda *given: replace(tiny, lanes=40))
    with sepzip.open(tmp_path / "a.sep", "wb") as file:
        file.write(text[:900])
    with sepzip.open(tmp_path / "a.sep", device="cpu") as file:
        file.seek(700)
        assert file.read() == text[700:900]
        file.seek(0)
        assert file.read() == text[:900]


def test_the_public_names() -> None:
    assert sorted(sepzip.__all__) == sepzip.__all__
    assert set(sepzip.__all__) == {
        "SepFile",
        "compress",
        "decompress",
        "open",
        "__version__",
        *errors.__all__,
    }
    assert set(sepzip.__all__) <= set(dir(sepzip))
    for name in errors.__all__:
        assert getattr(sepzip, name) is getattr(errors, name)
        assert issubclass(getattr(sepzip, name), Warning if name.endswith("Warning") else SepError)
    with pytest.raises(AttributeError, match="none_such"):
        sepzip.none_such  # noqa: B018


def test_importing_loads_little() -> None:
    script = (
        "import sys, sepzip; print(sepzip.__version__, *(n for n in sys.modules if n.startswith('sepzip')))"
    )
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["0.1.0", "sepzip"]
