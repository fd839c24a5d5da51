"""What the SEB gains at equal parameters: what is compared, what was decoded, and what is told of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import seb_gain
from sepzip.memory import parameter_count

LANES = 4


@pytest.fixture
def work(text: bytes, tmp_path: Path) -> seb_gain.Work:
    path = tmp_path / "text"
    path.write_bytes(text[:500])
    model = seb_gain.variant_of("pac-small", "patches", LANES, {})
    return seb_gain.Work(path, "pac-small", "patches", model, 403, LANES, torch.device("cpu"), True)


@pytest.mark.parametrize("network", ["pac-small", "trace-small", "patchtst-small", "oreo-small"])
def test_a_gain_is_one_at_equal_parameters(network: str) -> None:
    counts = {
        variant: parameter_count(seb_gain.variant_of(network, variant, 512, {}), 512)
        for variant in seb_gain.VARIANTS
    }
    for variant, base in seb_gain.BASES.items():
        # In front of tokens the published SEB adds some of the weights of so small a network.
        most = 0.07 if variant == "patches" else 0.01
        assert abs(counts[variant] - counts[base]) < most * counts[base], variant


def test_a_result_was_decoded_and_compared(work: seb_gain.Work, monkeypatch: pytest.MonkeyPatch) -> None:
    row = seb_gain.measure(work)
    assert row["same"] and row["bytes"] == 400 and 0 < row["coded"] < 400
    ngrams = replace(work, variant="ngrams", model=seb_gain.variant_of("pac-small", "ngrams", LANES, {}))
    assert seb_gain.measure(ngrams)["same"]
    assert "same" not in seb_gain.measure(replace(work, decode=False))
    monkeypatch.setattr(seb_gain, "decode_segment", lambda *given: bytearray(400))
    assert not seb_gain.measure(work)["same"]


def test_the_table_has_gains_and_says_what_was_not_decoded(work: seb_gain.Work) -> None:
    def row(variant: str, coded: int, **more: object) -> seb_gain.Row:
        about = work.about | {"variant": variant, "coded": coded, "bytes": 400}
        return about | {"steps_per_second": 10.0, "device": "cpu", "same": True} | more

    rows = [row("plain", 200), row("patches", 190), row("wide", 160), row("ngrams", 120)]
    lines = seb_gain.table(rows, ["plain", "patches", "ngrams"]).splitlines()
    cells = [cell.strip() for cell in lines[2].split("|")]
    # 190 beside 200, and 120 beside 160, which has no column here.
    assert cells.count("5.00 %") == 1 and cells.count("25.00 %") == 1
    assert [cell for cell in lines[3].split("|") if "%" in cell] == [" 5.00 % ", " 25.00 % "]
    assert len({line.count("|") for line in lines[:5]}) == 1 and lines[-1] == "Device: cpu."
    for bad in ({"same": False}, {"same": None}):
        lines = seb_gain.table([row("plain", 200, **bad), *rows[1:]], ["plain", "patches"]).splitlines()
        assert "(200)" in lines[2] and "brackets" in lines[-1]


def test_a_run_goes_on_where_it_was(
    work: seb_gain.Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[seb_gain.Work] = []

    def results(work: list[seb_gain.Work], jobs: int) -> list[seb_gain.Row]:
        begun.extend(work)
        return [seb_gain.measure(one) for one in work]

    def run(*options: str) -> int:
        told = ["seb_gain", str(work.path), "--bytes", "100", "--lanes", "4", "--device", "cpu"]
        told += ["--variants", "plain", "patches", "--out", str(tmp_path / "out"), *options]
        monkeypatch.setattr(sys, "argv", told)
        begun.clear()
        return seb_gain.main()

    monkeypatch.setattr(seb_gain, "results", results)
    assert run("--no-decode") == 0 and len(begun) == 2
    assert run("--no-decode") == 0 and begun == []
    assert run() == 0 and len(begun) == 2
    assert run() == 0 and begun == []
    lines = (tmp_path / "out" / "seb_gain.jsonl").read_text().splitlines()
    assert [json.loads(line).get("same") for line in lines] == [None, None, True, True]
    assert "brackets" not in (tmp_path / "out" / "seb_gain.md").read_text()
    monkeypatch.setattr(seb_gain, "decode_segment", lambda *given: bytearray())
    assert run("--bytes", "60") == 1


def test_what_fails_is_told_and_the_others_go_on(work: seb_gain.Work) -> None:
    gone = replace(work, path=work.path.with_name("gone"))
    rows = list(seb_gain.results([gone, work], 2))
    assert sorted("error" in row for row in rows) == [False, True]
    assert next(row for row in rows if "error" in row)["file"] == "gone"
    assert next(row for row in rows if "error" not in row)["same"]
