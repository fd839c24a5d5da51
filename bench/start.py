"""The time that `sep` takes to begin: from its process's start to the first finished chunk, and to its end.

    python bench/start.py FILE [--bytes 262144] [--device D] [--level L | --network NAME] [--lanes N]

The file's first bytes are compressed twice and decompressed twice, by a process each. Each direction begins
with an empty cache of Triton's, so that the first run compiles the kernels and the second finds them. Prints
a JSON line a run; exit status 1 if other bytes come back.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INSIDE = "--inside"
"""Makes this program the process that is timed: the command itself, which notes its first chunk's end."""


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--bytes", type=int, default=1 << 18)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--level", type=int)
    parser.add_argument("--network")
    parser.add_argument("--lanes", type=int)
    options = parser.parse_args()
    model = [] if options.level is None else [f"-{options.level}"]
    model += [] if options.network is None else ["--network", options.network]
    model += [] if options.lanes is None else ["--lanes", str(options.lanes)]
    common = ["-q", "-f", "--device", options.device]
    with tempfile.TemporaryDirectory() as folder:
        plain, packed, back = (Path(folder) / name for name in ("plain", "plain.sep", "back"))
        plain.write_bytes(options.file.read_bytes()[: options.bytes])
        for direction, arguments in (
            ("compress", [*common, *model, "-o", str(packed), str(plain)]),
            ("decompress", [*common, "-d", "-o", str(back), str(packed)]),
        ):
            cache = Path(folder) / f"triton-{direction}"
            for state in ("empty", "filled"):
                first, end = timed(arguments, cache, Path(folder) / "noted")
                result = {
                    "direction": direction,
                    "triton_cache": state,
                    "bytes": plain.stat().st_size,
                    "first_chunk_s": first,
                    "end_s": end,
                }
                print(json.dumps(result), flush=True)
        return 0 if back.read_bytes() == plain.read_bytes() else 1


def timed(arguments: list[str], cache: Path, noted: Path) -> tuple[float | None, float]:
    """Return the seconds to the first finished chunk, None where all is stored, and to the process's end."""
    noted.unlink(missing_ok=True)
    command = [sys.executable, __file__, INSIDE, str(noted), *arguments]
    begun = time.monotonic()
    subprocess.run(command, env=os.environ | {"TRITON_CACHE_DIR": str(cache)}, check=True)
    end = time.monotonic() - begun
    # The clock is the system's: both processes read the same one.
    first = round(float(noted.read_text()) - begun, 3) if noted.exists() else None
    return first, round(end, 3)


def run_inside(noted: Path, arguments: list[str]) -> None:
    """Be `python -m sepzip` with these arguments, and write the time of the first chunk's end to a file."""
    from sepzip.scheduler import Job

    advance = Job.advance

    def noting(job: Job[object], count: int) -> None:
        if not noted.exists():
            noted.write_text(repr(time.monotonic()))
        advance(job, count)

    Job.advance = noting  # type: ignore[assignment, method-assign]
    sys.argv[1:] = arguments
    runpy.run_module("sepzip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [INSIDE]:
        run_inside(Path(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(main())
