"""Several segments in flight: speed, memory and output of every combination of streams and devices.

    python bench/streams.py FILE [--size 64M] [--segment 8M] [--streams 1 2 4] [--device cuda:0 cuda:0,1]
                            [--level L | --network NAME] [--no-seb] [--lanes N]
                            [--no-unpack] [--workspaces 1 2 4]

The file, repeated until it is as long as --size, is compressed and decompressed in memory. --workspaces says
how many workspaces, memory that only lives within a step, the segments in flight on a GPU share; unless told,
that depends on the model. Of 0 streams, segments are coded one after the other and nothing overlaps. Prints a
JSON line for each combination: `step_share` is the share of the wall clock times the streams in which a step
was under way or waited for its turn; `busy` the share of the wall clock in which a GPU ran any kernel, as its
driver says; `peak_mib` is torch's memory on each GPU, allocated and reserved. Kernels are compiled before the
clock starts. With --no-unpack segments are coded as they are, all of one size. Exit status 1 if any byte
differs, or the output of two combinations.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sepzip
from sepzip import devices, engine, presets, runs
from sepzip.cli.sizes import read_size
from sepzip.devices import Resources
from sepzip.jobs import LEAST_CODED
from sepzip.parts import parts_for
from sepzip.pipeline import Compressor, bytes_a_segment, compress_stream, decompress_stream
from sepzip.profile import Profile
from sepzip.recall.placement import is_sooner_on_cpu
from sepzip.recall.segments import prepare
from sepzip.workspaces import workspaces


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", type=read_size)
    parser.add_argument("--segment", type=read_size)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--device", nargs="+", default=["auto"])
    parser.add_argument("--level", type=int)
    parser.add_argument("--network")
    parser.add_argument("--no-seb", action="store_true")
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--no-unpack", action="store_true")
    parser.add_argument("--workspaces", type=int, nargs="+", default=[None])
    options = parser.parse_args()
    preset = presets.resolve(
        options.level,
        options.network,
        not options.no_seb,
        options.lanes,
        options.segment,
        unpack=not options.no_unpack,
    )
    content = options.file.read_bytes()
    size = options.size or len(content)
    content = (content * -(-size // len(content)))[:size]
    names = {name for spelling in options.device for name in devices.pick_devices(spelling)}
    for name in names:
        warm_up(content, preset, name)
    outputs, all_same = set(), True
    for device, streams, most in itertools.product(options.device, options.streams, options.workspaces):
        for name in names:
            workspaces(torch.device(name)).most = most
        result = measure(content, preset, device, streams)
        settings = {"device": device, "streams": streams, "workspaces": most or "by model"}
        print(json.dumps(settings | result), flush=True)
        outputs.add(result["sha256"])
        all_same &= result["same"]
    return 0 if all_same and len(outputs) == 1 else 1


def warm_up(content: bytes, preset: presets.Preset, device: str) -> None:
    """Code two chunks of each part of the first segment, both ways, so that every kernel is there."""
    first = content[: bytes_a_segment(preset, len(content))]
    model = preset.model
    parts = parts_for(first, preset)
    for part in parts:
        size = len(part.content)
        lanes = preset.lanes_for(size)
        goes_to_cpu = model.contexts and is_sooner_on_cpu(model, lanes, size, size, begun=True)
        if size < LEAST_CODED or (len(parts) > 1 and goes_to_cpu):
            continue
        few, prepared = part.content[: 2 * lanes * runs.CHUNK_STEPS], None
        if model.contexts:
            # Kernels depend on the plan, which that of few bytes may not be.
            plan, data = prepare(np.frombuffer(part.content, np.uint8), model, part.row)
            prepared = plan, data[: len(few)]
        blocks = list(engine.encode_segment(few, model, lanes, device, prepared=prepared))
        engine.decode_segment(blocks, len(few), model, lanes, device)


def measure(
    content: bytes, preset: presets.Preset, device: str, streams: int, watched: bool = True
) -> dict[str, Any]:
    """Return the figures of one combination, and whether the content came back; `watched` as in `timed`."""
    frame, back = io.BytesIO(), io.BytesIO()

    def pack(profile: Profile) -> None:
        if streams:
            source = io.BytesIO(content)
            compress_stream(
                source, frame, preset, device, streams=streams, size=len(content), profile=profile
            )
            return
        compressor = Compressor(frame, preset, Resources(device, 1, None), profile=profile)
        most = bytes_a_segment(preset, len(content))
        for start in range(0, len(content), most):
            compressor.add(content[start : start + most], last=start + most >= len(content))
        compressor.finish()
        compressor.stop()

    def unpack(profile: Profile) -> None:
        if streams:
            decompress_stream(io.BytesIO(packed), back, device, streams=streams, profile=profile)
            return
        # Reading a file as a stream of bytes overlaps nothing, and tells of no stages.
        with sepzip.open(io.BytesIO(packed), "rb", device=device, streams=1) as file:
            back.write(file.read())

    compress = timed(pack, device, len(content), watched)
    packed = frame.getvalue()
    decompress = timed(unpack, device, len(content), watched)
    return {
        "bytes": len(content),
        "coded": len(packed),
        "segments": -(-len(content) // bytes_a_segment(preset, len(content))),
        "compress": compress,
        "decompress": decompress,
        "same": back.getbuffer() == content,
        "sha256": hashlib.sha256(packed).hexdigest(),
    }


class Watch:
    """Reads what the driver says of its GPUs: the share of the last moment in which a kernel ran."""

    _INTERVAL = 0.1

    def __init__(self, gpus: list[str]) -> None:
        """Begin to read; returns when the first figures are there."""
        self._names = {f"GPU-{torch.cuda.get_device_properties(name).uuid}": name for name in gpus}
        query = ["nvidia-smi", "--query-gpu=uuid,utilization.gpu", "--format=csv,noheader,nounits"]
        loop = f"--loop-ms={round(1000 * self._INTERVAL)}"
        self._process = subprocess.Popen([*query, loop], stdout=subprocess.PIPE, text=True)
        self._readings: list[tuple[float, str, float]] = []
        self._has_read = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._has_read.wait(10)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            uuid, _, share = line.partition(", ")
            name = self._names.get(uuid)
            if name is not None and share.strip().isdigit():
                self._readings.append((time.perf_counter(), name, int(share) / 100))
            self._has_read.set()

    def shares(self, begun: float, ended: float) -> dict[str, float]:
        """Stop, and return the mean of each GPU's readings between two times of time.perf_counter."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        found: dict[str, list[float]] = {}
        for at, name, share in self._readings:
            if begun + self._INTERVAL <= at <= ended:
                found.setdefault(name, []).append(share)
        return {name: round(sum(shares) / len(shares), 3) for name, shares in found.items()}


def timed(work: Callable[[Profile], object], device: str, size: int, watched: bool = True) -> dict[str, Any]:
    """Return the time that the work takes, and what its devices did and needed meanwhile.

    What GPUs' driver says of them is asked, which takes it about a second to begin with, where `watched`.
    """
    gpus = [name for name in devices.pick_devices(device) if name != "cpu"]
    watch = Watch(gpus) if watched and gpus and shutil.which("nvidia-smi") else None
    gc.collect()
    for name in gpus:
        with torch.cuda.device(name):
            torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(name)
    profile = Profile()
    begun = time.perf_counter()
    work(profile)
    seconds = time.perf_counter() - begun
    report = profile.report()
    busy = watch.shares(begun, begun + seconds) if watch else {}
    return {
        "seconds": round(seconds, 3),
        "mb_per_s": round(size / 1e6 / seconds, 4),
        "stages": {stage: round(spent, 4) for stage, spent in report.total.items()},
        "step_share": {
            name: round(used.seconds.get("step", 0.0) / (report.wall * used.streams), 4)
            for name, used in report.devices.items()
        },
        "busy": busy,
        "peak_mib": {
            name: [
                torch.cuda.max_memory_allocated(name) >> 20,
                torch.cuda.max_memory_reserved(name) >> 20,
            ]
            for name in gpus
        },
    }


if __name__ == "__main__":
    sys.exit(main())
