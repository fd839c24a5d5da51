"""One table of all networks: ratio, speed in both directions and memory, alone and with what is put to them.

    python bench/networks.py FILE [--device D] [--network NAME...] [--block B...] [--levels L...]
                             [--steps N] [--plain-steps N] [--lanes N] [--level-bytes N]
                             [--seconds S] [--jobs J] [--compile] [--out FOLDER]

A case is a network with nothing (`none`), with the published SEB (`seb`) or with n-grams (`ngrams`), in its
own lanes or --lanes of them, on so many first bytes of the file that all lanes have --steps bytes, or
--plain-steps where it has no kernels on a GPU. Levels, memories of contexts, take --level-bytes. Each is
made, decoded again and compared; the times are with kernels compiled. Memory is torch's peak on a GPU. On a
CPU it is the process's peak, of which some 250 MiB are torch itself: each case has a process of its own
there, --jobs at a time. No case begins later than --seconds after the start; those left are named. With
--compile nothing is measured: --jobs processes compile the kernels, which later runs find.

Appends JSON lines to FOLDER/networks.jsonl and prints the table. Exit status 1 if a case failed or a byte
differed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import streams
from machine import commit, device_name
from sepzip import devices, presets
from sepzip.networks import base

Row = dict[str, Any]

NETWORKS = (
    *("pac", "trace", "patchtst", "oreo", "nncp", "lstm", "decmac"),
    *("pac-small", "trace-small", "patchtst-small", "oreo-small", "nncp-small", "decmac-small"),
)
"""All but lstm-large, of 1.1 G weights, which would take longer than all others together."""

BLOCKS: dict[str, presets.Semantics] = {"none": False, "seb": True, "ngrams": "ngrams"}


@dataclass(frozen=True)
class Case:
    """A network with what is put to it, or a level, and on how many bytes."""

    name: str
    block: str
    preset: presets.Preset
    bytes: int
    kernels: bool


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--network", nargs="*", default=NETWORKS)
    parser.add_argument("--block", choices=list(BLOCKS), nargs="*", default=list(BLOCKS))
    parser.add_argument("--levels", type=int, nargs="*", default=[1, 5, 9])
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--plain-steps", type=int, default=256)
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--level-bytes", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("networks"))
    options = parser.parse_args()
    begun = time.perf_counter()
    device = devices.pick_devices(options.device)[0]
    on_gpu = torch.device(device).type == "cuda"
    work = [case for case in cases(options, on_gpu) if not options.compile or case.kernels]
    # What matters most comes first, where the time ends before the cases do.
    work.sort(key=lambda case: (not case.kernels, case.block == "ngrams"))
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    failed = 0
    arguments = [(case, options.file, device, options.compile, begun + options.seconds) for case in work]
    apart = options.compile or not on_gpu
    for row in in_processes(arguments, options.jobs) if apart else map(one, arguments):
        failed += "error" in row or not row.get("same", True)
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
        if not options.compile:
            with (options.out / "networks.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
    if not options.compile:
        print(table(rows))
    return 1 if failed else 0


def cases(options: argparse.Namespace, on_gpu: bool) -> Iterator[Case]:
    """Yield what is measured."""
    for level in options.levels:
        size = min(options.level_bytes, options.file.stat().st_size)
        yield Case(f"level {level}", "", presets.resolve(level), size, on_gpu)
    for name in options.network:
        for block in options.block:
            semantics = BLOCKS[block]
            lanes = options.lanes or presets.resolve(network=name, semantics=semantics).lanes
            preset = presets.resolve(network=name, semantics=semantics, lanes=lanes)
            kernels = on_gpu and base.has_kernels(preset.model, preset.lanes)
            steps = options.steps if kernels or not on_gpu else options.plain_steps
            yield Case(name, block, preset, preset.lanes * steps, kernels)


def in_processes(arguments: list[tuple[Case, Path, str, bool, float]], jobs: int) -> Iterator[Row]:
    """Yield the result of each case from a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(one, argument) for argument in arguments]):
            yield future.result()


def one(argument: tuple[Case, Path, str, bool, float]) -> Row:
    """Return the figures of one case, or what went wrong."""
    case, path, device, only_compile, until = argument
    about = {"network": case.name, "block": case.block, "bytes": case.bytes, "file": path.name}
    # Of one clock, in whatever process.
    if time.perf_counter() > until:
        return about | {"left": True}
    try:
        return about | _measure(case, path.read_bytes()[: case.bytes], device, only_compile)
    except Exception as error:  # One case that fails must not take the others with it.
        return about | {"error": f"{type(error).__name__}: {error}"}


def _measure(case: Case, data: bytes, device: str, only_compile: bool) -> Row:
    if len(data) < case.bytes:
        raise ValueError(f"the file has {len(data)} bytes, not {case.bytes}")
    on_gpu = torch.device(device).type == "cuda"
    # Kernels are compiled by a whole chunk, libraries loaded by a few steps.
    few = data if case.kernels and on_gpu else data[: 8 * case.preset.lanes]
    streams.warm_up(few, case.preset, device)
    if only_compile:
        return {}
    result = streams.measure(data, case.preset, device, 1)
    peak = max(result[way]["peak_mib"][device][0] for way in ("compress", "decompress")) if on_gpu else 0
    # Told in milliseconds: what is stored takes none.
    there, back = (max(result[way]["seconds"], 1e-3) for way in ("compress", "decompress"))
    return {
        "lanes": case.preset.lanes_for(len(data)),
        "kernels": case.kernels,
        "coded": result["coded"],
        "ratio": round(len(data) / result["coded"], 4),
        "kb_per_s": round(len(data) / 1e3 / there, 2),
        "kb_per_s_back": round(len(data) / 1e3 / back, 2),
        "memory_mib": peak if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "same": result["same"],
        "sha256": result["sha256"],
        "device": device_name(torch.device(device)),
        "torch": torch.__version__,
        "commit": commit(),
    }


def table(rows: list[Row]) -> str:
    """Return a Markdown table, a line a case, and what was left out or failed."""
    names = [f"level {level}" for level in range(1, 10)] + list(NETWORKS)
    head = ["network", "block", "bytes", "lanes", "ratio", "KB/s", "KB/s back", "MiB", "came back"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    blocks = ["", *BLOCKS]
    for row in sorted(rows, key=lambda row: (names.index(row["network"]), blocks.index(row["block"]))):
        if "coded" not in row:
            continue
        cells = [
            row["network"],
            row["block"],
            f"{row['bytes']:,}",
            str(row["lanes"]),
            f"{row['ratio']:.3f}",
            f"{row['kb_per_s']:.3g}",
            f"{row['kb_per_s_back']:.3g}",
            f"{row['memory_mib']:,}",
            "yes" if row["same"] else "NO",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    found = sorted({f"{row['device']}, torch {row['torch']}" for row in rows if "coded" in row})
    lines += ["", f"Device: {'; '.join(found)}."]
    left = [f"{row['network']} {row['block']}".strip() for row in rows if row.get("left")]
    if left:
        lines.append(f"Not run for want of time: {', '.join(left)}.")
    lines += [f"Failed: {row['network']} {row['block']}: {row['error']}." for row in rows if "error" in row]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
