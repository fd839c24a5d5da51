"""Listing and testing as a table and as JSON, and that torch is not needed for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import sepzip
from command import run
from sepzip.cli.run import FAILED, main

CONTENT = b"What is stored as it is\n"
TEXT = CONTENT * 400

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files, in it as the working directory: coded, stored, and two frames, one without the SEB."""
    (tmp_path / "coded.sep").write_bytes(sepzip.compress(TEXT, network="pac-small", lanes=2))
    (tmp_path / "stored.sep").write_bytes(sepzip.compress(CONTENT))
    frames = sepzip.compress(TEXT, network="pac-small", lanes=2) + sepzip.compress(
        TEXT, network="pac-small", lanes=3, semantics=False
    )
    (tmp_path / "frames.sep").write_bytes(frames)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_table(folder: Path, capfd: Captured) -> None:
    assert main("sep", ["-l", "coded.sep", "frames.sep", "stored.sep"]) == 0
    out, error = capfd.readouterr()
    assert error == ""
    head, coded, frames, stored, total = (line.split() for line in out.splitlines())
    assert head[:5] == ["compressed", "uncompressed", "ratio", "network", "lanes"]
    assert head[5:] == ["segments", "memory", "check", "name"]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    size = sizes["coded.sep"]
    assert coded[:6] == [str(size), str(len(TEXT)), f"{len(TEXT) / size:.3f}", "seb+pac", "2", "1"]
    assert coded[6].endswith("MiB")
    assert coded[8] == "coded.sep"
    assert frames[3:6] == ["seb+pac,pac", "3", "2"]
    assert frames[7:] == ["-", "frames.sep"]
    assert stored[3:7] == ["stored", "0", "1", "-"]
    uncompressed = 3 * len(TEXT) + len(CONTENT)
    assert total[:2] == [str(sum(sizes.values())), str(uncompressed)]
    assert total[3:] == ["4", "3", "files"]


def test_json(folder: Path, capfd: Captured) -> None:
    assert main("sep", ["-l", "--json", "frames.sep"]) == 0
    out, error = capfd.readouterr()
    assert error == ""
    (entry,) = json.loads(out)["files"]
    assert entry["name"] == "frames.sep"
    assert entry["uncompressed"] == 2 * len(TEXT)
    assert entry["compressed"] == (folder / "frames.sep").stat().st_size
    first, second = entry["frames"]
    assert (first["model"]["semantics"], second["model"]["semantics"]) == (True, False)
    assert first["checksum"] == second["checksum"]
    assert second["segments"][0]["lanes"] == 3


def test_a_bad_file_does_not_stop_the_listing(folder: Path, capfd: Captured) -> None:
    (folder / "cut.sep").write_bytes((folder / "coded.sep").read_bytes()[:-1])
    arguments = ["missing.sep", "cut.sep", "stored.sep"]
    assert main("sep", ["-l", *arguments]) == FAILED
    out, error = capfd.readouterr()
    assert [line.split()[-1] for line in out.splitlines()] == ["name", "stored.sep"]
    assert [line.split(": ")[1] for line in error.splitlines()] == ["missing.sep", "cut.sep"]
    assert main("sep", ["-l", "--json", *arguments]) == FAILED
    missing, cut, stored = json.loads(capfd.readouterr().out)["files"]
    assert "no such file" in missing["error"]
    assert "cut short" in cut["error"]
    assert "error" not in stored


def test_nothing_to_list_prints_no_table(folder: Path, capfd: Captured) -> None:
    assert main("sep", ["-l", "missing.sep"]) == FAILED
    assert capfd.readouterr().out == ""


def test_json_of_a_test(folder: Path, capfd: Captured) -> None:
    (folder / "cut.sep").write_bytes((folder / "coded.sep").read_bytes()[:-1])
    assert main("sep", ["-t", "--json", "coded.sep", "cut.sep"]) == FAILED
    out, error = capfd.readouterr()
    assert error.count("\n") == 1
    coded, cut = json.loads(out)["files"]
    assert (coded["name"], coded["ok"], coded["uncompressed"]) == ("coded.sep", True, len(TEXT))
    assert coded["compressed"] == (folder / "coded.sep").stat().st_size
    assert (cut["name"], cut["ok"]) == ("cut.sep", False)
    assert "cut short" in cut["error"]


_LOADED = """
import sys
from sepzip.cli.run import main
status = main("sep", sys.argv[1:])
loaded = {"torch", "numpy", "rich"} & set(sys.modules)
sys.exit(f"loaded {loaded}" if loaded else status)
"""


@pytest.mark.parametrize("arguments", [["-l"], ["-l", "--json"], ["-t"], ["-h"], ["-V"], ["-dc"]])
def test_torch_is_not_loaded_where_nothing_is_coded(folder: Path, arguments: list[str]) -> None:
    name = "coded.sep" if "-l" in arguments else "stored.sep"
    done = run(*arguments, folder / name, command=[sys.executable, "-c", _LOADED])
    assert (done.returncode, done.stderr) == (0, b"")
