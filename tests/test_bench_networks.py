"""The table of all networks: what a case says, what is left out, and what came back otherwise."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
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


def _end(*_given: object) -> None:
    os._exit(1)


def _cases(options: argparse.Namespace, device: str = "cpu", seconds: float = 1000) -> list[networks.Case]:
    return list(networks.cases(options, device, time.perf_counter() + seconds))


def test_each_network_comes_with_each_block(file: Path) -> None:
    found = _cases(_options(file, network=networks.NETWORKS))
    assert len(found) == 1 + 3 * len(networks.NETWORKS)
    assert {case.name for case in found[1:]} == set(presets.NETWORKS) - {"lstm-large", "recall"}
    assert all(case.bytes == 1200 for case in found[1:])
    on_gpu = _cases(_options(file, network=["oreo", "pac"], lanes=None), "cuda:0")
    assert [case.kernels for case in on_gpu] == [True, False, False, False, True, True, True]
    assert on_gpu[1].bytes == 9 * 512 and on_gpu[4].bytes == 300 * 512
    only = _cases(_options(file, network=["oreo", "pac"], block=["seb"], levels=[]))
    assert [(case.name, case.block) for case in only] == [("oreo", "seb"), ("pac", "seb")]


def test_a_case_says_what_came_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = _cases(_options(file))
    rows = [networks.one(case) for case in work]
    assert all(row["same"] and 0 < row["coded"] < row["bytes"] and row["memory_mib"] > 50 for row in rows)
    measure = streams.measure
    monkeypatch.setattr(streams, "measure", lambda *given, **told: measure(*given, **told) | {"same": False})
    rows.append(networks.one(work[1]) | {"network": "oreo"})
    rows.append(networks.one(replace(work[1], until=0.0)) | {"network": "nncp"})
    file.write_bytes(b"short")
    rows.append(networks.one(work[1]) | {"network": "lstm"})
    lines = networks.table(rows).splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:7]] == ["yes |", "NO |", "yes |", "yes |", "yes |"]
    assert "Not run for want of time: nncp none." in lines
    assert lines[-1] == "Failed: lstm none: ValueError: the file has 5 bytes, not 1200."


def test_those_in_turns_warm_up_together_and_are_measured_alone(file: Path) -> None:
    (work,) = _cases(_options(file, block=["seb"], levels=[]))
    rows = list(networks.in_turns([replace(work, bytes=5000), work, replace(work, until=0.0)], 2))
    assert rows[0]["error"] == "ValueError: the file has 4000 bytes, not 5000"
    assert rows[1]["same"] and rows[1]["sha256"] == networks.one(work)["sha256"]
    assert rows[2]["left"]


def test_a_process_that_ends_is_a_case_that_failed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = _cases(_options(file, block=["none"], levels=[]))
    monkeypatch.setattr(networks, "_in_turn", _end)
    (row,) = networks.in_turns(work, 2)
    assert row == work[0].about | {"error": "its process ended"}
