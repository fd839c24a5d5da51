"""Segments cut into lanes and put together again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sepzip.lanes import LaneJoiner, longer_lanes, split_lanes, steps_for


@given(st.binary(min_size=1, max_size=300), st.integers(1, 40), st.integers(1, 20))
def test_round_trip(data: bytes, lanes: int, chunk: int) -> None:
    lanes = min(lanes, len(data))
    matrix = split_lanes(np.frombuffer(data, np.uint8), lanes)
    assert matrix.shape == (steps_for(len(data), lanes), lanes)
    joiner = LaneJoiner(len(data), lanes)
    for first in range(0, len(matrix), chunk):
        joiner.add(matrix[first : first + chunk])
    assert joiner.data == data
    assert 1 <= longer_lanes(len(data), lanes) <= lanes


def test_lanes_are_runs_of_the_input() -> None:
    matrix = split_lanes(np.frombuffer(b"abcdefgh", np.uint8), 3)
    assert [bytes(lane) for lane in matrix.T] == [b"abc", b"def", b"gh\0"]
    assert longer_lanes(8, 3) == 2
