"""The bytes of a step's context, and what a table of a sigmoid embedding has for them, in kernels."""

from __future__ import annotations

import triton
import triton.language as tl

from . import elements

__all__ = ["load_symbols", "look_up"]


@triton.jit
def load_symbols(history, position, byte, lane, lanes, inside):
    """Return the context's bytes, int32, by their number from the oldest and their lane."""
    place = (tl.load(position) + byte) * lanes + lane
    return tl.load(history + place, mask=inside, other=0).to(tl.int32)


@triton.jit
def look_up(table, symbol, column, embedding, inside):
    """Return the embedded bytes: sigmoid(table) at each byte's row and the column."""
    return elements.sigmoid(tl.load(table + symbol * embedding + column, mask=inside, other=0.0))
