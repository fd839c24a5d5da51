"""Where a lane's last bytes were before, and the byte that followed them."""

from __future__ import annotations

import triton
import triton.language as tl

from ...state import LANE_LENGTH, LANE_MATCH, VERIFIED
from .hashes import finished

__all__ = ["begin_match", "end_match", "go_on_with_match"]

_LANE_MATCH = tl.constexpr(LANE_MATCH)
_LANE_LENGTH = tl.constexpr(LANE_LENGTH)
_VERIFIED = tl.constexpr(VERIFIED)


# What a match waits for is looked up in three turns, between which the caller looks up other things.
@triton.jit
def begin_match(
    history,
    row,
    state,
    matches,
    multipliers,
    match_mask,
    step,
    lanes,
    pitch,
    KIND: tl.constexpr,
    LEAST: tl.constexpr,
):
    """Look up the lane's match of a kind, the byte there, and where else its bytes before `step` were.

    `history` points to the first lane's byte 0, and `matches` to the kind's table.
    """
    at = tl.load(state + _LANE_MATCH + KIND).to(tl.int32)
    length = tl.load(state + _LANE_LENGTH + KIND).to(tl.int32)
    i = tl.arange(0, _VERIFIED)
    # The zeros before a lane's first byte are as many as are looked at.
    own = tl.load(row + (step - 1) - i).to(tl.int32)
    factor = tl.load(multipliers + i)
    total = tl.sum(tl.where(i < LEAST, (own + 1).to(tl.uint32) * factor, 0), 0)
    place = (finished(total.to(tl.uint32)) & match_mask).to(tl.int32)
    looks = step >= LEAST
    found = tl.load(matches + place, mask=looks, other=0) - 1
    there = history + (at % lanes).to(tl.int64) * pitch + at // lanes
    seen = tl.load(there, mask=length > 0, other=0).to(tl.int32)
    return at, length, own, found, seen, tl.where(looks, place, -1)


@triton.jit
def go_on_with_match(history, begun, step, lanes, pitch, last):
    """Move the match past the byte before `step`, or look up the bytes where there may be another."""
    at, length, own, found, seen, place = begun
    end = step * lanes
    i = tl.arange(0, _VERIFIED)
    had = length > 0
    right = had & (seen == last)
    length = tl.where(right, tl.minimum(length + 1, 65535), 0)
    at = tl.where(had, at + lanes, at)
    length = tl.where(at >= end, 0, length)
    missed = had & (seen != last) & (at < end)
    matched = tl.load(
        history + (at % lanes).to(tl.int64) * pitch + at // lanes, mask=had & (at < end), other=0
    ).to(tl.int32)

    looks = (length == 0) & (found >= 0)
    other = tl.maximum(found, 0) % lanes
    before = tl.maximum(found, 0) // lanes
    most = tl.minimum(before, step)
    candidate = history + other.to(tl.int64) * pitch + before
    there = tl.load(candidate - 1 - i, mask=looks & (i < most), other=0).to(tl.int32)
    following = tl.load(candidate, mask=looks, other=0).to(tl.int32)
    equal = (there == own) & (i < most)
    return at, length, missed, matched, looks, found, equal, following, place


@triton.jit
def end_match(match_places, moved, KIND: tl.constexpr, LEAST: tl.constexpr):
    """Return where the match is and its length, which the caller stores, and the byte there.

    With the other two functions the twin of follow_matches.
    """
    at, length, missed, matched, looks, found, equal, following, place = moved
    same = tl.min(tl.where(equal, _VERIFIED, tl.arange(0, _VERIFIED)), 0)
    takes = looks & (same >= min(LEAST, 16))
    recovers = (length == 0) & (takes == 0) & missed
    at = tl.where(takes, found, at)
    length = tl.where(takes, same, tl.where(recovers, 1, length))
    tl.store(match_places + KIND, place)
    return at, length, tl.where(takes, following, matched)
