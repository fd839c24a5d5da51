"""The primer: a text that a memory reads before its segment, for what a small file cannot teach it.

It has words, phrases and forms of common texts, markup, data and programs, and is part of the format. One
lane reads it, and what lanes share stays: slots, maps, corrections and weights. Of matches nothing stays,
for the primer is not among the bytes of the lanes.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coder.binary import new_coders
from .native import BoundSegment
from .plan import Plan, Settings, uses_of
from .recurrent import LEARNT
from .sizes import PRIMER_SIZE
from .state import PAD, Memory, arrays_of, new_memory, new_records

__all__ = ["first_memory", "primer"]

_SHARED = (
    "slots",
    "cells",
    "cell_stretch",
    "lengths",
    "apm",
    "weights",
    "final_weights",
    "followed_two",
)
_STEPS_A_CALL = 1 << 12
_KEPT_MOST = 1 << 25
"""Bytes of tables up to which what was learnt is kept for the next segment."""


@cache
def primer() -> NDArray[np.uint8]:
    """Return the primer, uint8 [PRIMER_SIZE]."""
    data = np.frombuffer(Path(__file__).with_name("primer.txt").read_bytes(), np.uint8)
    if len(data) != PRIMER_SIZE:
        raise RuntimeError("primer.txt was changed: install sepzip again")
    return data


def first_memory(plan: Plan, settings: Settings, size: int, lanes: int) -> Memory:
    """Return the memory with which a segment of `size` bytes in so many lanes begins."""
    memory = new_memory(plan, settings, size, lanes)
    if not plan.primer:
        return memory
    if memory.slots.nbytes > _KEPT_MOST:
        return _with(memory, _read(plan, settings))
    arrays = arrays_of(memory)
    for name, learnt in _kept(plan, settings).items():
        np.copyto(arrays[name], learnt)
    return memory


def _with(memory: Memory, learnt: dict[str, NDArray[Any]]) -> Memory:
    """Return the memory with these arrays in place of its own."""
    recurrent = memory.recurrent
    if recurrent is not None:
        recurrent = recurrent._replace(**{name: learnt.pop(name) for name in LEARNT})
    return Memory(**(memory._asdict() | learnt | {"recurrent": recurrent}))


def _read(plan: Plan, settings: Settings) -> dict[str, NDArray[Any]]:
    """Return the arrays that lanes share as they are after the primer."""
    reader = new_memory(plan, settings, PRIMER_SIZE, 1)
    reader.history[0, PAD:] = primer()
    coder = new_coders(1, _STEPS_A_CALL)
    first = coder.at.copy()
    bound = BoundSegment(reader, new_records(settings, 1), settings, uses_of(plan), coder, False)
    for step in range(0, PRIMER_SIZE, _STEPS_A_CALL):
        # What would be coded is of no use.
        coder.at[:] = first
        bound.run(step, min(_STEPS_A_CALL, PRIMER_SIZE - step), 1)
    arrays = arrays_of(reader)
    return {name: array for name, array in arrays.items() if name in _SHARED or name in LEARNT}


_kept = lru_cache(maxsize=1)(_read)
