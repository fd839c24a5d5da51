"""How large a memory's tables are."""

from __future__ import annotations

from ..presets import ModelSettings

__all__ = ["PRIMER_SIZE", "TABLE_BITS_LEAST", "table_bits"]

PRIMER_SIZE = 48601
"""Bytes of the primer (primer.py)."""

TABLE_BITS_LEAST = 12


def table_bits(model: ModelSettings, size: int) -> int:
    """Return how many bits number the slots of a context's table, for `size` bytes in all."""
    return min(max((size - 1).bit_length() + 1, TABLE_BITS_LEAST), model.table_bits)
