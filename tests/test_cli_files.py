"""What the command does with files: outputs, names, sources kept and removed, and directories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import sepzip
from sepzip import pipeline
from sepzip.cli import transfer
from sepzip.cli.run import FAILED, main

# Too little to be worth a model, even packed once, so that no test here waits for torch.
CONTENT = b"abc\n"
MTIME = 1_234_567_890_123_456_789

Error = pytest.CaptureFixture[str]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "name"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "packed.sep"
    path.write_bytes(sepzip.compress(CONTENT))
    return path


def sep(*arguments: str | Path) -> int:
    return main("sep", list(map(str, arguments)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_there_and_back(source: Path) -> None:
    assert sep(source) == 0
    assert source.read_bytes() == CONTENT
    assert sep("-d", "-o", source.with_name("back"), f"{source}.sep") == 0
    assert names(source.parent) == ["back", "name", "name.sep"]
    assert source.with_name("back").read_bytes() == CONTENT


def test_an_empty_file(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert sep("--rm", "--verify", empty) == 0
    assert sep("-d", f"{empty}.sep") == 0
    assert empty.read_bytes() == b""


def test_mode_and_time_are_copied_both_ways(source: Path) -> None:
    source.chmod(0o640)
    os.utime(source, ns=(MTIME, MTIME))
    assert sep("--rm", source) == 0
    output = source.with_name("name.sep")
    assert (output.stat().st_mode & 0o7777, output.stat().st_mtime_ns) == (0o640, MTIME)
    assert sep("-d", output) == 0
    assert (source.stat().st_mode & 0o7777, source.stat().st_mtime_ns) == (0o640, MTIME)


def test_rights_beyond_reading_writing_and_executing_are_not_copied(source: Path) -> None:
    source.chmod(0o4755)
    assert sep(source) == 0
    assert source.with_name("name.sep").stat().st_mode & 0o7777 == 0o755


def test_rm_removes_the_source_and_k_keeps_it(source: Path) -> None:
    assert sep("-k", source) == 0
    assert names(source.parent) == ["name", "name.sep"]
    assert sep("--rm", "-f", source) == 0
    assert names(source.parent) == ["name.sep"]
    assert sep("-d", "--rm", f"{source}.sep") == 0
    assert names(source.parent) == ["name"]


def test_rm_removes_nothing_when_the_output_fails(source: Path) -> None:
    source.with_name("name.sep").write_bytes(b"old")
    assert sep("--rm", source) == FAILED
    assert source.read_bytes() == CONTENT
    assert source.with_name("name.sep").read_bytes() == b"old"


def test_rm_keeps_a_source_that_has_changed_meanwhile(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: Error
) -> None:
    compress = pipeline.compress_stream

    def change_and_compress(*arguments: Any, **settings: Any) -> tuple[int, int]:
        sizes = compress(*arguments, **settings)
        source.write_bytes(CONTENT + b"more")
        return sizes

    monkeypatch.setattr(transfer, "compress_stream", change_and_compress)
    assert sep("--rm", source) == FAILED
    assert source.read_bytes() == CONTENT + b"more"
    assert "has changed" in capfd.readouterr().err


def test_a_failed_file_does_not_stop_the_rest(source: Path, capfd: Error) -> None:
    folder = source.parent
    (folder / "folder").mkdir()
    (folder / "last").write_bytes(b"last")
    assert sep(folder / "missing", source, folder / "folder", folder / "last") == FAILED
    assert names(folder) == ["folder", "last", "last.sep", "name", "name.sep"]
    assert capfd.readouterr().err.splitlines() == [
        f"sep: {folder}/missing: no such file or directory; check the name",
        f"sep: {folder}/folder: is a directory; -r takes the files in it",
    ]


def test_an_existing_output_is_refused_without_f(source: Path, capfd: Error) -> None:
    output = source.with_name("name.sep")
    output.write_bytes(b"old")
    assert sep(source) == FAILED
    assert output.read_bytes() == b"old"
    assert capfd.readouterr().err == f"sep: {source}: {output}: exists already; -f overwrites it\n"
    assert sep("-f", source) == 0
    assert sepzip.decompress(output.read_bytes()) == CONTENT
    assert names(source.parent) == ["name", "name.sep"]


@pytest.mark.parametrize("has_links", [True, False])
def test_an_output_that_appears_meanwhile_is_kept(
    source: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    output = source.with_name("name.sep")
    compress = pipeline.compress_stream

    def compress_late(*arguments: Any, **settings: Any) -> tuple[int, int]:
        output.write_bytes(b"of another")
        return compress(*arguments, **settings)

    def refuse_link(*paths: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(transfer, "compress_stream", compress_late)
    if not has_links:
        monkeypatch.setattr(os, "link", refuse_link)
    assert sep(source) == FAILED
    assert output.read_bytes() == b"of another"
    assert names(source.parent) == ["name", "name.sep"]


def test_a_file_system_without_links(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_link(*paths: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse_link)
    assert sep(source) == 0
    assert names(source.parent) == ["name", "name.sep"]


@pytest.mark.parametrize("make", [os.link, os.symlink, None])
def test_one_file_as_input_and_output_is_refused(source: Path, make: Any, capfd: Error) -> None:
    output = source
    if make:
        output = source.with_name("other")
        make(source, output)
    assert sep("-f", "-o", output, source) == FAILED
    assert source.read_bytes() == CONTENT
    assert "the same file" in capfd.readouterr().err


def test_a_sep_file_is_not_compressed_again_without_f(packed: Path, capfd: Error) -> None:
    assert sep(packed) == FAILED
    assert names(packed.parent) == ["packed.sep"]
    assert "ends in .sep already" in capfd.readouterr().err
    assert sep("-f", packed) == 0
    assert sepzip.decompress(Path(f"{packed}.sep").read_bytes()) == packed.read_bytes()


def test_decompressing_needs_the_suffix_or_a_name(packed: Path, capfd: Error) -> None:
    bare = packed.rename(packed.with_name("bare"))
    assert sep("-d", bare) == FAILED
    assert "does not end in .sep" in capfd.readouterr().err
    assert names(bare.parent) == ["bare"]
    hidden = bare.rename(bare.with_name(".sep"))
    assert sep("-d", hidden) == FAILED
    assert sep("-d", "-o", hidden.with_name("out"), hidden) == 0
    assert hidden.with_name("out").read_bytes() == CONTENT


def test_concatenated_frames_are_one_file(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes() + sepzip.compress(b"more"))
    assert sep("-d", packed) == 0
    assert packed.with_suffix("").read_bytes() == CONTENT + b"more"


def test_c_joins_the_outputs(source: Path, packed: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert sep("-c", source, source) == 0
    assert sepzip.decompress(capfdbinary.readouterr().out) == CONTENT * 2
    assert sep("-dc", packed, packed) == 0
    assert capfdbinary.readouterr().out == CONTENT * 2
    assert names(source.parent) == ["name", "packed.sep"]


def test_o_takes_a_device_as_it_is(source: Path) -> None:
    assert sep("-o", os.devnull, source) == 0
    assert not Path(os.devnull).is_file()
    assert sep("-f", "-o", os.devnull, source) == 0
    assert not Path(os.devnull).is_file()


def test_o_follows_a_link(source: Path) -> None:
    link = source.with_name("link")
    link.symlink_to("real")
    assert sep("-o", link, source) == 0
    assert sep("-f", "-o", link, source) == 0
    assert link.is_symlink()
    assert names(source.parent) == ["link", "name", "real"]


def test_o_names_the_output_that_fails(source: Path, capfd: Error) -> None:
    assert sep("-o", source.parent, source) == FAILED
    assert "is a directory; name a file with -o" in capfd.readouterr().err
    assert sep("-o", source.parent / "none" / "out", source) == FAILED
    assert capfd.readouterr().err.startswith(f"sep: {source}: {source.parent}/none/out: no such file")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    (root / "a").write_bytes(b"a")
    (root / "inner" / "b").write_bytes(b"b")
    (root / "inner" / "done.sep").write_bytes(sepzip.compress(b"done"))
    (root / "link").symlink_to("a")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe")
    return root


def files(root: Path) -> list[str]:
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(str(path.relative_to(root)) for path in found)


def test_r_takes_the_files_in_directories(tree: Path) -> None:
    assert sep("-r", "--rm", tree) == 0
    assert files(tree) == ["a.sep", "inner/b.sep", "inner/done.sep"]
    assert sep("-dr", "--rm", tree) == 0
    assert files(tree) == ["a", "inner/b", "inner/done"]
    assert (tree / "inner" / "b").read_bytes() == b"b"


def test_r_tests_and_lists_only_sep_files(tree: Path, capfd: Error) -> None:
    assert sep("-tr", tree) == 0
    assert sep("-lr", tree) == 0
    out, error = capfd.readouterr()
    assert error == ""
    assert [line.split()[-1] for line in out.splitlines()] == ["name", f"{tree}/inner/done.sep"]


def test_verify(source: Path) -> None:
    assert sep("--verify", "--rm", source) == 0
    assert names(source.parent) == ["name.sep"]


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (sepzip.compress(b"others"), "not the same bytes"),
        (sepzip.compress(CONTENT)[:-1], "could not be read back"),
    ],
)
def test_verify_discards_what_does_not_come_back(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: Error, written: bytes, complaint: str
) -> None:
    def miscompress(source: Any, sink: Any, *arguments: Any, **settings: Any) -> tuple[int, int]:
        content = source.read(1 << 20)
        return len(content), sink.write(written)

    monkeypatch.setattr(transfer, "compress_stream", miscompress)
    assert sep("--verify", "--rm", source) == FAILED
    assert names(source.parent) == ["name"]
    assert complaint in capfd.readouterr().err


def test_verify_needs_an_output_that_can_be_read_back(source: Path, capfd: Error) -> None:
    assert sep("--verify", "-o", os.devnull, source) == FAILED
    assert "--verify reads the output back" in capfd.readouterr().err
