"""The SEB's mask as a network has learned it from the first bytes of a file.

    python bench/mask.py FILE [--network pac-small] [--lanes 64] [--bytes 65536] [--device cpu]
                         [--drop-step N --drop-below THOUSANDTHS]

Prints one JSON line. `mask` has a number from 0 to 1 for each patch, the newest first: 1 lets the patch
through, 0 leaves it out; where a network has a mask for each value of a patch, their mean. `kept` says which
patches the mask keeps in full and does not learn, `strength` what is left of each patch's largest weight
behind the mask, as a part of the strongest one's, and `dropped` which patches were dropped. The steps run as
they are written, without kernels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import device_name
from sepzip import devices, presets, tensors
from sepzip.lanes import split_lanes
from sepzip.model import Model
from sepzip.semantics import Semantics


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--network", default="pac-small")
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--bytes", type=int, default=1 << 16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--drop-step", type=int, default=0)
    parser.add_argument("--drop-below", type=int, default=0)
    options = parser.parse_args()
    data = options.file.read_bytes()[: options.bytes]
    preset = presets.resolve(network=options.network, lanes=options.lanes)
    model = replace(preset.model, drop_step=options.drop_step, drop_below=options.drop_below)
    device = devices.pick_devices(options.device)[0]
    about = {"file": options.file.name, "network": options.network, "device": device_name(device)}
    print(json.dumps(about | measure(data, model, preset.lanes_for(len(data)), device)), flush=True)


def measure(data: bytes, settings: presets.ModelSettings, lanes: int, device: str) -> dict[str, Any]:
    """Return the mask after the steps that all lanes take in `data`."""
    target = torch.device(device)
    symbols = split_lanes(np.frombuffer(data, np.uint8), lanes)[: len(data) // lanes]
    with tensors.exactly(target):
        model = Model(settings, lanes, target)
        front = model.semantics
        if front is None:
            raise ValueError("the network has no SEB")
        begun = _by_age(front)
        for step in torch.from_numpy(symbols.astype(np.int64)).to(target):
            model.predict()
            model.learn(step)
            model.dropping.count(1)
        return {
            "bytes": len(data),
            "lanes": lanes,
            "steps": len(symbols),
            "mask": _by_age(front),
            "mask_before": begun,
            "kept": front.kept.reshape(-1).flip(0).tolist(),
            "strength": _strength(front),
            "dropped": [age >= len(front.kept) - front.dropped for age in range(len(front.kept))],
        }


def _strength(front: Semantics) -> list[float]:
    values = front.strength()
    return [round(float(value), 4) for value in (values / values.amax()).flip(0)]


def _by_age(front: Semantics) -> list[float]:
    values = front.learned_mask()
    return [round(float(value), 4) for value in values.reshape(len(values), -1).mean(1).flip(0)]


if __name__ == "__main__":
    main()
