"""The recurrent network beside a memory's contexts, as arrays; recurrent.c says what it computes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .aligned import aligned_zeros
from .functions import finished

__all__ = [
    "LAYERS",
    "LEARNT",
    "UNITS",
    "WINDOW",
    "Recurrent",
    "RecurrentRecords",
    "new_recurrent",
    "new_recurrent_records",
]

UNITS = 64
"""Units of a layer."""

LAYERS = 2
WINDOW = 20
"""Steps between two updates of the units' weights, and as far as their gradients go back."""

WHOLE = 4096
"""What a weight of 1 is as a whole number."""

_FORGET_FIRST = 1.0
"""What the sum of a forget gate begins with: most of a unit's state is kept."""

_ROW_SPAN = 0.3125
_UNIT_SPANS = (0.125, 0.09375)


class Recurrent(NamedTuple):
    """Weights and states. A gate's sum is a row for the lane's last byte, and weights of a layer's inputs.

    `row_*` are [layers, 256, gates], `unit_*` [layers, inputs, gates], `node_*` [256, outputs]: weights,
    float32; their mean squared gradients, float32; weights in 4096ths, int16. Gates are a layer's forget
    gates, its output gates, its candidates; inputs are its own outputs and those of the layer below.
    `outputs`, int16 [lanes, outputs], in 512ths; `states`, int32 [lanes, layers, units], in 2^-15. The rest
    is of a window: bytes and inputs of this and the one before, uint8 [2, steps, lanes] and int16
    [2, steps, lanes, layers, inputs]; gates and states before and after, int16 [2, steps, lanes, layers, 5,
    units]. Of one window are slopes of the outputs, int32 [steps, lanes, outputs], and of the gates' sums,
    int16 [steps, lanes, layers, gates].
    """

    row_weights: NDArray[np.float32]
    row_squares: NDArray[np.float32]
    row_whole: NDArray[np.int16]
    unit_weights: NDArray[np.float32]
    unit_squares: NDArray[np.float32]
    unit_whole: NDArray[np.int16]
    node_weights: NDArray[np.float32]
    node_squares: NDArray[np.float32]
    node_whole: NDArray[np.int16]
    outputs: NDArray[np.int16]
    states: NDArray[np.int32]
    window_bytes: NDArray[np.uint8]
    window_inputs: NDArray[np.int16]
    window_gates: NDArray[np.int16]
    window_slopes: NDArray[np.int32]
    window_deltas: NDArray[np.int16]


LEARNT = Recurrent._fields[:9]
"""What lanes share, and what stays after a primer."""


class RecurrentRecords(NamedTuple):
    """A host's room, laid out for vectors, which multiply pairs and add the two products.

    The units' weights are here by pairs of inputs, [layers, inputs / 2, gates, 2], and by pairs of gates,
    those of a layer's own outputs before those of the layer below, [layers, 2, gates / 2, units, 2]. Slopes
    of the gates' sums are here by pairs of steps, [layers, steps / 2, lanes, gates, 2]. Then there are a
    step's logits, [lanes, 8], gradients of nodes in the order in which a step meets these, [256, outputs],
    and the nodes.
    """

    unit_forward: NDArray[np.int16]
    unit_back: NDArray[np.int16]
    delta_pairs: NDArray[np.int16]
    logits: NDArray[np.int32]
    node_gradient: NDArray[np.int32]
    touched: NDArray[np.int32]


def new_recurrent(lanes: int) -> Recurrent:
    """Return the network before its first byte."""
    gates, inputs, outputs = 3 * UNITS, 2 * UNITS, LAYERS * UNITS
    rows = _spread((LAYERS, 256, gates), 1) * np.float32(_ROW_SPAN)
    rows[:, :, :UNITS] += np.float32(_FORGET_FIRST)
    units = _spread((LAYERS, inputs, gates), 2) * np.array(_UNIT_SPANS, np.float32)[:, None, None]
    # There is nothing below the first layer.
    units[0, UNITS:] = 0
    nodes = np.zeros((256, outputs), np.float32)
    return Recurrent(
        rows,
        np.zeros_like(rows),
        _whole(rows),
        units,
        np.zeros_like(units),
        _whole(units),
        nodes,
        np.zeros_like(nodes),
        _whole(nodes),
        outputs=np.zeros((lanes, outputs), np.int16),
        states=np.zeros((lanes, LAYERS, UNITS), np.int32),
        window_bytes=np.zeros((2, WINDOW, lanes), np.uint8),
        window_inputs=np.zeros((2, WINDOW, lanes, LAYERS, inputs), np.int16),
        window_gates=np.zeros((2, WINDOW, lanes, LAYERS, 5, UNITS), np.int16),
        window_slopes=np.zeros((WINDOW, lanes, outputs), np.int32),
        window_deltas=np.zeros((WINDOW, lanes, LAYERS, gates), np.int16),
    )


def new_recurrent_records(recurrent: Recurrent) -> RecurrentRecords:
    """Return a host's room for this network."""
    lanes, outputs = recurrent.outputs.shape
    whole = recurrent.unit_whole
    layers, _, gates = whole.shape
    return RecurrentRecords(
        _aligned(whole.reshape(layers, -1, 2, gates).transpose(0, 1, 3, 2)),
        _aligned(whole.reshape(layers, 2, UNITS, gates // 2, 2).transpose(0, 1, 3, 2, 4)),
        aligned_zeros((layers, WINDOW // 2, lanes, gates, 2), np.int16),
        logits=np.zeros((lanes, 8), np.int32),
        node_gradient=np.zeros((256, outputs), np.int32),
        touched=np.zeros(256, np.int32),
    )


def _aligned(array: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return a copy of an array that begins where a line of a processor's cache does."""
    copy: NDArray[np.int16] = aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy


def _spread(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return numbers of [-1, 1), multiples of 2^-15 that look random."""
    number = np.arange(int(np.prod(shape)), dtype=np.uint32) + np.uint32(seed << 24)
    whole = (finished(number) >> np.uint32(16)).astype(np.float32) - np.float32(32768)
    return (whole * np.float32(2.0**-15)).reshape(shape)


def _whole(weights: NDArray[np.float32]) -> NDArray[np.int16]:
    whole: NDArray[np.int16] = np.rint(weights * np.float32(WHOLE)).astype(np.int16)
    return whole
