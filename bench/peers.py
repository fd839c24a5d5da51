"""Sizes of a folder's files under sep and under other compressors that are installed, as a Markdown table.

    python bench/peers.py RESULTS.jsonl FILE... [--bytes N]

RESULTS.jsonl is what bench/round_trip.py printed for the same files and the same N. xz -9e, zstd --ultra
-22 --long=27, 7z PPMd (o16, 1 GB) and zpaq -m5 are run on the same bytes, where found.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COMMANDS = {
    "xz": ["xz", "-9e", "-k", "-f", "in"],
    "zstd": ["zstd", "-q", "-f", "--ultra", "-22", "--long=27", "in", "-o", "in.zst"],
    "7z": ["7z", "a", "-bd", "-m0=PPMd:o=16:mem=1g", "in.7z", "in"],
    "zpaq": ["zpaq", "add", "in.zpaq", "in", "-m5"],
}
NAMES = {"xz": "xz -9e", "zstd": "zstd -22", "7z": "7z PPMd", "zpaq": "zpaq -m5"}
SUFFIXES = {"xz": ".xz", "zstd": ".zst", "7z": ".7z", "zpaq": ".zpaq"}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    ours = {row["file"]: row for row in rows if "file" in row and row["same"]}
    found = [name for name in COMMANDS if shutil.which(name)]

    def sizes(path: Path) -> list[int]:
        return [size_under(name, path, options.bytes) for name in found]

    with ThreadPoolExecutor(options.jobs) as pool:
        theirs = list(pool.map(sizes, options.files))
    print("| file | bytes | sep | " + " | ".join(NAMES[name] for name in found) + " |")
    print("|---" * (3 + len(found)) + "|")
    totals = [0] * (2 + len(found))
    for path, row in zip(options.files, theirs, strict=True):
        numbers = [ours[path.name]["bytes"], ours[path.name]["coded"], *row]
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        print(f"| {path.name} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    print("| **all** | " + " | ".join(f"{number:,}" for number in totals) + " |")


def size_under(name: str, path: Path, most: int | None) -> int:
    """Return the size that one compressor makes of a file's first bytes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").write_bytes(path.read_bytes()[:most])
        subprocess.run(COMMANDS[name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return (Path(folder) / ("in" + SUFFIXES[name])).stat().st_size


if __name__ == "__main__":
    main()
