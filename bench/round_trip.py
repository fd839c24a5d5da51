"""Round trips of real files: sizes, speeds, and files made on one device and read on another.

    python bench/round_trip.py FILE... [--bytes N] [--level L | --network NAME] [--no-seb | --seb NAME]
                               [--lanes N] [--segment SIZE] [--device D] [--keep DIR]
    python bench/round_trip.py FILE... [--bytes N] --read DIR [--device D]

The first form compresses the first N bytes of each file, decompresses them and compares; --keep writes
the frames to DIR/NAME.sep, --segment cuts each file in segments of this size. The second decompresses
DIR/NAME.sep, made elsewhere, and compares. With --jobs J, J files are worked on at a time, by threads; on a
GPU each has a stream of its own. Prints a JSON line a file and a last one with the totals; exit status 1 if
any byte differs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from machine import device_name
from sepzip import SepError, devices, presets
from sepzip.cli.sizes import read_size
from sepzip.frame import read_summary
from sepzip.pipeline import compress_stream, decompress_stream


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--level", type=int)
    parser.add_argument("--network")
    parser.add_argument("--no-seb", action="store_true")
    parser.add_argument("--seb", choices=["drop", "ngrams", "both"])
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--segment", type=read_size)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--read", type=Path)
    options = parser.parse_args()
    if options.device == "auto":
        # What is timed is one device, whichever a small file would go to.
        options.device = devices.pick_devices("auto")[0]
    semantics = options.seb or not options.no_seb
    preset = presets.resolve(options.level, options.network, semantics, options.lanes, options.segment)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)

    def work(path: Path) -> dict[str, Any]:
        result = one_file(path, preset, options)
        print(json.dumps(result), flush=True)
        return result

    begun = time.perf_counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(work, options.files))
    total = {
        "files": len(results),
        "bytes": sum(result["bytes"] for result in results),
        "coded": sum(result["coded"] for result in results),
        "same": sum(result["same"] for result in results),
        "seconds": round(time.perf_counter() - begun, 1),
        "device": device_name(devices.pick_devices(options.device)[0]),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "level": options.level or options.network or presets.DEFAULT_LEVEL,
        # Over all frames, in the order of the files: equal on two machines if every frame is.
        "frames_sha256": hashlib.sha256("".join(r["sha256"] for r in results).encode()).hexdigest(),
    }
    print(json.dumps(total), flush=True)
    return 0 if total["same"] == total["files"] else 1


def one_file(path: Path, preset: presets.Preset, options: argparse.Namespace) -> dict[str, Any]:
    """Return what one file's round trip, or the reading of its frame, gave."""
    data = path.read_bytes()[: options.bytes]
    frame = io.BytesIO()
    begun = time.perf_counter()
    if options.read:
        frame.write((options.read / f"{path.name}.sep").read_bytes())
    else:
        compress_stream(io.BytesIO(data), frame, preset, options.device, size=len(data))
    made = time.perf_counter()
    if options.keep:
        (options.keep / f"{path.name}.sep").write_bytes(frame.getvalue())
    content = io.BytesIO()
    error = None
    try:
        decompress_stream(io.BytesIO(frame.getvalue()), content, options.device)
    except SepError as caught:
        error = str(caught)
    back = time.perf_counter()
    return {
        "file": path.name,
        "bytes": len(data),
        "coded": len(frame.getvalue()),
        "segments": sum(len(one.segments) for one in read_summary(io.BytesIO(frame.getvalue())).frames),
        "same": content.getvalue() == data,
        "compress_kb_per_s": None if options.read else round(len(data) / 1e3 / (made - begun), 1),
        "decompress_kb_per_s": round(len(data) / 1e3 / (back - made), 1),
        "sha256": hashlib.sha256(frame.getvalue()).hexdigest(),
        **({"error": error} if error else {}),
    }


if __name__ == "__main__":
    sys.exit(main())
