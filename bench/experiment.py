"""Named settings over real files: what each makes of them, as JSON lines and a Markdown table.

    python bench/experiment.py FILE... [--bytes N] --try NAME=BASE[,KEY=VALUE...] ... [--decode] [--out LINES]

BASE is a level or a network of sep; a KEY is a field of its model, or lanes. With --decode each result is
decoded again and compared, exit status 1 if one differs; without, sizes are those of the coded blocks and
were not decoded.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import commit
from sepzip import presets
from sepzip.devices import pick_devices
from sepzip.engine import decode_segment, encode_segment
from sepzip.segment import coded_block_size


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--try", dest="tries", action="append", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--decode", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = pick_devices(options.device)[0]
    tries = dict(text.split("=", 1) for text in options.tries)
    work = [(path, name) for path in options.files for name in tries]

    def run(item: tuple[Path, str]) -> dict[str, Any]:
        path, name = item
        return {"try": name, **one(path, parse(tries[name]), options.bytes, device, options.decode)}

    with ThreadPoolExecutor(options.jobs) as pool:
        rows = []
        for row in pool.map(run, work):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    about = {"machine": platform.machine(), "device": device, "commit": commit(), "tries": tries}
    if options.out:
        options.out.write_text("".join(json.dumps(row | about) + "\n" for row in rows))
    print(table(rows, list(tries)))
    return 0 if all(row.get("same", True) for row in rows) else 1


def parse(text: str) -> presets.Preset:
    """Return the preset of BASE,KEY=VALUE,..."""
    base, *changes = text.split(",")
    preset = presets.resolve(int(base)) if base.isdigit() else presets.resolve(network=base)
    for change in changes:
        key, value = change.split("=")
        new: dict[str, Any] = {key: int(value)}
        if key not in ("lanes", "bytes_per_lane"):
            new = {"model": replace(preset.model, **new)}
        preset = replace(preset, **new)
    return preset


def one(path: Path, preset: presets.Preset, most: int | None, device: str, decode: bool) -> dict[str, Any]:
    """Return what one preset makes of a file, coded as one segment."""
    data = path.read_bytes()[:most]
    lanes = preset.lanes_for(len(data))
    begun = time.perf_counter()
    blocks = list(encode_segment(data, preset.model, lanes, device))
    seconds = time.perf_counter() - begun
    row: dict[str, Any] = {
        "file": path.name,
        "bytes": len(data),
        "lanes": lanes,
        "coded": sum(map(coded_block_size, blocks)),
        "kb_per_s": round(len(data) / seconds / 1000, 1),
    }
    if decode:
        begun = time.perf_counter()
        decoded = decode_segment(blocks, len(data), preset.model, lanes, device)
        row["decode_kb_per_s"] = round(len(data) / (time.perf_counter() - begun) / 1000, 1)
        row["same"] = bytes(decoded) == data
    return row


def table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Return the coded sizes, a line a file and a column a try."""
    lines = ["| file | bytes | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    totals = dict.fromkeys(names, 0)
    files = list(dict.fromkeys(row["file"] for row in rows))
    for file in files:
        own = {row["try"]: row for row in rows if row["file"] == file}
        for name in names:
            totals[name] += own[name]["coded"]
        size = own[names[0]]["bytes"]
        coded = " | ".join(f"{own[name]['coded']:,}" for name in names)
        lines.append(f"| {file} | {size:,} | {coded} |")
    lines.append("| **all** | | " + " | ".join(f"{totals[name]:,}" for name in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
