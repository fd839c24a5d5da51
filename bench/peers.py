"""Sizes of a folder's files under sep and under other compressors that are installed, as a Markdown table.

    python bench/peers.py RESULTS.jsonl FILE... [--bytes N]

RESULTS.jsonl is what bench/round_trip.py printed for the same files and the same N. xz -9e, zstd --ultra
-22 --long=27, brotli -q 11 -w 24, 7z PPMd (o16, 1 GB) and zpaq -m5 are run on the same bytes, where found.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from results import PEER_NAMES

COMMANDS = {
    "xz": ["xz", "-9e", "-k", "-f", "in"],
    "zstd": ["zstd", "-q", "-f", "--ultra", "-22", "--long=27", "in", "-o", "in.zst"],
    "brotli": ["brotli", "-f", "-q", "11", "-w", "24", "in", "-o", "in.br"],
    "7z": ["7z", "a", "-bd", "-m0=PPMd:o=16:mem=1g", "in.7z", "in"],
    "zpaq": ["zpaq", "add", "in.zpaq", "in", "-m5"],
}
BACK = {
    "xz": ["xz", "-d", "in.xz"],
    "zstd": ["zstd", "-q", "-d", "--long=27", "in.zst", "-o", "in"],
    "brotli": ["brotli", "-d", "in.br", "-o", "in"],
    "7z": ["7z", "x", "-bd", "-y", "in.7z"],
    "zpaq": ["zpaq", "extract", "in.zpaq"],
}
SUFFIXES = {"xz": ".xz", "zstd": ".zst", "brotli": ".br", "7z": ".7z", "zpaq": ".zpaq"}


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
    found = installed()

    def sizes(path: Path) -> list[int]:
        return [size_under(name, path, options.bytes) for name in found]

    with ThreadPoolExecutor(options.jobs) as pool:
        theirs = list(pool.map(sizes, options.files))
    print("| file | bytes | sep | " + " | ".join(PEER_NAMES[name] for name in found) + " |")
    print("|---" * (3 + len(found)) + "|")
    totals = [0] * (2 + len(found))
    for path, row in zip(options.files, theirs, strict=True):
        numbers = [ours[path.name]["bytes"], ours[path.name]["coded"], *row]
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        print(f"| {path.name} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    print("| **all** | " + " | ".join(f"{number:,}" for number in totals) + " |")


def installed() -> list[str]:
    """Return which of the compressors are there."""
    return [name for name in COMMANDS if shutil.which(name)]


def version(name: str) -> str:
    """Return a compressor's version, or nothing if it does not say."""
    # 7z and zpaq say it when they are called with nothing to do, and zpaq then fails.
    asked = [name] if name in ("7z", "zpaq") else [name, "--version"]
    shown = subprocess.run(asked, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)?", shown.stdout + shown.stderr)
    return found[0] if found else ""


def size_under(name: str, path: Path, most: int | None) -> int:
    """Return the size that one compressor makes of a file's first bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return _compress(name, path.read_bytes()[:most], Path(folder))


def measure(name: str, data: bytes) -> dict[str, Any]:
    """Return the size that one compressor makes of `data`, its seconds, and whether the data came back."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        begun = time.perf_counter()
        coded = _compress(name, data, Path(folder))
        made = time.perf_counter()
        source.unlink(missing_ok=True)
        begun_back = time.perf_counter()
        subprocess.run(
            BACK[name], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return {
            "bytes": len(data),
            "coded": coded,
            "compress": {"seconds": round(made - begun, 4)},
            "decompress": {"seconds": round(time.perf_counter() - begun_back, 4)},
            "same": source.read_bytes() == data,
        }


def _compress(name: str, data: bytes, folder: Path) -> int:
    (folder / "in").write_bytes(data)
    subprocess.run(
        COMMANDS[name], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return (folder / ("in" + SUFFIXES[name])).stat().st_size


if __name__ == "__main__":
    main()
