"""All that a memory holds from step to step, as arrays; a step's own records are in `Records`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..lanes import longer_lanes, steps_for
from .aligned import aligned_zeros
from .functions import SQUASH_MOST, functions
from .instructions import instructions
from .plan import Plan, Settings
from .profiles import INPUTS, MULTIPLIERS, PROFILES, masks
from .recurrent import Recurrent, new_recurrent

__all__ = [
    "FINGERPRINTED",
    "Memory",
    "Records",
    "arrays_of",
    "fingerprint",
    "fingerprint_of",
    "new_memory",
    "new_records",
]

MATCHES = 2
MATCH_LEAST = (5, 32)
"""Bytes that a match of each kind has at least."""

VERIFIED = 32
"""Bytes before a match that are compared, at most."""

PAD = 32
"""Zeros before a lane's first byte."""

CELLS = 13 * 4 * 64
"""Cells of a context's map: 13 classes of a slot's count, its last two bits, 64 classes of what it says."""

CLASS_WIDTH = 72
"""Width of each of those 64 classes, stretched; half of them are below 0."""

SLOT_COUNT_MOST = 127
RECENT = 23
"""A slot's last two bits begin here, the newer below; a count of 7 bits is below them, from bit 16 on."""

CELL_BITS = 22
CELL_COUNT_BITS = 10
CELL_COUNT_MOST = 1023
LENGTHS = 24
APM_CONTEXTS = 1 << 16
APM_POINTS = 33
APM_STEP = 176
APM_COUNT_MOST = 255
APM_COUNT_FIRST = 6
SETS = 4
FINALS = 2
ROWS = 256
CHOICE_ROWS = 6 * ROWS
"""Rows of the mixer's weights before those of the fourth set: the third one's are four times 256."""

KINDS = 7
"""Kinds of bytes; those of the last three choose the fourth set's weights where records' columns do not."""

MATCH_BITS_MOST = 22
MATCH_BITS_LEAST = 12

NAMES = 16
"""Open elements of markup whose names a lane keeps."""

COLUMNS = 32
"""Fields of a line of which a lane keeps where the line above has them."""

LANE_NUMBERS = 13 + 10 + NAMES + 8 + 2 * COLUMNS + 7
(
    LANE_WORD,
    LANE_WORD_1,
    LANE_WORD_2,
    LANE_LINE,
    LANE_LINE_BEFORE,
    LANE_MATCH,
    LANE_LENGTH,
    LANE_ERROR,
    LANE_LINE_2,
    LANE_BEGINNING,
    LANE_GAPS,
) = (0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12)
(
    LANE_LETTERS,
    LANE_SPOKEN,
    LANE_SPOKEN_1,
    LANE_ESCAPED,
    LANE_DIGITS,
    LANE_INSIDE,
    LANE_SIGNS,
    LANE_SIGNS_LONG,
    LANE_TAGGING,
    LANE_DEPTH,
    LANE_NAME,
) = range(13, 24)
(
    LANE_FIELD,
    LANE_FIELD_START,
    LANE_FIELD_ABOVE,
    LANE_FIELD_ABOVE_END,
    LANE_TOKEN,
    LANE_TOKEN_ABOVE,
    LANE_SHAPE,
    LANE_PARAGRAPH,
    LANE_FIELD_STARTS,
) = range(LANE_NAME + NAMES, LANE_NAME + NAMES + 9)
LANE_TOKENS = LANE_FIELD_STARTS + COLUMNS
(
    LANE_CODE,
    LANE_PART,
    LANE_CODE_1,
    LANE_CODE_2,
    LANE_CODE_3,
    LANE_OPCODES,
    LANE_OPERAND,
) = range(LANE_TOKENS + COLUMNS, LANE_NUMBERS)
CODES = 4096
"""Parts of instructions, by their hash, of which a lane keeps what followed."""

TAPS = 16
PREDICTIONS = 9


class Memory(NamedTuple):
    """A segment's memory; `new_memory` says what shapes they have."""

    stretch: NDArray[np.int16]
    squash: NDArray[np.int32]
    root: NDArray[np.int32]
    reciprocal: NDArray[np.int64]
    multipliers: NDArray[np.uint32]
    masks: NDArray[np.uint32]
    used: NDArray[np.int32]
    classes: NDArray[np.int32]
    kinds: NDArray[np.int32]
    instructions: NDArray[np.int32]
    slots: NDArray[np.uint32]
    cells: NDArray[np.uint32]
    cell_stretch: NDArray[np.int16]
    lengths: NDArray[np.uint32]
    apm: NDArray[np.uint32]
    weights: NDArray[np.int32]
    final_weights: NDArray[np.int32]
    history: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lane: NDArray[np.int64]
    followed_one: NDArray[np.uint16]
    followed_two: NDArray[np.uint16]
    followed_code: NDArray[np.uint16]
    matches: NDArray[np.int32]
    taps: NDArray[np.int32]
    tap_values: NDArray[np.int32]
    predictions: NDArray[np.int32]
    recurrent: Recurrent | None


def arrays_of(memory: Memory) -> dict[str, NDArray[Any]]:
    """Return all arrays of a memory by name, those of its recurrent network too."""
    arrays: dict[str, Any] = memory._asdict()
    recurrent = arrays.pop("recurrent")
    return arrays if recurrent is None else arrays | recurrent._asdict()


class Records(NamedTuple):
    """What the prediction of a step leaves for learning from it, for every lane; and room for sums."""

    places: NDArray[np.int32]
    checks: NDArray[np.int32]
    inputs: NDArray[np.int32]
    used_cells: NDArray[np.int32]
    used_lengths: NDArray[np.int32]
    used_points: NDArray[np.int32]
    rows: NDArray[np.int32]
    errors: NDArray[np.int32]
    outputs: NDArray[np.int32]
    match_places: NDArray[np.int32]
    slot_counts: NDArray[np.int32]
    cell_counts: NDArray[np.int32]
    length_counts: NDArray[np.int32]
    apm_counts: NDArray[np.int32]
    followers: NDArray[np.int32]
    touched: NDArray[np.int32]
    gradient: NDArray[np.int32]
    row_counts: NDArray[np.int32]
    final_gradient: NDArray[np.int64]
    final_counts: NDArray[np.int32]


def new_memory(plan: Plan, settings: Settings, size: int, lanes: int) -> Memory:
    """Return the memory of a segment of `size` bytes in so many lanes, with nothing seen.

    `slots` is [contexts, buckets, 16]: a bucket's check and, where one claims it in this step, 65535 less the
    claim's number above; then 15 slots: a probability with 2^15 exchanged, above it a count, and the last two
    bits that were seen. All else that learns as a frequency is that and a count in one number.
    """
    contexts = settings.contexts
    known = masks(plan.profile, contexts)
    tables = functions()
    steps = steps_for(size, lanes)
    longer = longer_lanes(size, lanes)
    numbers = np.arange(lanes)
    middle = ((np.arange(CELLS) & 63) - 32) * CLASS_WIDTH + CLASS_WIDTH // 2
    centre = tables.squash[middle + SQUASH_MOST + 1].astype(np.int64) << CELL_BITS - 16
    cells = np.tile(centre << CELL_COUNT_BITS, (contexts, 1)).astype(np.uint32)
    lengths = np.array([(1 << CELL_BITS) - 1 - ((1 << CELL_BITS) - 1) // (i + 3) for i in range(LENGTHS)])
    points = tables.squash[(np.arange(APM_POINTS) - APM_POINTS // 2) * APM_STEP + SQUASH_MOST + 1]
    apm = np.tile((points.astype(np.int64) << 16 | APM_COUNT_FIRST).astype(np.uint32), (2, APM_CONTEXTS, 1))
    match_bits = min(max(steps * lanes - 1, 1).bit_length() + 1, MATCH_BITS_MOST)
    taps = np.zeros((lanes, TAPS), np.int32)
    if plan.record and plan.sample == 1:
        taps[:, :2] = 32768
    else:
        taps[:, 0] = 65536
    return Memory(
        *tables,
        MULTIPLIERS,
        known.fields,
        known.used,
        _classes(),
        _kinds(),
        instructions(),
        # None of the buckets of 64 bytes lies in two lines of a cache.
        slots=aligned_zeros((contexts, 1 << (settings.table_bits - 4), 16), np.uint32),
        cells=cells,
        cell_stretch=np.tile(tables.stretch[(centre >> 10)], (contexts, 1)),
        lengths=np.tile(lengths << CELL_COUNT_BITS, (MATCHES, 1)).astype(np.uint32),
        apm=apm,
        weights=np.full((_rows(settings), INPUTS), 131072 // (contexts + 2), np.int32),
        final_weights=np.full((ROWS + _choices(settings), SETS), 65536 // SETS, np.int32),
        history=np.zeros((lanes, PAD + steps), np.uint8),
        starts=numbers * steps - np.maximum(numbers - longer, 0),
        lane=np.zeros((lanes, LANE_NUMBERS), np.int64),
        followed_one=np.zeros((lanes, 256), np.uint16),
        followed_two=np.zeros(65536, np.uint16),
        followed_code=np.zeros((lanes, CODES if PROFILES[plan.profile].uses_instructions else 1), np.uint16),
        matches=np.zeros((MATCHES, 1 << max(match_bits, MATCH_BITS_LEAST)), np.int32),
        taps=taps,
        tap_values=np.zeros((lanes, TAPS), np.int32),
        predictions=np.zeros((lanes, PREDICTIONS), np.int32),
        recurrent=new_recurrent(lanes) if settings.recurrent else None,
    )


def _classes() -> NDArray[np.int32]:
    """Return the first cell of each count and last two bits of a slot, int32 [512]."""
    recent, counts = np.divmod(np.arange(4 * (SLOT_COUNT_MOST + 1)), SLOT_COUNT_MOST + 1)
    classes = np.where(counts < 8, counts, 8 + np.searchsorted((15, 31, 63, 126), counts))
    return ((classes * 4 + recent) * 64).astype(np.int32)


def _kinds() -> NDArray[np.int32]:
    """Return the kind of each byte, int32 [256]."""
    byte = np.arange(256)
    small = byte | 32
    conditions = (
        byte == ord(" "),
        (small >= ord("a")) & (small <= ord("z")),
        (byte >= ord("0")) & (byte <= ord("9")),
        byte >= 128,
        byte < 32,
        byte < 48,
    )
    return np.select(conditions, range(KINDS - 1), KINDS - 1).astype(np.int32)


def _rows(settings: Settings) -> int:
    """Return how many rows of weights the mixer has."""
    return CHOICE_ROWS + 8 * _choices(settings)


def _choices(settings: Settings) -> int:
    """Return how many choices the fourth set and the second of the last mixers have."""
    return max(settings.columns, KINDS**3)


def new_records(settings: Settings, lanes: int) -> Records:
    """Return room for the records of a step."""
    contexts, rows = settings.contexts, _rows(settings)
    return Records(
        places=np.zeros((lanes, 2, contexts), np.int32),
        checks=np.zeros((lanes, 2, contexts), np.int32),
        inputs=np.zeros((lanes, 8, INPUTS), np.int32),
        used_cells=np.zeros((lanes, 8, contexts), np.int32),
        used_lengths=np.zeros((lanes, 8, MATCHES), np.int32),
        used_points=np.zeros((lanes, 8, 2), np.int32),
        rows=np.zeros((lanes, 8, SETS), np.int32),
        errors=np.zeros((lanes, 8, SETS + FINALS), np.int32),
        outputs=np.zeros((lanes, 8, SETS), np.int32),
        match_places=np.zeros((lanes, MATCHES), np.int32),
        slot_counts=np.zeros((contexts, 2 * lanes, 16), np.int32),
        cell_counts=np.zeros((contexts, CELLS), np.int32),
        length_counts=np.zeros((MATCHES, LENGTHS), np.int32),
        apm_counts=np.zeros((2, APM_CONTEXTS * APM_POINTS), np.int32),
        followers=np.zeros(65536, np.int32),
        touched=np.zeros((contexts + SETS + 2, 16 * lanes), np.int32),
        gradient=np.zeros((rows, INPUTS), np.int32),
        row_counts=np.zeros(rows, np.int32),
        final_gradient=np.zeros((ROWS + _choices(settings), SETS), np.int64),
        final_counts=np.zeros(ROWS + _choices(settings), np.int32),
    )


FINGERPRINTED = ("weights", "final_weights", "cells", "lengths")
"""The arrays of a memory that a fingerprint is made of: all else moves them."""


def fingerprint(memory: Memory) -> int:
    """Return 32 bits that depend on every bit of the mixer's weights and of the maps."""
    return fingerprint_of(getattr(memory, name) for name in FINGERPRINTED)


def fingerprint_of(parts: Iterable[NDArray[Any]]) -> int:
    """Return the fingerprint of a memory with these arrays."""
    total = 0
    for part in parts:
        values = part.reshape(-1).astype(np.int64)
        odd = 2 * np.arange(len(values)) + 1
        # It wraps modulo 2^64, as every sum of integers here does, in any order.
        total = (total * 0x9E3779B1 + int((values * odd).sum())) & 0xFFFFFFFFFFFFFFFF
    return (total ^ total >> 32) & 0xFFFFFFFF
