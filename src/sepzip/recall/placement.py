"""Where a memory of contexts is expected to be done sooner, on CPUs or on a GPU; the bytes are the same.

A GPU takes about as long for a step of few lanes as for one of a hundred, and seconds to start. CPUs take as
long for a byte whatever the lanes, but more threads can share many lanes. docs/performance.md has what the
constants were read off.
"""

from __future__ import annotations

import importlib.util
import math
import os

from ..presets import ModelSettings

__all__ = ["is_sooner_on_cpu", "processors", "threads_for"]

_CPU_BYTE, _CPU_CONTEXT = 1.9e-6, 0.17e-6
"""Seconds that one thread takes for a byte, and more for each context."""

_CPU_RECURRENT, _GPU_RECURRENT = 8.5e-6, 5e-6
"""Seconds more with a recurrent network, whose levels have large tables too: for a byte, and for a step."""

_GPU_STEP, _GPU_LANE = 17e-6, 0.02e-6
"""Seconds that a step takes, and more for each lane: the mean of both directions."""

_GPU_START, _GPU_SEGMENT = 10.0, 0.1
"""Seconds until the first step in a process, and for what is made anew for each segment.

The start is 5 s where the kernels were compiled before and 20 to 26 s where they are used first.
"""

_LANES_A_THREAD = 16
_MOST_THREADS = 8


def is_sooner_on_cpu(model: ModelSettings, lanes: int, size: int, whole: int, *, begun: bool) -> bool:
    """Return whether CPUs are expected to be done with `whole` bytes sooner than a GPU, its start included.

    They are segments of `size` bytes in so many lanes; `begun` says that the process uses a GPU already.
    Without Triton no GPU can do it at all.
    """
    if importlib.util.find_spec("triton") is None:
        return True
    # Threads wait for each other in every step: four are twice as fast as one.
    byte = _CPU_BYTE + _CPU_CONTEXT * model.contexts + _CPU_RECURRENT * model.recurrent
    on_cpu = whole * byte / math.sqrt(threads_for(lanes))
    step = _GPU_STEP + _GPU_LANE * lanes + _GPU_RECURRENT * model.recurrent
    on_gpu = whole / lanes * step + whole / size * _GPU_SEGMENT
    return on_cpu <= on_gpu + (0.0 if begun else _GPU_START)


def threads_for(lanes: int) -> int:
    """Return how many threads share so many lanes on this machine's CPUs."""
    return max(1, min(processors(), lanes // _LANES_A_THREAD, _MOST_THREADS))


def processors() -> int:
    """Return how many processors this process may use, or what the user has set for numerical libraries."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
