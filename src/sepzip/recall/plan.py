"""What an encoder has found out about a segment: how its memory looks at the bytes."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COLUMNS_MOST", "Plan"]

COLUMNS_MOST = 1024
"""Records of fewer bytes have weights of the mixer for each of their columns."""


class Plan(NamedTuple):
    """How a segment's memory looks at its bytes; stored before the payload of the segment's first block.

    `contexts` is how many of the profile's are taken, a context's table has 2^`table_bits` slots. `record`
    is the bytes of a record or of an image's row, 0 without; `sample` those of a sample, 0 without, most
    significant first if `big_endian`. `calls` says that targets of x86 calls were made absolute.
    """

    profile: int
    contexts: int
    table_bits: int
    record: int = 0
    sample: int = 0
    big_endian: int = 0
    calls: int = 0

    @property
    def columns(self) -> int:
        """Columns that have weights of their own."""
        return self.record if self.record < COLUMNS_MOST else 0
