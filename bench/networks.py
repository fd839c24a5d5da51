"""One table of all networks: ratio, speed in both directions and memory, alone and with what is put to them.

    python bench/networks.py FILE [--device D] [--network NAME...] [--block B...] [--levels L...]
                             [--steps N] [--plain-steps N] [--lanes N] [--level-bytes N]
                             [--seconds S] [--jobs J] [--out FOLDER]

A case is a network with nothing (`none`), with the published SEB (`seb`) or with n-grams (`ngrams`), in its
own lanes or --lanes of them, on so many first bytes of the file that all lanes have --steps bytes, or
--plain-steps where it has no kernels on a GPU. Levels, memories of contexts, take --level-bytes. Each is
made, decoded again and compared; the times are with kernels compiled. Each case has a process of its own,
--jobs at a time. On a CPU these are measured side by side. On a GPU they compile and warm up side by side,
and are then measured one after the other, with nothing else at work. Memory is torch's peak on a GPU, with
what libraries keep there; on a CPU it is the process's peak, of which some 250 MiB are torch itself. No case
begins later than --seconds after the start; those left are named.

Prints each line of the table when it is there, appends it as JSON to FOLDER/networks.jsonl, and prints the
whole table at last. Exit status 1 if a case failed or a byte differed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
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


_READY: Row = {}
"""What a process says when it is warm."""

_COLUMNS = ("network", "block", "bytes", "lanes", "ratio", "KB/s", "KB/s back", "MiB", "came back")


@dataclass(frozen=True)
class Case:
    """A network with what is put to it, or a level, and on how many bytes of which file and device.

    It does not begin later than `until`, by time.perf_counter: a clock of all processes.
    """

    name: str
    block: str
    preset: presets.Preset
    bytes: int
    kernels: bool
    path: Path
    device: str
    until: float

    @property
    def about(self) -> Row:
        """What a result says of its case."""
        return {"network": self.name, "block": self.block, "bytes": self.bytes, "file": self.path.name}


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
    parser.add_argument("--out", type=Path, default=Path("networks"))
    options = parser.parse_args()
    device = devices.pick_devices(options.device)[0]
    work = list(cases(options, device, time.perf_counter() + options.seconds))
    # What matters most comes first, where the time ends before the cases do.
    work.sort(key=lambda case: (not case.kernels, case.block == "ngrams"))
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    failed = 0
    for row in (in_turns if torch.device(device).type == "cuda" else side_by_side)(work, options.jobs):
        failed += "error" in row or not row.get("same", True)
        print(line(row) if "coded" in row else json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
        with (options.out / "networks.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
    print(table(rows))
    return 1 if failed else 0


def cases(options: argparse.Namespace, device: str, until: float) -> Iterator[Case]:
    """Yield what is measured."""
    on_gpu = torch.device(device).type == "cuda"
    where = options.file, device, until
    for level in options.levels:
        size = min(options.level_bytes, options.file.stat().st_size)
        yield Case(f"level {level}", "", presets.resolve(level), size, on_gpu, *where)
    for name in options.network:
        for block in options.block:
            semantics = BLOCKS[block]
            lanes = options.lanes or presets.resolve(network=name, semantics=semantics).lanes
            preset = presets.resolve(network=name, semantics=semantics, lanes=lanes)
            kernels = on_gpu and base.has_kernels(preset.model, preset.lanes)
            steps = options.steps if kernels or not on_gpu else options.plain_steps
            yield Case(name, block, preset, preset.lanes * steps, kernels, *where)


def side_by_side(work: list[Case], jobs: int) -> Iterator[Row]:
    """Yield the result of each case from a process of its own, `jobs` at a time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(one, case) for case in work]):
            yield future.result()


def in_turns(work: list[Case], jobs: int) -> Iterator[Row]:
    """Yield the result of each case from a process of its own: `jobs` warm up, then each is measured."""
    context = multiprocessing.get_context("spawn")
    for first in range(0, len(work), jobs):
        begun = []
        for case in work[first : first + jobs]:
            here, there = context.Pipe()
            process = context.Process(target=_in_turn, args=(case, there), daemon=True)
            process.start()
            there.close()
            begun.append((case, process, here))
        said = [(case, process, here, _said(here, case)) for case, process, here in begun]
        for case, process, here, row in said:
            if row == _READY:
                here.send(None)
                row = _said(here, case)
            yield row
            process.join()


def _in_turn(case: Case, parent: Connection) -> None:
    """Warm up and say so, or else what went wrong; when told to, measure and say what came of it."""

    def wait() -> None:
        parent.send(_READY)
        parent.recv()

    parent.send(one(case, wait))


def _said(here: Connection, case: Case) -> Row:
    try:
        said: Row = here.recv()
    except EOFError:
        return case.about | {"error": "its process ended"}
    return said


def one(case: Case, wait: Callable[[], None] = lambda: None) -> Row:
    """Return the figures of one case, or what went wrong; `wait` is called when it is warm."""
    if time.perf_counter() > case.until:
        return case.about | {"left": True}
    try:
        return case.about | _measure(case, wait)
    except Exception as error:  # One case that fails must not take the others with it.
        return case.about | {"error": f"{type(error).__name__}: {error}"}


def _measure(case: Case, wait: Callable[[], None]) -> Row:
    data, device = case.path.read_bytes()[: case.bytes], case.device
    if len(data) < case.bytes:
        raise ValueError(f"the file has {len(data)} bytes, not {case.bytes}")
    on_gpu = torch.device(device).type == "cuda"
    # Kernels are compiled by a whole chunk, libraries loaded by a few steps.
    few = data if case.kernels and on_gpu else data[: 8 * case.preset.lanes]
    streams.warm_up(few, case.preset, device)
    wait()
    if time.perf_counter() > case.until:
        return {"left": True}
    result = streams.measure(data, case.preset, device, 1, watched=False)
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


def line(row: Row) -> str:
    """Return a case's line of the table."""
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
    return "| " + " | ".join(cells) + " |"


def table(rows: list[Row]) -> str:
    """Return a Markdown table, a line a case, and what was left out or failed."""
    names = [f"level {level}" for level in range(1, 10)] + list(NETWORKS)
    blocks = ["", *BLOCKS]
    rows = sorted(rows, key=lambda row: (names.index(row["network"]), blocks.index(row["block"])))
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    lines += [line(row) for row in rows if "coded" in row]
    found = sorted({f"{row['device']}, torch {row['torch']}" for row in rows if "coded" in row})
    lines += ["", f"Device: {'; '.join(found)}."]
    left = [f"{row['network']} {row['block']}".strip() for row in rows if row.get("left")]
    if left:
        lines.append(f"Not run for want of time: {', '.join(left)}.")
    lines += [f"Failed: {row['network']} {row['block']}: {row['error']}." for row in rows if "error" in row]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
