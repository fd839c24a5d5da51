"""Networks with and without the SEB, lanes, streams, shared memory and other compressors, over real files.

    python bench/suite.py [FILE...] [--plan quick|full] [--out FOLDER] [--bytes N] [--network NAME...]
                          [--lanes N...] [--device D]

Appends a JSON line a case and file to FOLDER/results.jsonl and writes the tables to FOLDER/results.md;
bench/page.py makes a page of them. A case that the file has already, of the same commit, machine, versions
and bytes, is not run again, so that a run that was ended goes on where it was. Without a FILE it takes a text
that comes with Python. `quick` is small enough for a CPU, some ten minutes a file; `full` takes all networks
but lstm-large at their own lanes and is meant for a GPU. Exit status 1 if a case failed or any byte differed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import pydoc_data.topics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import loss_curve
import mask
import peers
import results
import streams
from machine import commit, machine, versions
from sepzip import devices, presets
from sepzip.workspaces import workspaces

POINTS = 40
"""Points of a curve of the loss."""

SEGMENTS = 4
"""Segments that a file is cut into where several are in flight."""


@dataclass(frozen=True)
class Plan:
    """What is run: the networks, the lanes (None: the network's own), and the most bytes of each file.

    `in_flight` are the streams to compare, of which 0 is one segment after the other with nothing that
    overlaps; `one` is the network that shows what they do, `large` what sharing memory does.
    """

    networks: tuple[str, ...]
    lanes: tuple[int | None, ...]
    most: int
    in_flight: tuple[int, ...] = (0, 1, 2)
    one: str = "pac-small"
    large: str = "pac"


PLANS = {
    "quick": Plan(
        (
            "pac-small",
            "oreo-small",
            "trace-small",
            "patchtst-small",
            "lstm",
            "decmac-small",
            "nncp-small",
            "recall",
        ),
        (32, 128),
        1 << 15,
    ),
    # The largest, of 1.1 G weights that every step updates, would take longer than all others together.
    "full": Plan(
        tuple(name for name in presets.NETWORKS if name != "lstm-large"), (None,), 1 << 20, (0, 1, 2, 4)
    ),
}


@dataclass(frozen=True)
class Case:
    """One thing to measure of a file.

    The kinds: `network` and `peer`, a round trip; `streams` and `memory`, a round trip of several segments
    with so many in flight, in memory that they share or not; `loss`, the curve; `mask`, the SEB's.
    """

    kind: str
    name: str
    semantics: bool = False
    lanes: int | None = None
    streams: int = 1
    shared: bool = True


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--plan", choices=PLANS, default="quick")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--network", nargs="+")
    parser.add_argument("--lanes", type=int, nargs="+")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    for path in options.files:
        if not path.is_file():
            parser.error(f"{path} is not a file")
    plan = PLANS[options.plan]
    if options.network:
        plan = dataclasses.replace(plan, networks=tuple(options.network), one=options.network[0])
    if options.lanes:
        plan = dataclasses.replace(plan, lanes=tuple(options.lanes))
    if options.bytes:
        plan = dataclasses.replace(plan, most=options.bytes)
    device = devices.pick_devices(options.device)[0]
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "results.jsonl"
    fine = True
    for row in run(plan, options.files or [Path(pydoc_data.topics.__file__)], lines, device):
        fine &= row.get("same", True) and "error" not in row
        print(results.one_line(row), file=sys.stderr, flush=True)
    text = results.markdown(results.latest(results.read(lines)))
    (options.out / "results.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if fine else 1


def run(plan: Plan, files: list[Path], lines: Path, device: str) -> Iterator[dict[str, Any]]:
    """Run what `lines` does not have yet, append it there, and yield each result."""
    made_with = {"machine": machine(device), "versions": versions(), "commit": commit()}
    had = {results.identity(row) for row in results.read(lines) if "error" not in row}
    if lines.exists() and not lines.read_bytes().endswith(b"\n"):
        # A run was ended in the middle of a line.
        with lines.open("a", encoding="utf-8") as file:
            file.write("\n")
    for number, path in enumerate(files):
        data = path.read_bytes()[: plan.most]
        about = {"file": path.name, "file_sha256": hashlib.sha256(data).hexdigest()}
        # Curves, masks and streams are shown for one file: more of them would only say the same.
        for case in cases(plan, device, first=number == 0):
            other = {"peer_version": peers.version(case.name)} if case.kind == "peer" else {}
            row = {"case": dataclasses.asdict(case), **about, **made_with, **other}
            if results.identity(row) in had:
                continue
            row["at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            try:
                row |= measure(case, data, device)
            except Exception as error:  # One case that fails must not take the others with it.
                row |= {"bytes": len(data), "error": f"{type(error).__name__}: {error}"}
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            yield row


def cases(plan: Plan, device: str, first: bool) -> Iterator[Case]:
    """Yield what the plan measures of a file, the quickest first; `first` says that it is the first one."""
    for name in peers.installed():
        yield Case("peer", name)
    networks = [
        (name, semantics)
        for name in plan.networks
        for semantics in (True, False)
        # A network that the SEB cannot stand in front of comes without it.
        if presets.resolve(network=name, semantics=semantics).model.semantics == semantics
    ]
    for lanes in sorted(plan.lanes, key=lambda lanes: -(lanes or 0)):
        for name, semantics in networks:
            yield Case("network", name, semantics, lanes)
    if not first:
        return
    fewest = min(plan.lanes, key=lambda lanes: lanes or 0)
    for name, semantics in networks:
        if not presets.resolve(network=name).model.contexts:
            yield Case("loss", name, semantics, fewest)
    for name, semantics in networks:
        if semantics:
            yield Case("mask", name, True, fewest)
    for count in plan.in_flight:
        yield Case("streams", plan.one, True, fewest, count)
    if torch.device(device).type == "cuda":
        for shared in (True, False):
            yield Case("memory", plan.large, True, fewest, max(plan.in_flight), shared)


def measure(case: Case, data: bytes, device: str) -> dict[str, Any]:
    """Return the figures of one case."""
    if case.kind == "peer":
        return peers.measure(case.name, data)
    preset = presets.resolve(network=case.name, semantics=case.semantics, lanes=case.lanes)
    lanes = preset.lanes_for(len(data))
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "network": lambda: _round_trip(case, preset, data, device) | {"lanes": lanes},
        "streams": lambda: _round_trip(case, _in_segments(preset, data), data, device),
        "memory": lambda: _round_trip(case, _in_segments(preset, data), data, device),
        "loss": lambda: _loss(data, preset.model, lanes, device),
        # With what the network would drop, if it was told to.
        "mask": lambda: mask.measure(data, presets.with_drop(preset.model), lanes, device),
    }
    return measures[case.kind]()


def _in_segments(preset: presets.Preset, data: bytes) -> presets.Preset:
    return dataclasses.replace(preset, segment_size=max(1, -(-len(data) // SEGMENTS)))


def _round_trip(case: Case, preset: presets.Preset, data: bytes, device: str) -> dict[str, Any]:
    lent = workspaces(torch.device(device))
    lent.most = None if case.shared else case.streams
    try:
        if torch.device(device).type == "cuda":
            streams.warm_up(data, preset, device)
        return streams.measure(data, preset, device, case.streams)
    finally:
        lent.most = None


def _loss(data: bytes, settings: presets.ModelSettings, lanes: int, device: str) -> dict[str, Any]:
    # Whole steps alone: lanes without a byte in the last one would count as badly predicted.
    data = data[: len(data) // lanes * lanes]
    losses, seconds, _ = loss_curve.measure(data, settings, lanes, torch.device(device))
    group = -(-len(losses) // POINTS)
    return {
        "bytes": len(data),
        "lanes": lanes,
        "seconds": round(seconds, 3),
        "bits_per_byte": round(sum(losses) * lanes / len(data), 4),
        "group_bytes": group * lanes,
        "loss": loss_curve.grouped(losses, group),
    }


if __name__ == "__main__":
    sys.exit(main())
