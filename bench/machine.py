"""What a result was made with: the commit, the machine and the versions that it depends on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

import sepzip


def commit() -> str:
    """Return the checkout's commit, with a mark where files differ from it, or nothing outside of one."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    here = Path(__file__).parent
    return subprocess.run(command, cwd=here, capture_output=True, text=True, check=False).stdout.strip()


def device_name(device: str | torch.device) -> str:
    """Return the name of a GPU, or of the vector extensions that torch uses of the CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


def machine(device: str) -> dict[str, str | int]:
    """Return what the machine is, as far as speeds depend on it."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "device": device_name(device),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of sepzip, Python and the packages that compute."""
    found = {
        "sepzip": sepzip.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["triton"] = importlib.metadata.version("triton")
    return found


def _processor() -> str:
    """Return the processor's name: Python's own answer is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
