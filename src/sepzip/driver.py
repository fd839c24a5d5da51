"""What NVIDIA's driver says of this machine: torch need not be loaded to know that there is no GPU."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

__all__ = ["cuda_devices"]


@cache
def cuda_devices() -> int:
    """Return how many CUDA devices the driver gives this process, 0 where it is missing or fails.

    Like all of CUDA it heeds CUDA_VISIBLE_DEVICES as it stands when the driver is first asked.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
    except (OSError, AttributeError):
        return 0
    return max(0, count.value)
