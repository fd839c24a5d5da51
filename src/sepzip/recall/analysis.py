"""What an encoder finds out about a segment before it codes it: which plan makes a sample smallest.

Nothing here decides what decodes: a plan is stored. So floating point does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..presets import ModelSettings
from ..runs import CHUNK_STEPS
from .host import HostEncoding
from .native import count_differences
from .placement import processors
from .plan import MOST_RECORD, Plan

__all__ = ["choose_plan", "kind_of"]

_SAMPLE, _LONG_SAMPLE = 1 << 15, 1 << 17
"""Bytes that candidates are tried on; most bytes, a sixteenth of a segment, where that itself takes long."""

_FEW_CONTEXTS = 16
"""With so few a trial takes half as long, and tells records from samples after more bytes."""

_SAMPLE_PIECES = 4
"""Places from which these bytes are."""

_LONGEST_NUMBER = 8

_BLOCK = 1 << 17
"""Bytes that are searched at a time."""

_PIECES, _PIECE = 24, 1000
_RECORD_MOST = 8192
_TEXT, _PROGRAM, _RECORDS, _SAMPLES, _FLOATS, _GENOME, _TABLE, _MARKUP, _X86, _IN_PIECES = range(10)

_PRIMED_MOST = {
    _TEXT: 1 << 24,
    _MARKUP: 1 << 24,
    _PROGRAM: 1 << 22,
    _X86: 1 << 22,
    _TABLE: 1 << 22,
    _IN_PIECES: 1 << 22,
}
"""By profile, the bytes of a segment up to which reading the primer first can be worth its time: of the plan
that is best without."""


_BASES = b"ACGTNacgtn\r\n"
"""What a genome is made of."""

_LEAST_NUMBERS, _LEAST_SEARCHED = 1 << 18, 1 << 19
"""The fewest bytes of which records and samples are told apart, and in which long records are looked for."""

_LEAST_DENSE, _DENSE = 1 << 15, 7.0
"""The fewest bytes, and how many bits each has by itself, of what is packed or encrypted."""

_KINDS_OF_NUMBERS = (
    ("wide samples", _SAMPLES, 2),
    ("floats", _FLOATS, 0),
    ("records", _RECORDS, 0),
    ("samples", _SAMPLES, 1),
)
"""By name the profile and the samples of a plan; the first of them that could be best names the kind."""


def _difference_entropies(data: NDArray[np.uint8], most: int, pieces: int) -> NDArray[np.float64]:
    """Return the entropy, in bits, of the differences of bytes at each distance up to `most`."""
    counts = count_differences(data, most, pieces, _PIECE).astype(np.float64)
    shares = counts / counts[0].sum()
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    entropies: NDArray[np.float64] = -(shares * logarithms).sum(1)
    return entropies


def choose_plan(data: NDArray[np.uint8], model: ModelSettings, row: int = 0) -> Plan:
    """Return the plan under which a sample of the bytes, uint8, becomes smallest.

    `row` is the bytes of a row of pixels, where they are known to be such, or 0.
    """
    candidates = _candidates(data)
    if 3 <= row <= MOST_RECORD:
        candidates += [Plan(_RECORDS, row), Plan(_SAMPLES, row, sample=1)]
    if len(candidates) == 1 and not _may_read_primer(candidates[0], data):
        return candidates[0]
    # The more is seen, the surer what differs by little: enwik8's first four megabytes are text by 32 KiB
    # and markup by 128, which takes 0.5 % less.
    length = _SAMPLE if model.contexts > _FEW_CONTEXTS else 2 * _SAMPLE
    if model.recurrent:
        length = max(length, min(len(data) // 16, _LONG_SAMPLE))
    with ThreadPoolExecutor(min(len(candidates), processors())) as pool:
        sizes = list(pool.map(lambda plan: _size(_sample(data, length, plan), plan, model), candidates))
    size, plan = min(zip(sizes, candidates, strict=True), key=lambda tried: tried[0])
    primed = plan._replace(primer=1)
    if _may_read_primer(plan, data) and _size(_sample(data, length, plan), primed, model) < size:
        return primed
    return plan


def _sample(data: NDArray[np.uint8], length: int, plan: Plan) -> NDArray[np.uint8]:
    """Return `length` bytes of the data, or all of it, in pieces: its middle may be unlike the rest.

    Records and numbers go on over a piece's end as they do in the data: each piece begins whole ones of them
    behind the place that it has in the sample.
    """
    if len(data) <= length:
        return data
    step = math.lcm(_LONGEST_NUMBER, max(1, plan.record))
    piece = length // _SAMPLE_PIECES
    between = (len(data) - piece) // _SAMPLE_PIECES
    starts = [
        number * piece + max(0, number * between + between // 2 - number * piece) // step * step
        for number in range(_SAMPLE_PIECES)
    ]
    return np.concatenate([data[start : start + piece] for start in starts])


def _may_read_primer(plan: Plan, data: NDArray[np.uint8]) -> bool:
    """Return whether reading the primer first can be worth its time."""
    return len(data) <= _PRIMED_MOST.get(plan.profile, 0)


def _size(sample: NDArray[np.uint8], plan: Plan, model: ModelSettings) -> int:
    """Return the bytes that the sample takes under this plan."""
    # A recurrent network would take as long as all of the rest, and hardly choose otherwise.
    run = HostEncoding(plan, replace(model, recurrent=0), len(sample), 1, None, None)
    block = None
    for first in range(0, len(sample), CHUNK_STEPS):
        chunk = sample[first : first + CHUNK_STEPS]
        run.queue(chunk[:, None], 1, first + CHUNK_STEPS >= len(sample))
        block = run.collect()
    return len(block.payload) if block else 0


def kind_of(data: NDArray[np.uint8]) -> tuple[str, int] | None:
    """Return what kind of numbers or code this is, and the bytes of a record or 0: one plan suits all of it.

    None stands for all that is coded no worse among others: texts of all kinds, which have words in common,
    and what is of no kind. It is told without trying plans, for members of archives, of which there may be
    many.
    """
    spread = _Spread(data)
    if spread.is_text:
        return ("genome", 0) if spread.counts[list(_BASES)].sum() > 0.95 * spread.size else None
    if _calls(data):
        return "program", 0
    numbers = None
    if len(data) >= _LEAST_SEARCHED:
        numbers = _plans_of_numbers(data)
    elif len(data) >= _LEAST_NUMBERS:
        numbers = _plans_of_numbers(data, _RECORD_MOST // 8, _PIECES // 3)
    for name, profile, sample in _KINDS_OF_NUMBERS:
        for plan in numbers or []:
            if (plan.profile, plan.sample) == (profile, sample):
                return name, max(other.record for other in numbers or [])
    return ("dense", 0) if len(data) >= _LEAST_DENSE and _entropy(data) >= _DENSE else None


class _Spread:
    """How often each byte occurs in data, of which up to 128 KiB are looked at."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        sample = data[:: max(1, len(data) // (1 << 16))]
        self.size = len(sample)
        self.counts = counts = np.bincount(sample, minlength=256)
        printable = counts[32:127].sum() + counts[[9, 10, 13]].sum() + counts[128:].sum()
        self.control = counts[:32].sum() - counts[[9, 10, 13]].sum() + counts[127]
        self.is_text = bool(self.control <= 0.005 * self.size and counts[128:].sum() < 0.3 * printable)


def _candidates(data: NDArray[np.uint8]) -> list[Plan]:
    """Return the plans that could be best, by how bytes are spread and repeat."""
    spread = _Spread(data)
    if spread.is_text:
        text = [Plan(_TEXT), Plan(_MARKUP)]
        if spread.counts[10] * 1000 > spread.size:
            # Without lines a table's contexts say little.
            text.append(Plan(_TABLE))
        if _is_in_pieces(data):
            text.append(Plan(_IN_PIECES))
        letters = np.count_nonzero(spread.counts > spread.size // 200)
        return [Plan(_GENOME), *text] if letters <= 8 else text
    calls = _calls(data)
    # The middle of a program may be its data, which says little for instructions or against them.
    candidates = [Plan(_X86 if calls else _PROGRAM, calls=calls)]
    if spread.control <= 0.15 * spread.size:
        # An archive of texts has zeros between them.
        candidates.append(Plan(_MARKUP))
        if _is_in_pieces(data):
            candidates.append(Plan(_IN_PIECES))
    numbers = _plans_of_numbers(data)
    return [*candidates, Plan(_TEXT)] if numbers is None else candidates + numbers


def _plans_of_numbers(
    data: NDArray[np.uint8], longest: int = _RECORD_MOST, pieces: int = _PIECES
) -> list[Plan] | None:
    """Return the plans for records and samples that could be best, None where there is too little to say.

    They are told by so many pieces of the data, and records are at most `longest` bytes.
    """
    most = min(longest, len(data) // 8)
    if len(data) <= most + 2 * _PIECE:
        return None
    candidates = []
    pieces = min(pieces, max(1, (len(data) - most) // _PIECE - 1))
    entropies = _difference_entropies(data, most, pieces)
    record = _record(entropies, 3, 1)
    if record:
        candidates.append(Plan(_RECORDS, record))
        candidates.append(Plan(_SAMPLES, record, sample=1))
    if most >= 8 and entropies[8] < entropies[1] - 0.3:
        candidates.append(Plan(_FLOATS, 8))
    if entropies[1] < entropies[0] - 0.3:
        candidates.append(Plan(_SAMPLES, 0, sample=1))
    if entropies[2] < min(entropies[0], entropies[1]) - 0.4:
        even, odd = (_entropy(data[i::2]) for i in range(2))
        row = _record(entropies, 64, 2)
        for size in {0, row}:
            candidates.append(Plan(_SAMPLES, size, sample=2, big_endian=int(even < odd)))
    return candidates


def _record(entropies: NDArray[np.float64], least: int, step: int) -> int:
    """Return the distance at which differences say most, a multiple of `step`, or 0 if none says much."""
    distances = np.arange(least, len(entropies), step)
    if not len(distances):
        return 0
    scores = entropies[distances] * (1 + 4e-6 * distances)
    best = int(distances[scores.argmin()])
    for distance in range(least, best, step):
        # A divisor is the record itself where its multiple scores a little better by chance.
        if best % distance == 0 and entropies[distance] < entropies[best] * 1.01:
            best = distance
            break
    return best if entropies[best] <= entropies[0] - 0.3 else 0


def _entropy(data: NDArray[np.uint8]) -> float:
    counts = np.bincount(data[: 1 << 18], minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _is_in_pieces(data: NDArray[np.uint8]) -> bool:
    """Return whether as many numbers begin behind a parenthesis as in text that PDF sets with kerning."""
    found = 0
    for piece in _blocks(data, 1):
        following = piece[1:]
        begins = (following == ord("-")) | ((following >= ord("0")) & (following <= ord("9")))
        found += int(np.count_nonzero((piece[:-1] == ord(")")) & begins))
    return found * 40 > len(data)


def _calls(data: NDArray[np.uint8]) -> int:
    """Return what a plan says of x86 calls: 0 if there are fewer than in programs, 2 in code of 64 bits."""
    calls = 0
    for piece in _blocks(data, 4):
        calls += int(np.count_nonzero((piece[:-4] & 0xFE == 0xE8) & _is_end(piece[4:])))
    if calls * 400 <= len(data):
        return 0
    relative = 0
    for piece in _blocks(data, 6):
        # Loads of addresses and of what is there, relative to their place.
        loads = (piece[:-6] & 0xFB == 0x48) & ((piece[1:-5] == 0x8D) | (piece[1:-5] == 0x8B))
        relative += int(np.count_nonzero(loads & (piece[2:-4] & 0xC7 == 5) & _is_end(piece[6:])))
    return 2 if relative * 4000 > len(data) else 1


def _blocks(data: NDArray[np.uint8], further: int) -> Iterator[NDArray[np.uint8]]:
    """Return the data in blocks that a cache holds, and up to `further` bytes behind each of them."""
    for first in range(0, len(data), _BLOCK):
        yield data[first : first + _BLOCK + further]


def _is_end(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a small displacement of 32 bits may end."""
    ends: NDArray[np.bool_] = (data == 0) | (data == 255)
    return ends
