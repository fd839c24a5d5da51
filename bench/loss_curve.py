"""Mean loss of each 250 steps, and steps a second, of a network on the first bytes of a file.

    python bench/loss_curve.py FILE [--network pac] [--no-seb] [--lanes 512] [--bytes 1000000]

The loss is the coded size's: -log2(frequency / 2^24) of every true byte. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import device_name
from sepzip import devices, presets, runs, tensors
from sepzip.lanes import split_lanes
from sepzip.segment import CodedBlock

GROUP = 250


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--network", default="pac")
    parser.add_argument("--level", type=int)
    parser.add_argument("--no-seb", action="store_true")
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--bytes", type=int, default=1_000_000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=NUMBER")
    options = parser.parse_args()
    data = options.file.read_bytes()[: options.bytes]
    network = None if options.level else options.network
    preset = presets.resolve(options.level, network, not options.no_seb, options.lanes)
    changes = dict(change.split("=") for change in options.set)
    numbers: dict[str, Any] = {name: eval_number(text) for name, text in changes.items()}
    settings = replace(preset.model, **numbers)
    lanes = preset.lanes
    device = torch.device(devices.pick_devices(options.device)[0])
    losses, seconds, block = measure(data, settings, lanes, device)
    result = {
        "file": options.file.name,
        "bytes": len(data),
        "lanes": lanes,
        "device": device_name(device),
        "torch": torch.__version__,
        "steps_per_second": round(len(losses) / seconds, 1),
        "bits_per_byte": round(float(np.sum(losses)) * lanes / len(data), 4),
        "mean_loss": grouped(losses, GROUP),
        "payload_sha256": hashlib.sha256(block.payload).hexdigest(),
        "settings": asdict(settings),
    }
    print(json.dumps(result), flush=True)


def eval_number(text: str) -> int | tuple[int, ...]:
    """Return the whole number, or the numbers joined by commas, that `text` spells."""
    numbers = tuple(int(part) for part in text.rstrip(",").split(","))
    return numbers if "," in text else numbers[0]


def grouped(losses: list[float], group: int) -> list[float]:
    """Return the mean loss of each `group` steps, of which the last may be fewer."""
    return [round(float(np.mean(losses[i : i + group])), 3) for i in range(0, len(losses), group)]


def measure(
    data: bytes, settings: presets.ModelSettings, lanes: int, device: torch.device
) -> tuple[list[float], float, CodedBlock]:
    """Return the mean loss of each step in bits, the seconds, and all steps as one block.

    Where `data` does not fill the last step, it is coded as if zeros did.
    """
    matrix = split_lanes(np.frombuffer(data, np.uint8), lanes)
    losses: list[float] = []
    block = None
    with tensors.exactly(device):
        run = tensors.encoding(settings, lanes, device, None)
        begun = time.perf_counter()
        for first in range(0, len(matrix), runs.CHUNK_STEPS):
            chunk = matrix[first : first + runs.CHUNK_STEPS]
            # One block, and every lane is coded in the last step too: losses are means over the same lanes.
            run.queue(chunk, lanes, first + len(chunk) == len(matrix))
            losses.extend((24 - np.log2(run.frequencies)).mean(1))
            block = run.collect()
        seconds = time.perf_counter() - begun
    if block is None:
        raise RuntimeError("the last chunk ended no block")
    return losses, seconds, block


if __name__ == "__main__":
    main()
