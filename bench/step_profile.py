"""Where a step's time goes, by part and by operation or kernel, and the least that it could take.

    python bench/step_profile.py FILE [--level 3] [--network NAME] [--lanes N] [--device D] [--steps 64]

On a CPU: the time of each part, and the operations that take longest, by torch's profiler. On CUDA: every
kernel of replayed steps; work beside the main stream overlaps, so that their sum may be more than a step
takes. The floor that one can count, on either: what Adam has to move, 24 bytes a weight and the int8 one,
at the measured rate of a copy, and the int8 operations of the products that lanes share at the measured
rate of a large product. Prints tables.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sepzip import devices, presets, runs, tensors
from sepzip.exact import linear
from sepzip.exact.product import product_8x8, product_8x16, product_16x8
from sepzip.exact.tape import Tape
from sepzip.frequencies import Frequencies
from sepzip.lanes import split_lanes
from sepzip.model import Model
from sepzip.optimizer import Adam
from sepzip.profile import Profile

PROFILED = 10
"""Steps whose operations are counted on a CPU."""

TOP = 14
"""Operations that are listed."""


class Clock:
    """Adds up the time of functions by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Replace a method by one that is timed."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            result = original(*args, **kwargs)
            self.seconds[name] += time.perf_counter() - begun
            return result

        setattr(owner, method, timed)


class Steps:
    """A segment that is encoded some steps at a time, from the same bytes again and again."""

    def __init__(self, preset: presets.Preset, device: torch.device, symbols: NDArray[np.uint8]) -> None:
        self._profile = Profile()
        self._lanes = preset.lanes
        self._run = tensors.encoding(preset.model, preset.lanes, device, self._profile)
        self._symbols = symbols

    def run(self, steps: int) -> dict[str, float]:
        """Run so many steps and return the seconds of each stage."""
        before = self._profile.report().total
        while steps:
            chunk = self._symbols[:steps]
            self._run.queue(chunk, self._lanes, False)
            self._run.collect()
            steps -= len(chunk)
        return {
            stage: seconds - before.get(stage, 0.0) for stage, seconds in self._profile.report().total.items()
        }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--level", type=int)
    parser.add_argument("--network")
    parser.add_argument("--no-seb", action="store_true")
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=64)
    options = parser.parse_args()
    preset = presets.resolve(options.level, options.network, not options.no_seb, options.lanes)
    device = torch.device(devices.pick_devices(options.device)[0])
    needed = preset.lanes * runs.CHUNK_STEPS
    content = options.file.read_bytes()[:needed]
    data = np.frombuffer((content * -(-needed // len(content)))[:needed], np.uint8)
    with tensors.exactly(device):
        weights, operations = counted(preset, device)
        steps = Steps(preset, device, split_lanes(data, preset.lanes))
        if device.type == "cuda":
            seconds = print_kernels(steps, options.steps)
        else:
            seconds = print_parts(steps, options.steps)
        print_floor(weights, operations, seconds, device)


def print_parts(steps: Steps, count: int) -> float:
    """Print the parts of a step and its longest operations; return the seconds that a step takes."""
    steps.run(5)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        steps.run(PROFILED)
    clock = Clock()
    clock.wrap(Model, "predict", "predict")
    clock.wrap(Frequencies, "__init__", "frequencies")
    clock.wrap(Tape, "run_backward", "backward")
    clock.wrap(Adam, "update", "optimizer")
    stages = steps.run(count)
    parts = {
        "forward": clock.seconds["predict"] - clock.seconds["frequencies"],
        "frequencies": clock.seconds["frequencies"],
        "backward": clock.seconds["backward"],
        "optimizer": clock.seconds["optimizer"],
        "step": stages["step"],
        "coder": stages["code"],
    }
    print("| part | ms a step |\n|---|---|")
    for name, seconds in parts.items():
        print(f"| {name} | {1e3 * seconds / count:.2f} |")
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    print("\n| operation | ms a step | calls a step |\n|---|---|---|")
    for event in events[:TOP]:
        milliseconds = event.self_cpu_time_total / 1e3 / PROFILED
        print(f"| {event.key[:70]} | {milliseconds:.3f} | {event.count / PROFILED:.1f} |")
    return stages["step"] / count


def print_kernels(steps: Steps, count: int) -> float:
    """Print the kernels of replayed steps; return the seconds that a step takes when it is not profiled."""
    # Kernels are compiled and graphs captured.
    steps.run(runs.CHUNK_STEPS)
    seconds = steps.run(count)["step"] / count
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        steps.run(count)
    events = [event for event in recorded.key_averages() if event.self_device_time_total > 0]
    events.sort(key=lambda event: -event.self_device_time_total)
    print("| kernel | calls a step | us each | us a step |\n|---|---|---|---|")
    for event in events:
        total = event.self_device_time_total
        name = event.key[:70].replace("|", "/")
        print(f"| {name} | {event.count / count:.2f} | {total / event.count:.2f} | {total / count:.2f} |")
    calls = sum(event.count for event in events) / count
    total = sum(event.self_device_time_total for event in events) / count
    print(f"| **all** | {calls:.1f} | | {total:.1f} |")
    print(f"| **a step, replayed** | | | {1e6 * seconds:.1f} |")
    return seconds


def counted(preset: presets.Preset, device: torch.device) -> tuple[int, int]:
    """Return how many weights the model has, and the int8 operations of a step's shared products."""
    operations = 0

    def counting(product: Callable[[Tensor, Tensor], Tensor], digits: int) -> Callable[..., Tensor]:
        def count(a: Tensor, b: Tensor) -> Tensor:
            nonlocal operations
            operations += 2 * digits * a.shape[0] * a.shape[1] * b.shape[1]
            return product(a, b)

        return count

    model = Model(preset.model, preset.lanes, device)
    with (
        patch.object(linear, "product_8x8", counting(product_8x8, 1)),
        patch.object(linear, "product_16x8", counting(product_16x8, 2)),
        patch.object(linear, "product_8x16", counting(product_8x16, 2)),
    ):
        model.predict()
        model.learn(torch.zeros(preset.lanes, dtype=torch.int64, device=device))
    return sum(node.data.numel() for node in model._network.parameters.nodes), operations


def print_floor(weights: int, operations: int, step: float, device: torch.device) -> None:
    """Print what a step has to move and to multiply, how long that takes at least, and the step's ratio."""
    on_cuda = device.type == "cuda"
    source = torch.zeros(1 << (30 if on_cuda else 27), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    # A copy reads and writes.
    bandwidth = 2 * len(source) / seconds_of(lambda: target.copy_(source), device)
    size = 8192 if on_cuda else 1024
    whole = torch.ones((size, size), dtype=torch.int8, device=device)
    # The summed axis is the contiguous one for both, as in the kernels.
    right = whole.t() if on_cuda else whole
    rate = 2 * size**3 / seconds_of(lambda: torch._int_mm(whole, right), device)
    moved = 25 * weights
    floors = (moved / bandwidth, operations / rate)
    print("\n| floor | a step | rate | us a step |\n|---|---|---|---|")
    print(f"| Adam, {weights:,} weights | {moved / 1e6:.1f} MB | {bandwidth / 1e9:.0f} GB/s ", end="")
    print(f"| {1e6 * floors[0]:.1f} |")
    print(f"| shared products | {operations / 1e9:.2f} G int8 operations | {rate / 1e12:.2f} T/s ", end="")
    print(f"| {1e6 * floors[1]:.1f} |")
    print(f"\nA step takes {1e6 * step:.1f} us, {step / max(floors):.1f} times the larger of them.")


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return how long the work takes, the shortest of several times."""
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times)


if __name__ == "__main__":
    main()
