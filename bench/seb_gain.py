"""What the SEB gains, and what n-grams beside the network gain, at equal parameters.

    python bench/seb_gain.py FILE... [--network NAME...] [--bytes N...] [--lanes N] [--device D] [--jobs N]
                             [--variants NAME...] [--set FIELD=NUMBERS...] [--verify] [--out FOLDER]

The variants of each network: `plain`, without anything; `wide`, the same with `hidden` widened until it has
as many parameters as `ngrams`, to the nearest multiple of 8; `patches`, the published SEB in front, and
`patches-wide`, widened likewise; `ngrams`, n-grams beside it, and `both`. --set changes fields of these two.
Bytes out are those of the coders, of a file's first bytes as one segment, cut to whole steps. Gains are the
share of the bytes out of `wide` that a variant saves; the last lines of the table have their means.

Appends a JSON line a result to FOLDER/seb_gain.jsonl and writes the table to FOLDER/seb_gain.md. A result
that the file has already is not made again. Exit status 1 if a run failed or a byte differed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import loss_curve
from machine import commit, device_name
from sepzip import devices, presets
from sepzip.engine import decode_segment
from sepzip.memory import parameter_count

Row = dict[str, Any]

VARIANTS = ("plain", "wide", "patches", "patches-wide", "ngrams", "both")
BASE = "wide"
"""The variant that gains are measured against."""

_QUARTERS = 4
_WARM_STEPS = 600
_WIDEST = 65536


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--network", nargs="+", default=["pac-small"])
    parser.add_argument("--bytes", type=int, nargs="+", default=[2_000_000, 10_000_000])
    parser.add_argument("--lanes", type=int, default=512)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["wide", "patches", "ngrams"])
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=NUMBERS")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("seb-gain"))
    options = parser.parse_args()
    device = devices.pick_devices(options.device)[0]
    numbers = (change.split("=") for change in options.set)
    changes: dict[str, Any] = {name: loss_curve.eval_number(text) for name, text in numbers}
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "seb_gain.jsonl"
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.exists() else []
    work = []
    for network in options.network:
        for variant in options.variants:
            model = variant_of(network, variant, options.lanes, changes)
            for size in options.bytes:
                for path in options.files:
                    work.append((path, network, variant, model, size, options.lanes, device, options.verify))
    had = {_identity(row) for row in rows}
    asked = [_identity(_about(*item[:6])) for item in work]
    work = [item for item, identity in zip(work, asked, strict=True) if identity not in had]
    failed = 0
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measure, *item) for item in work]):
            try:
                row = future.result()
            except Exception as error:  # One that fails must not take the others with it.
                print(f"failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                failed += 1
                continue
            failed += not row.get("same", True)
            rows.append(row)
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            short = {key: value for key, value in row.items() if key != "settings"}
            print(json.dumps(short), file=sys.stderr, flush=True)
    text = table([row for row in rows if _identity(row) in set(asked)], options.variants)
    (options.out / "seb_gain.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if failed else 0


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


def _about(
    path: Path, network: str, variant: str, model: presets.ModelSettings, size: int, lanes: int
) -> Row:
    """Return what a result is of."""
    return {
        "file": path.name,
        "network": network,
        "variant": variant,
        "asked": size,
        "lanes": lanes,
        "parameters": parameter_count(model, lanes),
        "settings": asdict(model),
    }


def _identity(row: Row) -> str:
    keys = ("file", "network", "variant", "asked", "lanes", "settings")
    return json.dumps([row[key] for key in keys], sort_keys=True)


def measure(
    path: Path,
    network: str,
    variant: str,
    model: presets.ModelSettings,
    size: int,
    lanes: int,
    device: str,
    verify: bool,
) -> Row:
    """Return what one variant makes of the first bytes of a file."""
    about = _about(path, network, variant, model, size, lanes)
    with path.open("rb") as file:
        data = file.read(size)
    data = data[: len(data) // lanes * lanes]
    target = torch.device(device)
    if target.type == "cuda":
        # Kernels are compiled by then.
        loss_curve.measure(data[: _WARM_STEPS * lanes], model, lanes, target)
    losses, seconds, block = loss_curve.measure(data, model, lanes, target)
    group = -(-len(losses) // _QUARTERS)
    row = about | {
        "bytes": len(data),
        "coded": len(block.payload),
        "bits_per_byte": round(sum(losses) / len(losses), 4),
        "loss_by_quarter": loss_curve.grouped(losses, group),
        "steps_per_second": round(len(losses) / seconds, 1),
        "device": device_name(target),
        "torch": torch.__version__,
        "commit": commit(),
    }
    if verify:
        begun = time.perf_counter()
        row["same"] = decode_segment([block], len(data), model, lanes, device) == data
        row["decode_steps_per_second"] = round(len(losses) / (time.perf_counter() - begun), 1)
    return row


def table(rows: list[Row], variants: list[str]) -> str:
    """Return a Markdown table: a line a network, file and size, and the mean gain of each variant."""
    found = {(row["network"], row["asked"], row["file"], row["variant"]): row for row in rows}
    head = ["network", "file", "bytes"]
    for variant in variants:
        head += [variant, "weights", "steps/s"]
        if variant != BASE:
            head.append(f"gain of {variant}")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    gains: dict[tuple[str, str], list[float]] = {}
    for network, asked, file in dict.fromkeys(key[:3] for key in sorted(found, key=str)):
        own = {variant: found.get((network, asked, file, variant)) for variant in variants}
        base = own.get(BASE)
        size = next(row["bytes"] for row in own.values() if row is not None)
        cells = [network, file, f"{size:,}"]
        for variant in variants:
            row = own[variant]
            if row is None:
                cells += ["", "", ""] + [""] * (variant != BASE)
                continue
            cells += [f"{row['coded']:,}", f"{row['parameters'] / 1e6:.2f} M", f"{row['steps_per_second']}"]
            if variant == BASE:
                continue
            gain = "" if base is None else 100 * (1 - row["coded"] / base["coded"])
            if gain != "":
                gains.setdefault((network, variant), []).append(float(gain))
                gains.setdefault(("all", variant), []).append(float(gain))
            cells.append(f"{gain:.2f} %" if gain != "" else "")
        lines.append("| " + " | ".join(cells) + " |")
    for network in dict.fromkeys(network for network, _ in sorted(gains, key=lambda key: key[0] == "all")):
        cells = [f"**{network}**", "mean gain", ""]
        for variant in variants:
            own_gains = gains.get((network, variant), [])
            mean = f"{sum(own_gains) / len(own_gains):.2f} %" if own_gains else ""
            cells += ["", "", ""] + [mean] * (variant != BASE)
        lines.append("| " + " | ".join(cells) + " |")
    devices_used = ", ".join(sorted({row["device"] for row in rows}))
    return "\n".join([*lines, "", f"Device: {devices_used}."])


if __name__ == "__main__":
    sys.exit(main())
