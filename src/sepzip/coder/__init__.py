"""The entropy coder: a range coder in which a group of lanes shares one state.

Its arithmetic is on integers below 2^63. `plain.py` is its meaning, on the host; `device.py` decodes
inside the model's step on the model's device; `fused.py` codes there in both directions, by kernels.
"""

from __future__ import annotations

__all__ = ["BLOCK_WORDS", "RANGE_FIRST", "RANGE_LEAST", "WORD_BITS", "coders_for"]

WORD_BITS = 24
"""The coder's output is words of this many bits."""

RANGE_LEAST = 1 << 38
"""A range below this takes in another word, so it is below 2^62 afterwards."""

RANGE_FIRST = 1 << 48
"""The range that a block starts with, of which the first two words are read."""

BLOCK_WORDS = 1 << 15
"""Words a coder after which a block ends: the 62 bits that its end may waste are then below 0.01 %."""


def coders_for(lanes: int, lanes_per_coder: int) -> int:
    """Return how many coder states serve `lanes` lanes; lane b belongs to coder b modulo that."""
    return -(-lanes // lanes_per_coder)
