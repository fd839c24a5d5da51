"""The table of all networks: what a case says, what is left out, and what came back otherwise."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pytest

import networks
import streams
from sepzip import presets


@pytest.fixture
def file(text: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(text[:4000])
    return path


def _options(file: Path, **changes: object) -> argparse.Namespace:
    told = {"file": file, "network": ["pac-small"], "levels": [1], "lanes": 4, "steps": 300}
    told |= {"block": list(networks.BLOCKS), "plain_steps": 9, "level_bytes": 2000}
    return argparse.Namespace(**(told | changes))


def test_each_network_comes_with_each_block(file: Path) -> None:
    found = list(networks.cases(_options(file, network=networks.NETWORKS), on_gpu=False))
    assert len(found) == 1 + 3 * len(networks.NETWORKS)
    assert {case.name for case in found[1:]} == set(presets.NETWORKS) - {"lstm-large", "recall"}
    assert all(case.bytes == 1200 for case in found[1:])
    on_gpu = list(networks.cases(_options(file, network=["oreo", "pac"], lanes=None), on_gpu=True))
    assert [case.kernels for case in on_gpu] == [True, False, False, False, True, True, False]
    assert on_gpu[1].bytes == 9 * 512 and on_gpu[4].bytes == 300 * 512
    only = networks.cases(_options(file, network=["oreo", "pac"], block=["seb"], levels=[]), on_gpu=False)
    assert [(case.name, case.block) for case in only] == [("oreo", "seb"), ("pac", "seb")]


def test_a_case_says_what_came_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = list(networks.cases(_options(file), on_gpu=False))
    until = time.perf_counter() + 1000
    rows = [networks.one((case, file, "cpu", False, until)) for case in work]
    assert all(row["same"] and 0 < row["coded"] < row["bytes"] and row["memory_mib"] > 50 for row in rows)
    measure = streams.measure
    monkeypatch.setattr(streams, "measure", lambda *given: measure(*given) | {"same": False})
    rows.append(networks.one((work[1], file, "cpu", False, until)) | {"network": "oreo"})
    rows.append(networks.one((work[1], file, "cpu", False, 0.0)) | {"network": "nncp"})
    file.write_bytes(b"short")
    rows.append(networks.one((work[1], file, "cpu", False, until)) | {"network": "lstm"})
    lines = networks.table(rows).splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:7]] == ["yes |", "NO |", "yes |", "yes |", "yes |"]
    assert "Not run for want of time: nncp none." in lines
    assert lines[-1] == "Failed: lstm none: ValueError: the file has 5 bytes, not 1200."
