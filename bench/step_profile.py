"""Where a step's time goes, by part and by operation.

    python bench/step_profile.py FILE [--level 3] [--network NAME] [--lanes N] [--device D] [--steps 50]

Parts are timed with the device synchronised around each, outside any captured graph, so on CUDA their sum
is more than a replayed step takes; operations are timed by torch's profiler. Prints two tables.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from sepzip import devices, engine, presets
from sepzip.coder.plain import BlockEncoder
from sepzip.exact.tape import Tape
from sepzip.frequencies import Frequencies
from sepzip.lanes import split_lanes
from sepzip.model import Model
from sepzip.networks import pac
from sepzip.optimizer import Adam


class Clock:
    """Adds up the time of functions by name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Replace a method by one that is timed."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._synchronise()
            begun = time.perf_counter()
            result = original(*args, **kwargs)
            self._synchronise()
            self.seconds[name] += time.perf_counter() - begun
            return result

        setattr(owner, method, timed)

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--level", type=int)
    parser.add_argument("--network")
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    preset = presets.resolve(options.level, options.network, lanes=options.lanes)
    device = torch.device(devices.pick_devices(options.device)[0])
    data = np.frombuffer(options.file.read_bytes()[: preset.lanes * engine.CHUNK_STEPS], np.uint8)
    clock = Clock(device)
    with engine.exactly(device):
        model = Model(preset.model, preset.lanes, device)
        source = engine.Truth(preset.lanes, device)
        stepper = engine.Stepper(model, source, device)
        source.load(split_lanes(data, preset.lanes))
        for _ in range(5):
            stepper.step()
        activities = [ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU]
        with profile(activities=activities) as recorded:
            for _ in range(10):
                stepper.step()
        clock.wrap(pac.PAC, "forward", "forward")
        clock.wrap(Frequencies, "__init__", "frequencies")
        clock.wrap(Tape, "run_backward", "backward")
        clock.wrap(Adam, "update", "optimizer")
        clock.wrap(engine.Stepper, "step", "step")
        for _ in range(options.steps):
            stepper.step()
        encoder = BlockEncoder(preset.lanes, preset.model.lanes_per_coder)
        starts, widths = source.intervals(options.steps)
        begun = time.perf_counter()
        for start, width in zip(starts, widths, strict=True):
            encoder.step(start, width)
        clock.seconds["coder"] = time.perf_counter() - begun
    milliseconds = {name: 1e3 * seconds / options.steps for name, seconds in clock.seconds.items()}
    print("| part | ms a step |\n|---|---|")
    for name, value in milliseconds.items():
        print(f"| {name} | {value:.2f} |")
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(recorded.key_averages(), key=lambda event: -getattr(event, key))
    print("\n| operation | ms a step | calls a step |\n|---|---|---|")
    for event in events[:14]:
        print(f"| {event.key[:70]} | {getattr(event, key) / 1e4:.3f} | {event.count / 10:.1f} |")


if __name__ == "__main__":
    main()
