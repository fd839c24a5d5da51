"""What groups of a profile's contexts are worth: a file coded without each, as a Markdown table.

    python bench/ablation.py FILE... [--bytes N] [--lanes N] [--level L]

The plan is that of the whole profile. Sizes are those of the coded blocks, of which the first was decoded
again; exit status 1 if it differs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from sepzip import presets
from sepzip.engine import decode_segment, encode_segment
from sepzip.recall import analysis, profiles
from sepzip.recall.plan import Plan
from sepzip.segment import coded_block_size

GROUPS = {
    "orders above 2": "o3 o4 o5 o6 o8 o12 o16",
    "words": "w ww ws w1c o2w2 wc",
    "line above, column": "la lc",
    "sparse": "s2 s3 s4 s23 s13 s34 s24 s345 sm sm5 sm6 sm7",
    "letters alone": "ps pss pso psg pl pl3 plo pg pi1",
    "signs": "g1 gl pg psg",
    "open elements": "t1 tw",
    "field above": "fa fa2 ft",
    "followers": "i1 i2 pi1",
    "record above": "r1 r2 r3 r4 r5 r6 rd",
    "record's column": "rc1 rc2 r1 r5",
    "predicted samples": "n1 n2 n3 n4 n5 n6 n7 n8 n9",
    "eight back": "fx fd",
}


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--level", type=int, default=5)
    options = parser.parse_args()
    same = True
    groups = " | ".join(f"no {group}" for group in GROUPS)
    print(f"| file | profile | all | {groups} | calls as they are |")
    print("|---" * (4 + len(GROUPS)) + "|")
    for path in options.files:
        data = path.read_bytes()[: options.bytes]
        model = presets.resolve(options.level).model
        plan = analysis.choose_plan(np.frombuffer(data, np.uint8), model)
        whole, came_back = size_under(data, plan, model, options.lanes, plan)
        same &= came_back
        cells = []
        for names in GROUPS.values():
            removed = set(names.split()) & set(profiles.PROFILES[plan.profile].contexts)
            size = size_without(data, plan, model, options.lanes, removed) if removed else None
            cells.append("" if size is None else f"{100 * (size / whole - 1):+.2f} %")
        other = None
        if plan.calls:
            other, _ = size_under(data, plan._replace(calls=0), model, options.lanes, None)
        cells.append("" if other is None else f"{100 * (other / whole - 1):+.2f} %")
        name = profiles.PROFILES[plan.profile].name
        print(f"| {path.name} | {name} | {whole:,} | " + " | ".join(cells) + " |", flush=True)
    return 0 if same else 1


def size_without(data: bytes, plan: Plan, model: presets.ModelSettings, lanes: int, removed: set[str]) -> int:
    """Return the coded size without some contexts of the plan's profile."""
    profile = profiles.PROFILES[plan.profile]
    kept = tuple(name for name in profile.contexts if name not in removed)
    try:
        profiles.PROFILES[plan.profile] = replace(profile, contexts=kept)
        profiles.masks.cache_clear()
        return size_under(data, plan, model, lanes, None)[0]
    finally:
        profiles.PROFILES[plan.profile] = profile
        profiles.masks.cache_clear()


def size_under(
    data: bytes, plan: Plan, model: presets.ModelSettings, lanes: int, decoded: Plan | None
) -> tuple[int, bool]:
    """Return the coded size under a plan, and whether it came back, where it is to be decoded."""
    choose = analysis.choose_plan
    try:
        analysis.choose_plan = lambda data, model, row=0: plan
        blocks = list(encode_segment(data, model, lanes, "cpu"))
    finally:
        analysis.choose_plan = choose
    size = sum(map(coded_block_size, blocks))
    if decoded is None:
        return size, True
    return size, bytes(decode_segment(blocks, len(data), model, lanes, "cpu")) == data


if __name__ == "__main__":
    sys.exit(main())
