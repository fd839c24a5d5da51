"""The page of the benches, made of results that are measured here on a little text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

import page
import plots
import results
import suite

PLAN = suite.Plan(("pac-small", "recall"), (256,), 8_000, in_flight=(0, 2))
HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def lines(text: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lines of a run over some text and a shorter file, whose name needs escaping."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "topics").write_bytes(text)
    (folder / "a<b>&c").write_bytes(text[-5000:])
    out = folder / "results.jsonl"
    rows = list(suite.run(PLAN, [folder / "topics", folder / "a<b>&c"], out, "cpu"))
    assert [row for row in rows if "error" in row or not row.get("same", True)] == []
    return out


def test_each_kind_is_measured_and_says_with_what(lines: Path) -> None:
    rows = results.read(lines)
    kinds = {row["case"]["kind"] for row in rows} - {"peer"}
    assert kinds == {"network", "streams", "loss", "mask"}
    for row in rows:
        assert row["machine"]["processor"] and row["versions"]["torch"] and "commit" in row
    losses = [row["loss"] for row in rows if row["case"]["kind"] == "loss"]
    assert all(0 < loss[-1] < loss[0] < 9 for loss in losses)
    masks = [row for row in rows if row["case"]["kind"] == "mask"]
    assert all(row["kept"][0] and row["mask"] != row["mask_before"] for row in masks)
    streams = [row for row in rows if row["case"]["kind"] == "streams"]
    assert {row["segments"] for row in streams} == {suite.SEGMENTS}
    assert len({row["sha256"] for row in streams}) == 1


def test_a_second_run_measures_nothing_again(lines: Path) -> None:
    before = lines.read_text()
    assert list(suite.run(PLAN, [lines.parent / "topics"], lines, "cpu")) == []
    assert lines.read_text() == before


def test_a_run_that_was_ended_in_a_line_goes_on(lines: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    whole = lines.read_text().splitlines(keepends=True)
    mask = next(line for line in whole if '"kind": "mask"' in line)
    cut.write_text("".join(line for line in whole if line != mask) + mask[:50])
    again = list(suite.run(PLAN, [lines.parent / "topics"], cut, "cpu"))
    assert [row["case"] for row in again] == [json.loads(mask)["case"]]
    assert len(results.read(cut)) == len(whole)


@pytest.mark.skipif(shutil.which("xz") is None, reason="xz is not installed")
def test_other_compressors_stand_beside(lines: Path) -> None:
    found = {setting.name: setting for setting in results.settings(results.read(lines)) if setting.peer}
    assert found["xz -9e"].bytes == PLAN.most + 5000
    assert found["xz -9e"].ratio > 1


def test_the_page_is_whole_and_needs_nothing_else(lines: Path) -> None:
    made = page.page(results.latest(results.read(lines)))
    root = ElementTree.fromstring(made.removeprefix("<!DOCTYPE html>\n"))
    assert root.tag == f"{HTML}html"
    sections = [section.get("id") for section in root.iter(f"{HTML}section")]
    assert sections == ["results", "ratio", "loss", "stages", "mask", "streams"]
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(names) == len(set(names))
    for name in re.findall(r"url\(#([^)]*)\)", made):
        assert name in names
    # A namespace's name is never fetched; nothing else may look like an address.
    assert set(re.findall(r"\w+://[^\"' ]*", made)) <= {HTML[1:-1], SVG[1:-1]}
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|\bsrc=|\bhref=", made)
    assert "prefers-color-scheme: dark" in made and "width=device-width" in made
    assert "a&lt;b&gt;&amp;c" in made


def test_every_plot_has_words_and_a_table(lines: Path) -> None:
    root = ElementTree.fromstring(page.page(results.latest(results.read(lines))).partition("\n")[2])
    pictures = [picture for picture in root.iter(f"{SVG}svg") if picture.get("role") == "img"]
    # Two plots in two widths each, the loss of one network and its mask.
    assert len(pictures) == 6
    for picture in pictures:
        assert len(picture.get("aria-label", "")) > 30
    for name in ("results", "loss", "stages", "mask", "streams"):
        section = next(one for one in root.iter(f"{HTML}section") if one.get("id") == name)
        assert next(section.iter(f"{HTML}table"), None) is not None


def test_what_was_dropped_is_crossed_out_and_said(lines: Path) -> None:
    panel = ElementTree.fromstring(
        plots.mask_panel("a", [1.0, 0.4, 0.0], [True, False, True], [1.0, 0.5, 1.0], [False, False, True])
    )
    assert [one.get("class") for one in panel.iter(f"{SVG}path")].count("dropped") == 1
    assert "1 patches kept, 1 dropped" in panel.get("aria-label", "")
    rows = [row for row in results.read(lines) if row["case"]["kind"] == "mask"]
    assert all(len(row["dropped"]) == len(row["mask"]) == len(row["strength"]) for row in rows)
    assert all(row["strength"][0] == 1.0 for row in rows)
    cut = [row | {"dropped": [False] * (len(row["mask"]) - 1) + [True]} for row in rows]
    section = ElementTree.fromstring(page.page(cut).partition("\n")[2])
    cells = [cell.text or "" for cell in section.iter(f"{HTML}td")]
    assert any(cell.endswith("dropped") for cell in cells)


def test_nothing_measured_still_makes_a_page(lines: Path) -> None:
    rows = [row | {"error": "Fault: <none>"} for row in results.read(lines)]
    made = page.page(rows)
    ElementTree.fromstring(made.partition("\n")[2])
    assert "Fault: &lt;none&gt;" in made and "Nothing was measured." in made


def test_markdown_has_a_line_for_each_setting(lines: Path) -> None:
    rows = results.read(lines)
    table = results.markdown(rows).split("\n\n")[1].splitlines()
    assert len(table) == 2 + len(results.settings(rows))
    assert len({line.count("|") for line in table}) == 1


def test_only_the_newest_of_a_case_counts(lines: Path) -> None:
    rows = results.read(lines)
    old = [row | {"commit": "before", "coded": 1} for row in rows]
    assert results.latest([*old, *rows]) == rows


def test_shares_of_stages_that_overlap_make_a_whole() -> None:
    shares = plots.stage_shares({"step": 3.0, "code": 1.0, "idle": 5.0}, wall=2.0)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert (shares["step"], shares["waiting"]) == (0.75, 0.0)
    shares = plots.stage_shares({"step": 1.0}, wall=4.0)
    assert (shares["step"], shares["waiting"]) == (0.25, 0.75)


def test_labels_cover_neither_points_nor_each_other() -> None:
    points = [plots.Point(f"network-{i}", "with", 10 + i % 3, 2 + i / 50) for i in range(10)]
    drawn = ElementTree.fromstring(plots.ratio_against_speed(points, 720))
    labels = [one for one in drawn.iter(f"{SVG}text") if (one.text or "").startswith("network-")]
    places = [(float(one.get("x", "")), float(one.get("y", ""))) for one in labels]
    assert len(places) == 10
    for number, (x, y) in enumerate(places):
        assert 44 < x < 720 and 14 < y < 380
        assert all(abs(x - x2) > 60 or abs(y - y2) > 12 for x2, y2 in places[:number])


@pytest.mark.parametrize("fastest", [99.0, 630.0, 900.0, 999_999.0])
def test_the_numbers_of_an_axis_are_within_the_picture(fastest: float) -> None:
    points = [plots.Point("slow", "peer", 1.01, 1.0), plots.Point("fast", "peer", fastest, 2.0)]
    drawn = ElementTree.fromstring(plots.ratio_against_speed(points, 720))
    decades = [one for one in drawn.iter(f"{SVG}text") if one.get("y") == "394.0"]
    assert len(decades) >= 3
    for one in decades:
        assert one.get("text-anchor") == "middle"
        assert float(one.get("x", "")) + 3.3 * len(one.text or "") <= 720
