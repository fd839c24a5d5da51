"""The compiled parts of the package: plain shared libraries, loaded by ctypes."""

from __future__ import annotations

import ctypes
import importlib.util

from .errors import DeviceError

__all__ = ["load"]


def load(name: str) -> ctypes.CDLL:
    """Return the compiled part of this name, as "sepzip.recall._memory"; DeviceError if there is none."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise DeviceError("the compiled part of sepzip is missing: install sepzip again, with a C compiler")
    return ctypes.CDLL(spec.origin)
