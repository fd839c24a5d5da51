"""What the primer is worth: sizes of the first bytes of files with and without it, decoded again.

    python bench/primer.py FILE... [--level 5] [--sizes 2000,10000,50000,150000]

Prints a Markdown table: the coded bytes without the primer and with it, and whether it would be taken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sepzip import presets
from sepzip.engine import decode_segment
from sepzip.lanes import longer_lanes, split_lanes
from sepzip.recall import analysis
from sepzip.recall.host import HostEncoding
from sepzip.recall.plan import Plan
from sepzip.recall.profiles import PROFILES
from sepzip.runs import CHUNK_STEPS


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--level", type=int, default=5)
    parser.add_argument("--sizes", default="2000,10000,50000,150000")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    print("| file |" + "".join(f" {size:,} bytes |" for size in sizes))
    print("|---|" + "---|" * len(sizes))
    for path in options.files:
        data = path.read_bytes()
        cells = [cell(data[:size], options.level) if size <= len(data) else "" for size in sizes]
        print(f"| {path.name} | " + " | ".join(cells) + " |", flush=True)


def cell(data: bytes, level: int) -> str:
    """Return the sizes without and with the primer, and what it gains."""
    preset = presets.resolve(level)
    lanes = max(1, min(preset.lanes, len(data) // preset.bytes_per_lane))
    chosen = analysis.choose_plan(np.frombuffer(data, np.uint8), preset.model)
    if not PROFILES[chosen.profile].uses_text:
        return f"{coded(data, chosen, preset.model, lanes):,}"
    plain, primed = (coded(data, chosen._replace(primer=n), preset.model, lanes) for n in (0, 1))
    taken = "" if chosen.primer else ", not taken"
    return f"{plain:,} to {primed:,} ({100 - 100 * primed / plain:.1f} %{taken})"


def coded(data: bytes, plan: Plan, model: presets.ModelSettings, lanes: int) -> int:
    """Return the coded size under the plan; RuntimeError if the data do not come back."""
    plan = plan._replace(calls=0)
    run = HostEncoding(plan, model, len(data), lanes, None, None)
    matrix = split_lanes(np.frombuffer(data, np.uint8), lanes)
    longer = longer_lanes(len(data), lanes)
    block = None
    for first in range(0, len(matrix), CHUNK_STEPS):
        ends = first + CHUNK_STEPS >= len(matrix)
        run.queue(matrix[first : first + CHUNK_STEPS], longer if ends else lanes, ends)
        block = run.collect()
    if block is None or decode_segment([block], len(data), model, lanes, "cpu") != data:
        raise RuntimeError("the data did not come back")
    return len(block.payload)


if __name__ == "__main__":
    main()
