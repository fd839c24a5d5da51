"""Steps a second of networks and levels on a device, both directions, decoded again and compared.

    python bench/steps.py FILE [--network pac ...] [--level 3 ...] [--lanes N] [--steps N] [--device cuda]

Each line of output is JSON: the rate is that of the steps alone, by the engine's profile, after the first
chunk, in which kernels are compiled and graphs captured; `first_step_s` is the wall time of that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch

from machine import device_name
from sepzip import devices, engine, presets, runs
from sepzip.profile import Profile


class Rate:
    """Times the chunks of a segment by what the engine says of them."""

    def __init__(self) -> None:
        self.profile = Profile()
        self.began = time.perf_counter()
        self.first: float | None = None
        self.steps_before = self.wall_before = 0.0

    def advance(self, count: int) -> None:
        """Note the first chunk's end."""
        if self.first is None:
            self.first = time.perf_counter() - self.began
            self.steps_before = self.profile.report().total.get("step", 0.0)
            self.wall_before = time.perf_counter()

    def result(self, steps: int) -> dict[str, float]:
        """Return the rates over the `steps` after the first chunk."""
        wall = time.perf_counter() - self.wall_before
        busy = self.profile.report().total.get("step", 0.0) - self.steps_before
        return {
            "steps_per_s": round(steps / busy, 1),
            "wall_steps_per_s": round(steps / wall, 1),
            "busy": round(busy / wall, 4),
            "first_chunk_s": round(self.first or 0.0, 2),
        }


def measure(content: bytes, preset: presets.Preset, device: str, steps: int) -> dict[str, object]:
    """Return the figures of one network."""
    lanes = preset.lanes
    data = (content * (-(-lanes * steps // len(content))))[: lanes * steps]
    further = steps - runs.CHUNK_STEPS
    rate = Rate()
    blocks = list(engine.encode_segment(data, preset.model, lanes, device, rate.advance, rate.profile))
    compress = rate.result(further)
    rate = Rate()
    found = engine.decode_segment(blocks, len(data), preset.model, lanes, device, rate.advance, rate.profile)
    decompress = rate.result(further)
    if bytes(found) != data:
        raise SystemExit("the decoded bytes differ")
    size = sum(len(block.payload) for block in blocks)
    digest = hashlib.sha256(b"".join(block.payload for block in blocks)).hexdigest()
    return {
        "lanes": lanes,
        "steps": steps,
        "bytes": len(data),
        "coded": size,
        "sha256": digest[:16],
        "fingerprint": f"{blocks[-1].fingerprint:08x}",
        "compress": compress,
        "decompress": decompress,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--no-seb", action="store_true")
    parser.add_argument("--level", type=int, action="append", default=[])
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--steps", type=int, default=2048)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = devices.pick_devices(options.device)[0]
    content = options.file.read_bytes()
    asked: list[tuple[str, presets.Preset]] = [
        (network, presets.resolve(network=network, semantics=not options.no_seb, lanes=options.lanes))
        for network in options.network
    ]
    asked += [(f"-{level}", presets.resolve(level, lanes=options.lanes)) for level in options.level]
    for label, preset in asked:
        result = measure(content, preset, device, options.steps)
        about = {"network": label, "device": device_name(device), "torch": torch.__version__}
        print(json.dumps(about | result), flush=True)


if __name__ == "__main__":
    main()
