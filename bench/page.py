"""The results of bench/suite.py as one HTML page, which needs no other file and no network.

    python bench/page.py FOLDER/results.jsonl [--out FOLDER/results.html]

Of a case that was measured more than once, the page has the newest result.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import plots
import results

TITLE = "sepzip: sizes, speeds and where they come from"
WIDE, NARROW = 720.0, 350.0
"""Widths of a plot, in pixels: the browser shows the one that fits."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1d21; --quiet: #5b616b; --line: #d9dce1;
  --seb: #0b62b0; --plain: #b04a00; --memory: #1e7a3c; --peer: #6a6f78; --ground: #e3e6ea;
  --stripe: #f5f6f8; --a: #c9d2dc; --b: #f0d9a8; --c: #7fb2e0; --d: #eeb08a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #15171b; --ink: #e8eaee; --quiet: #a3a9b4; --line: #383d46;
  --seb: #6cb4f5; --plain: #f2a25f; --memory: #74cf92; --peer: #b0b6c0; --ground: #2a2e35;
  --stripe: #1d2026; --a: #4a5563; --b: #6f5a24; --c: #2c639a; --d: #8a4d24; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.3rem; }
p, li { max-width: 44rem; }
.about { color: var(--quiet); font-size: 0.85rem; padding: 0; list-style: none; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--seb); }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); padding: 0.3rem 0; }
caption span { display: block; max-width: min(44rem, calc(100vw - 2rem)); }
th, td { padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
summary { cursor: pointer; margin: 0.5rem 0; }
tbody tr:nth-child(even) > * { background: var(--stripe); }
tbody th { font-weight: normal; }
tbody tr.new > * { border-top: 2px solid var(--line); }
figure { margin: 0.8rem 0; }
figcaption { color: var(--quiet); font-size: 0.85rem; max-width: 44rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; list-style: none; margin: 0.6rem 0; padding: 0;
  font-size: 0.85rem; }
.legend svg { width: 28px; height: 16px; vertical-align: -3px; margin-right: 0.35rem; }
.plot { display: block; width: 100%; height: auto; }
.plot text { font: 12px system-ui, sans-serif; fill: var(--ink);
  paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round; }
.plot text.title { font-weight: 600; }
.plot text.small { font-size: 10px; fill: var(--quiet); }
.patterns { position: absolute; }
.narrow { display: none; }
@media (max-width: 46rem) {
  .wide { display: none; } .narrow { display: block; }
  table { font-size: 0.8rem; } th, td { padding: 0.25rem 0.3rem; } }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 0.8rem; }
.panels .plot { max-width: 240px !important; }
.grid { stroke: var(--line); fill: none; } .axis { stroke: var(--quiet); fill: none; }
.pair { stroke: var(--quiet); fill: none; stroke-dasharray: 2 3; }
.leader { stroke: var(--quiet); fill: none; stroke-width: 0.8; }
.mark { stroke-width: 2; } .mark.with { fill: var(--seb); stroke: var(--seb); }
.mark.without { fill: var(--page); stroke: var(--seb); }
.mark.memory { fill: var(--memory); stroke: var(--memory); }
.mark.peer { fill: var(--page); stroke: var(--peer); }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .curve.with { stroke: var(--seb); }
.curve.without { stroke: var(--plain); stroke-dasharray: 5 3; }
.bar.kept { fill: var(--ground); stroke: var(--quiet); }
.bar.learned { fill: var(--seb); stroke: var(--seb); }
.begun { stroke: var(--plain); stroke-dasharray: 5 3; fill: none; stroke-width: 1.5; }
.dropped { stroke: var(--quiet); stroke-width: 1.5; fill: none; }
.stage { stroke: var(--ink); stroke-width: 0.7; }
.ground-a { fill: var(--a); } .ground-b { fill: var(--b); } .ground-c { fill: var(--c); }
.ground-d { fill: var(--d); } .ground-e { fill: var(--page); }
.ink { stroke: var(--ink); stroke-width: 0.9; fill: none; } .dot { fill: var(--ink); }
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("lines", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or options.lines.with_suffix(".html")
    rows = results.latest(results.read(options.lines))
    if not rows:
        raise SystemExit(f"{options.lines} has no results: make them with bench/suite.py")
    out.write_text(page(rows), encoding="utf-8")
    print(out)


def page(rows: list[results.Row]) -> str:
    """Return the page of these results, well-formed as XML too."""
    about = "".join(f"<li>{escape(line)}</li>" for line in results.made_with(rows))
    sections = (_results, _ratio, _loss, _stages, _mask, _in_flight)
    return (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(TITLE)}</title><style>{STYLE}</style></head>\n<body>{plots.PATTERNS}"
        f'<header><h1>{escape(TITLE)}</h1><ul class="about">{about}</ul></header>\n<main>'
        + "\n".join(section(rows) for section in sections)
        + "</main></body></html>\n"
    )


def _section(name: str, title: str, *parts: str) -> str:
    heading = f'<h2 id="{name}-title">{title}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}{"".join(parts)}</section>'


def _table(caption: str, head: list[str], lines: list[list[str]]) -> str:
    """Return a table, which scrolls by itself where it is wider than the page."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ""
    for before, line in zip([[""], *lines], lines, strict=False):
        # A network's rows belong together.
        new = ' class="new"' if before[0].split(",")[0] != line[0].split(",")[0] else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in line[1:])
        body += f'<tr{new}><th scope="row">{escape(line[0])}</th>{cells}</tr>'
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _legend(entries: list[tuple[str, str]]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 28 16" aria-hidden="true">{sign}</svg>{escape(words)}</li>'
        for sign, words in entries
    )
    return f'<ul class="legend">{items}</ul>'


def _both(draw: Callable[[float], str]) -> str:
    """Return a plot for wide screens and for narrow ones: letters keep their size on both."""
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


def _nothing(what: str) -> str:
    return f"<p>{escape(what)}</p>"


def _results(rows: list[results.Row]) -> str:
    sizes = {row["file"]: row["bytes"] for row in rows}
    files = ", ".join(f"{name} ({size:,} bytes)" for name, size in sizes.items())
    whole = all(setting.coded.keys() == sizes.keys() for setting in results.settings(rows))
    failed = [results.one_line(row) for row in rows if "error" in row]
    faults = "".join(f"<li>{escape(line)}</li>" for line in failed)
    return _section(
        "results",
        "Results",
        f"<p>The first bytes of {escape(files)}. Every output was decompressed again and compared: the last "
        "column says whether all bytes came back. Speeds are of one run, and vary with what else the machine "
        "does.</p>",
        "" if whole else "<p>Not every setting has been run on all files yet.</p>",
        f"<p>These failed:</p><ul>{faults}</ul>" if failed else "",
        _table("All files together; ratio is bytes in for each byte out.", *results.summary(rows)),
        _details("File by file", _table("Bytes out of each file.", *results.by_file(rows))),
    )


def _at_most_lanes(rows: list[results.Row]) -> list[results.Setting]:
    """Return the peers, and each network at the most lanes that were tried."""
    found = results.settings(rows)
    most: dict[tuple[str, bool], results.Setting] = {}
    for setting in found:
        if not setting.peer:
            # They come in the order of their lanes.
            most[setting.name, setting.semantics] = setting
    return [*most.values(), *(setting for setting in found if setting.peer)]


def _ratio(rows: list[results.Row]) -> str:
    points = []
    for setting in _at_most_lanes(rows):
        kind = "peer" if setting.peer else "with" if setting.semantics else "without"
        if setting.name == "recall" and not setting.peer:
            kind = "memory"
        points.append(plots.Point(setting.name, kind, setting.speed, setting.ratio))
    if not points:
        return _section("ratio", "Ratio against speed", _nothing("Nothing was measured."))
    words = {
        "with": "network with the SEB",
        "without": "the same without it",
        "memory": "memory of contexts",
        "peer": "other compressor",
    }
    shown = {point.kind for point in points}
    legend = [(plots.mark(kind, 14, 8), text) for kind, text in words.items() if kind in shown]
    return _section(
        "ratio",
        "Ratio against speed",
        "<figure>",
        _legend(legend),
        _both(lambda width: plots.ratio_against_speed(points, width)),
        "<figcaption>All files together; higher is smaller output, further right is faster. Networks stand "
        "at the most lanes that were tried, and a dotted line joins the two of a network. The table of "
        "results has the numbers.</figcaption></figure>",
    )


def _loss(rows: list[results.Row]) -> str:
    found = [row for row in rows if row["case"]["kind"] == "loss" and "error" not in row]
    if not found:
        return _section("loss", "Loss against bytes seen", _nothing("Nothing was measured."))
    most = min(8.0, max(max(row["loss"]) for row in found))
    lowest = min(min(row["loss"]) for row in found)
    lowest, most = int(lowest), int(most) + 1
    seen = max(row["bytes"] for row in found)
    by_name: dict[str, dict[bool, tuple[list[float], int]]] = {}
    lines = []
    for row in found:
        case = row["case"]
        by_name.setdefault(case["name"], {})[case["semantics"]] = (row["loss"], row["group_bytes"])
        tenths = [row["loss"][min(len(row["loss"]) - 1, len(row["loss"]) * part // 4)] for part in range(5)]
        name = f"{case['name']}, SEB" if case["semantics"] else case["name"]
        lines.append([name, f"{row['bits_per_byte']:.3f}", *(f"{loss:.2f}" for loss in tenths)])
    panels = "".join(plots.loss_panel(name, curves, seen, most, lowest) for name, curves in by_name.items())
    lanes = sorted({row["lanes"] for row in found})
    legend = [
        (plots.path("M1 8H27", "curve with"), "with the SEB"),
        (plots.path("M1 8H27", "curve without"), "without it"),
    ]
    return _section(
        "loss",
        "Loss against bytes seen",
        "<figure>",
        _legend(legend),
        f'<div class="panels">{panels}</div>',
        f"<figcaption>Bits a byte that the coder spends, over the bytes seen so far of "
        f"{escape(found[0]['file'])}, {' or '.join(map(str, lanes))} lanes. All panels have the same axes. A "
        "network that knows nothing spends 8.</figcaption></figure>",
        _details(
            "The numbers",
            _table(
                "Bits a byte: over all, and at the start, each quarter and the end.",
                ["network", "over all", "start", "1/4", "1/2", "3/4", "end"],
                lines,
            ),
        ),
    )


def _details(title: str, table: str) -> str:
    return f"<details><summary>{title}</summary>{table}</details>"


def _stages(rows: list[results.Row]) -> str:
    bars, lines = [], []
    for setting in _at_most_lanes(rows):
        if setting.peer:
            continue
        walls = {"compress": setting.seconds, "decompress": setting.seconds_back}
        for direction, wall in walls.items():
            shares = plots.stage_shares(setting.stages[direction], wall)
            name = f"{results.label(setting)}: {direction}"
            if direction == "compress":
                bars.append((f"{setting.name}{' with the SEB' if setting.semantics else ''}", shares, wall))
            lines.append([name, *(f"{100 * share:.1f} %" for share in shares.values()), f"{wall:.3g} s"])
    if not bars:
        return _section("stages", "Time by stage", _nothing("Nothing was measured."))
    legend = [
        (
            f'<path d="M1 2h26v12h-26z" class="stage" fill="url(#stage-{stage.replace(" ", "-")})"/>',
            stage,
        )
        for stage in plots.STAGES
    ]
    return _section(
        "stages",
        "Time by stage",
        "<figure>",
        _legend(legend),
        _both(lambda width: plots.stage_bars(bars, width)),
        "<figcaption>Shares of the time to compress all files, one stream, most lanes that were tried. "
        "<em>Step</em> is predicting and learning, <em>code</em> the entropy coder, <em>waiting</em> what is "
        "left of the wall clock, among it making the model.</figcaption></figure>",
        _details(
            "The numbers",
            _table("Shares of the time, both directions.", ["setting", *plots.STAGES, "all"], lines),
        ),
    )


def _dropped(row: results.Row) -> list[bool]:
    """Return which patches were dropped; lines from before that could happen do not say."""
    dropped: list[bool] = row.get("dropped", [False] * len(row["mask"]))
    return dropped


def _mask(rows: list[results.Row]) -> str:
    found = [row for row in rows if row["case"]["kind"] == "mask" and "error" not in row]
    if not found:
        return _section("mask", "The learned mask of the SEB", _nothing("Nothing was measured."))
    panels = "".join(
        plots.mask_panel(row["case"]["name"], row["mask"], row["kept"], row["mask_before"], _dropped(row))
        for row in found
    )
    legend = [
        (plots.path("M8 15V2h12V15", "bar kept"), "kept whole"),
        (plots.path("M8 15V6h12V15", "bar learned"), "learned"),
        (plots.path("M1 8H27", "begun"), "where the learned ones began"),
        (plots.path("M11 5L17 11M11 11L17 5", "dropped"), "dropped"),
    ]
    lines = [
        [
            row["case"]["name"],
            f"{row['steps']:,}",
            " ".join(
                "dropped" if drop else f"[{value:.2f}]" if keep else f"{value:.2f}"
                for value, keep, drop in zip(row["mask"], row["kept"], _dropped(row), strict=True)
            ),
        ]
        for row in found
    ]
    return _section(
        "mask",
        "The learned mask of the SEB",
        "<figure>",
        _legend(legend),
        f'<div class="panels">{panels}</div>',
        f"<figcaption>What the mask lets through of each patch of the context, from 0 to 1, after "
        f"{' or '.join(str(steps) for steps in sorted({row['steps'] for row in found}))} steps on "
        f"{escape(found[0]['file'])}; the newest patch on the left. Where a network has a mask for each "
        "value of a patch, the mean. Dropped is what --seb drop leaves out after its step.</figcaption>"
        "</figure>",
        _details(
            "The numbers",
            _table(
                "The mask from the newest patch on; kept ones in brackets.",
                ["network", "steps", "mask"],
                lines,
            ),
        ),
    )


def _in_flight(rows: list[results.Row]) -> str:
    head, lines = results.in_flight(rows)
    kinds: set[Any] = {row["case"]["kind"] for row in rows}
    parts = []
    if lines:
        parts.append(
            _table(
                "Several segments in flight; off is one after the other, with nothing that overlaps.",
                head,
                lines,
            )
        )
    else:
        parts.append(_nothing("Streams were not measured."))
    if "memory" not in kinds:
        parts.append(
            _nothing(
                "Shared memory was not measured here: large models share it on CUDA devices alone, where the "
                "same command compares it with memory of their own."
            )
        )
    return _section("streams", "Streams and shared memory", *parts)


if __name__ == "__main__":
    main()
