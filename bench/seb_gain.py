"""What the SEB gains, and what n-grams beside the network gain, at equal parameters.

    python bench/seb_gain.py FILE... [--network NAME...] [--bytes N...] [--lanes N] [--device D] [--jobs N]
                             [--variants NAME...] [--set FIELD=NUMBERS...] [--no-decode] [--out FOLDER]

The variants of each network: `plain`, without anything; `wide`, the same with `hidden` widened until it has
as many parameters as `ngrams`, to the nearest multiple of 8; `patches`, the published SEB in front, and
`patches-wide`, widened likewise; `ngrams`, n-grams beside it, and `both`. --set changes fields of these two.
Bytes out are those of the coders, of a file's first bytes as one segment, cut to whole steps, each decoded
again and compared unless --no-decode is given. A gain is the share of bytes that a variant saves of those out
of the network that has as many parameters: of `plain` for `patches`, of `wide` for the others. The last lines
of the table have their means.

--jobs are in work at a time: processes on a CPU; on a GPU threads on streams of their own, once as many
processes have compiled the kernels. Their rates are those beside each other.

Appends a JSON line a result to FOLDER/seb_gain.jsonl and writes the table to FOLDER/seb_gain.md. A result
that the file has already is not made again, unless it was not decoded and is to be now. Exit status 1 if a
run failed or a byte differed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import loss_curve
from machine import commit, device_name
from sepzip import devices, presets, runs
from sepzip.engine import decode_segment
from sepzip.memory import parameter_count

Row = dict[str, Any]

VARIANTS = ("plain", "wide", "patches", "patches-wide", "ngrams", "both")
BASES = {"patches": "plain", "patches-wide": "wide", "ngrams": "wide", "both": "wide"}
"""The variant that another one's gain is measured against: without anything, of as many parameters."""

_QUARTERS = 4
_WARM_STEPS = 2 * runs.CHUNK_STEPS
_WIDEST = 65536


@dataclass(frozen=True)
class Work:
    """One variant of a network, and of which file how many bytes it codes where."""

    path: Path
    network: str
    variant: str
    model: presets.ModelSettings
    size: int
    lanes: int
    device: torch.device
    decode: bool

    @property
    def about(self) -> Row:
        """What a result says of its work."""
        return {
            "file": self.path.name,
            "network": self.network,
            "variant": self.variant,
            "asked": self.size,
            "lanes": self.lanes,
            "parameters": parameter_count(self.model, self.lanes),
            "settings": asdict(self.model),
        }

    def data(self) -> bytes:
        """Return the bytes to code."""
        with self.path.open("rb") as file:
            data = file.read(self.size)
        return data[: len(data) // self.lanes * self.lanes]


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--network", nargs="+", default=["pac-small"])
    parser.add_argument("--bytes", type=int, nargs="+", default=[2_000_000, 10_000_000])
    parser.add_argument("--lanes", type=int, default=512)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=["plain", "wide", "patches", "ngrams"]
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=NUMBERS")
    parser.add_argument("--no-decode", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("seb-gain"))
    options = parser.parse_args()
    device = torch.device(devices.pick_devices(options.device)[0])
    numbers = (change.split("=") for change in options.set)
    changes: dict[str, Any] = {name: loss_curve.eval_number(text) for name, text in numbers}
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "seb_gain.jsonl"
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.exists() else []
    asked = [
        Work(path, network, variant, model, size, options.lanes, device, not options.no_decode)
        for size in options.bytes
        for network in options.network
        for variant in options.variants
        for model in [variant_of(network, variant, options.lanes, changes)]
        for path in options.files
    ]
    had = {_identity(row) for row in rows if options.no_decode or "same" in row}
    failed = 0
    for row in results([one for one in asked if _identity(one.about) not in had], options.jobs):
        failed += "error" in row or not row.get("same", True)
        short = {key: value for key, value in row.items() if key != "settings"}
        print(json.dumps(short), file=sys.stderr, flush=True)
        if "error" in row:
            continue
        rows.append(row)
        with lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    identities = {_identity(one.about) for one in asked}
    text = table([row for row in rows if _identity(row) in identities], options.variants)
    (options.out / "seb_gain.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if failed else 0


def results(work: list[Work], jobs: int) -> Iterable[Row]:
    """Yield what comes of each, or what went wrong, `jobs` at a time."""
    processes = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    pool: Executor = processes
    if work and work[0].device.type == "cuda":
        with processes:
            # What fails there fails again, and is told then.
            wait([processes.submit(_warm_up, one) for one in {one.model: one for one in work}.values()])
        # Kernels of several processes take turns on a GPU, those of several streams run side by side.
        pool = ThreadPoolExecutor(jobs)
    with pool:
        begun = {pool.submit(measure, one): one for one in work}
        for future in as_completed(begun):
            try:
                yield future.result()
            except Exception as error:  # One that fails must not take the others with it.
                yield begun[future].about | {"error": f"{type(error).__name__}: {error}"}


def variant_of(network: str, variant: str, lanes: int, changes: dict[str, Any]) -> presets.ModelSettings:
    """Return the settings of a variant; `changes` are fields of those with n-grams."""
    ngrams = replace(presets.resolve(network=network, semantics="ngrams").model, **changes)
    if variant == "ngrams":
        return ngrams
    if variant == "both":
        return replace(presets.resolve(network=network, semantics="both").model, **changes)
    semantics = variant.startswith("patches")
    model = presets.resolve(network=network, semantics=semantics).model
    if model.semantics != semantics:
        raise SystemExit(f"the SEB does not go with {network}: leave out patches")
    if variant in ("plain", "patches"):
        return model
    return widened(model, lanes, parameter_count(ngrams, lanes))


def widened(model: presets.ModelSettings, lanes: int, count: int) -> presets.ModelSettings:
    """Return the model with `hidden` the multiple of 8 whose parameters are nearest to `count`."""
    low, high = 1, _WIDEST // 8
    while low < high:
        middle = (low + high) // 2
        if parameter_count(replace(model, hidden=8 * middle), lanes) < count:
            low = middle + 1
        else:
            high = middle
    around = [replace(model, hidden=8 * eighth) for eighth in (max(1, low - 1), low)]
    return min(around, key=lambda wide: abs(parameter_count(wide, lanes) - count))


def _identity(row: Row) -> str:
    keys = ("file", "network", "variant", "asked", "lanes", "settings")
    return json.dumps([row[key] for key in keys], sort_keys=True)


_warming = threading.Lock()
_warm: set[presets.ModelSettings] = set()


def _warm_up(work: Work) -> None:
    """Code a few steps, in both directions, where this process has not yet, so that every kernel is there."""
    with _warming:
        if work.model in _warm:
            return
        data = work.data()[: _WARM_STEPS * work.lanes]
        *_, block = loss_curve.measure(data, work.model, work.lanes, work.device)
        decode_segment([block], len(data), work.model, work.lanes, str(work.device))
        _warm.add(work.model)


def measure(work: Work) -> Row:
    """Return what one variant makes of the first bytes of a file."""
    data, model, lanes = work.data(), work.model, work.lanes
    if work.device.type == "cuda":
        _warm_up(work)
    losses, seconds, block = loss_curve.measure(data, model, lanes, work.device)
    group = -(-len(losses) // _QUARTERS)
    row = work.about | {
        "bytes": len(data),
        "coded": len(block.payload),
        "bits_per_byte": round(sum(losses) / len(losses), 4),
        "loss_by_quarter": loss_curve.grouped(losses, group),
        "steps_per_second": round(len(losses) / seconds, 1),
        "sha256": hashlib.sha256(block.payload).hexdigest(),
        "device": device_name(work.device),
        "torch": torch.__version__,
        "commit": commit(),
    }
    if work.decode:
        begun = time.perf_counter()
        row["same"] = decode_segment([block], len(data), model, lanes, str(work.device)) == data
        row["decode_steps_per_second"] = round(len(losses) / (time.perf_counter() - begun), 1)
    return row


def table(rows: list[Row], variants: list[str]) -> str:
    """Return a Markdown table: a line a network, file and size, and the mean gain of each variant."""
    found = {(row["network"], row["asked"], row["file"], row["variant"]): row for row in rows}
    head = ["network", "file", "bytes"]
    for variant in variants:
        head += [variant, "weights", "steps/s"]
        if variant in BASES:
            head.append(f"gain on {BASES[variant]}")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    gains: dict[tuple[str, str], list[float]] = {}
    for network, asked, file in dict.fromkeys(key[:3] for key in sorted(found, key=str)):
        own = {variant: row for variant in VARIANTS if (row := found.get((network, asked, file, variant)))}
        cells = [network, file, f"{next(iter(own.values()))['bytes']:,}"]
        for variant in variants:
            row, base = own.get(variant), own.get(BASES.get(variant, ""))
            if row is None:
                cells += ["", "", ""]
            else:
                coded = f"{row['coded']:,}" if row.get("same") else f"({row['coded']:,})"
                cells += [coded, f"{row['parameters'] / 1e6:.2f} M", f"{row['steps_per_second']}"]
            if variant not in BASES:
                continue
            if row is None or base is None:
                cells.append("")
                continue
            gain = 100 * (1 - row["coded"] / base["coded"])
            cells.append(f"{gain:.2f} %")
            for name in (f"{network}, {asked:,}", "all"):
                gains.setdefault((name, variant), []).append(gain)
        lines.append("| " + " | ".join(cells) + " |")
    for name in dict.fromkeys(name for name, _ in sorted(gains, key=lambda key: key[0] == "all")):
        cells = [f"**{name}**", "mean gain", ""]
        for variant in variants:
            own_gains = gains.get((name, variant), [])
            mean = f"{sum(own_gains) / len(own_gains):.2f} %" if own_gains else ""
            cells += ["", "", ""] + [mean] * (variant in BASES)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Device: {', '.join(sorted({row['device'] for row in found.values()}))}."]
    if not all(row.get("same") for row in found.values()):
        lines.append("What stands in brackets was not decoded again, or came back otherwise.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
