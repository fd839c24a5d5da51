"""The recurrent network beside a memory's contexts: the twin of recurrent.c."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from ...exact.kernels.elements import follow, from_bits, size_bits, whole_number
from ..functions import SQUASH_MOST
from ..recurrent import LAYERS, UNITS, WHOLE, WINDOW
from ..state import PAD

__all__ = ["FORWARD_WARPS", "LEARN_WARPS", "forward_kernel", "learn_kernel", "learn_programs", "take_slopes"]

FORWARD_WARPS, LEARN_WARPS = 16, 4

_UNITS = tl.constexpr(UNITS)
_LAYERS = tl.constexpr(LAYERS)
_GATES = tl.constexpr(3 * UNITS)
_INPUTS = tl.constexpr(2 * UNITS)
_OUTPUTS = tl.constexpr(LAYERS * UNITS)
_WINDOW = tl.constexpr(WINDOW)
_KEPT = tl.constexpr(5)
_PAD = tl.constexpr(PAD)
_SQUASH_MOST = tl.constexpr(SQUASH_MOST)
_LOGIT_MOST = tl.constexpr(2303)
_ONE = tl.constexpr(1 << 15)
_SLOPE_MOST = tl.constexpr((1 << 15) - 1)
_DELTA_MOST = tl.constexpr(8191)
_NODES_A_PROGRAM = tl.constexpr(8)
_NODE_PROGRAMS = tl.constexpr(256 // _NODES_A_PROGRAM.value)
_INPUT_PROGRAMS = tl.constexpr((2 * LAYERS - 1) * UNITS)
_PLACES = tl.constexpr(16)
_WIDE = tl.constexpr(1 << (3 * UNITS - 1).bit_length())

_KEEP = tl.constexpr(float(np.float32(0.999)))
_TAKE = tl.constexpr(float(np.float32(1) - np.float32(0.999)))
_RATE = tl.constexpr(0.004)
_NODE_RATE = tl.constexpr(0.006)
_LEAST_UNIT = tl.constexpr(700000.0)
_LEAST_NODE = tl.constexpr(44000.0)
_WEIGHT_MOST = tl.constexpr(4.0)
_WHOLE = tl.constexpr(float(WHOLE))


def learn_programs() -> int:
    """Return how many programs `learn_kernel` has: for nodes, for a layer's inputs, for bytes."""
    return int(_NODE_PROGRAMS.value + _INPUT_PROGRAMS.value + 256)


@triton.jit
def _bounded(x, MOST: tl.constexpr):
    return tl.minimum(tl.maximum(x, -MOST), MOST)


@triton.jit
def _fifteenth(x):
    """Return x / 2^15, rounded to nearest."""
    return (x + (1 << 14)) >> 15


@triton.jit
def take_slopes(totals, window_slopes, window_places, lane, lanes):
    """Make a lane's slopes of its outputs, in 2^-14, of sums of errors times weights, if it is one."""
    if lane < lanes:
        output = tl.arange(0, _OUTPUTS)
        at = totals + lane * _OUTPUTS + output
        total = tl.load(at)
        tl.store(at, output * 0)
        place = tl.load(window_places + lane) * lanes + lane
        tl.store(window_slopes + place * _OUTPUTS + output, (total + 512) >> 10)


@triton.jit
def _moved(gradient, weight, square, rate, least):
    """Return a weight, its mean square and the whole number for it after a gradient; twin of move."""
    g = gradient.to(tl.float32)
    square = square * _KEEP + (g * g + least) * _TAKE
    half = square * 0.5
    y = from_bits(0x5F3759DF - (size_bits(square) >> 1))
    y = y * (1.5 - half * y * y)
    weight = weight + (g * rate) * y
    weight = tl.minimum(tl.maximum(weight, -_WEIGHT_MOST), _WEIGHT_MOST)
    return weight, square, whole_number(weight, _WHOLE).to(tl.int16)


@triton.jit
def _times(matrix, vector):
    """Return the sums of int16 [units, units] weights, at these addresses, times values, by column."""
    return tl.sum(tl.load(matrix).to(tl.int32) * vector[:, None], 0)


@triton.jit
def _by_row(weight, vector):
    """Return the sums of int16 [rows, units] weights times values, by row."""
    return tl.sum(weight.to(tl.int32) * vector[None, :], 1)


@triton.jit
def _go_back_layer(gates, deltas, own, later, cell):
    """Go back a step in a layer; returns the slopes of the sums of its gates, and by its states before."""
    unit = tl.arange(0, _UNITS)
    f = tl.load(gates + unit).to(tl.int32)
    o = tl.load(gates + _UNITS + unit).to(tl.int32)
    g = tl.load(gates + 2 * _UNITS + unit).to(tl.int32)
    before = tl.load(gates + 3 * _UNITS + unit).to(tl.int32)
    after = tl.load(gates + 4 * _UNITS + unit).to(tl.int32)
    slope = _bounded(own + later, _SLOPE_MOST)
    by_output = _fifteenth(_fifteenth(slope * after) * _fifteenth(o * (_ONE - o)))
    c = _bounded(cell + _fifteenth(slope * o), _SLOPE_MOST)
    by_forget = (c * ((before - g) >> 1) + (1 << 13)) >> 14
    by_forget = _fifteenth(by_forget * _fifteenth(f * (_ONE - f)))
    by_candidate = _fifteenth(_fifteenth(c * (_ONE - f)) * (_ONE - _fifteenth(g * g)))
    cell = _fifteenth(c * f)
    by_forget = _bounded(by_forget, _DELTA_MOST)
    by_output = _bounded(by_output, _DELTA_MOST)
    by_candidate = _bounded(by_candidate, _DELTA_MOST)
    tl.store(deltas + unit, by_forget.to(tl.int16))
    tl.store(deltas + _UNITS + unit, by_output.to(tl.int16))
    tl.store(deltas + 2 * _UNITS + unit, by_candidate.to(tl.int16))
    return by_forget, by_output, by_candidate, cell


@triton.jit
def _slope_of_inputs(forget, output, candidate, by_forget, by_output, by_candidate):
    """Return the slopes by a layer's inputs of those of its gates, by three matrices of weights."""
    total = _by_row(forget, by_forget) + _by_row(output, by_output) + _by_row(candidate, by_candidate)
    return (total + 2048) >> 12


@triton.jit
def _go_back(unit_whole, window_gates, window_slopes, window_deltas, lane, lanes):
    """Find the slopes of the gates' sums over a lane's last window; twin of go_back."""
    unit = tl.arange(0, _UNITS)
    later_0, later_1 = unit * 0, unit * 0
    cell_0, cell_1 = unit * 0, unit * 0
    # Each layer's own, and what the second one reads of the first.
    at = unit_whole + unit[:, None] * _GATES + unit[None, :]
    own_f, own_o, own_g = tl.load(at), tl.load(at + _UNITS), tl.load(at + 2 * _UNITS)
    at += _INPUTS * _GATES
    next_f, next_o, next_g = tl.load(at), tl.load(at + _UNITS), tl.load(at + 2 * _UNITS)
    at += _UNITS * _GATES
    down_f, down_o, down_g = tl.load(at), tl.load(at + _UNITS), tl.load(at + 2 * _UNITS)
    for back in range(_WINDOW):
        place = (_WINDOW - 1 - back) * lanes + lane
        slopes = window_slopes + place * _OUTPUTS + unit
        gates = window_gates + place * (_LAYERS * _KEPT * _UNITS)
        deltas = window_deltas + place * (_LAYERS * _GATES)
        own_0, own_1 = tl.load(slopes), tl.load(slopes + _UNITS)
        f, o, g, cell_1 = _go_back_layer(gates + _KEPT * _UNITS, deltas + _GATES, own_1, later_1, cell_1)
        later_1 = _slope_of_inputs(next_f, next_o, next_g, f, o, g)
        own_0 += _slope_of_inputs(down_f, down_o, down_g, f, o, g)
        tl.store(slopes, own_0)
        f, o, g, cell_0 = _go_back_layer(gates, deltas, own_0, later_0, cell_0)
        later_0 = _slope_of_inputs(own_f, own_o, own_g, f, o, g)


@triton.jit
def _sum_of_gate(row, matrix, own, below, LAYER: tl.constexpr):
    """Return the sums of a kind of gates."""
    total = tl.load(row).to(tl.int32) * 512 + _times(matrix, own)
    if LAYER:
        total += _times(matrix + _UNITS * _GATES, below)
    return total


@triton.jit
def _forward_layer(squash, row, matrix, states, inputs, gates, before, own, below, LAYER: tl.constexpr):
    """Take a byte into a layer; returns its new outputs."""
    unit = tl.arange(0, _UNITS)
    at = matrix + unit[:, None] * _GATES + unit[None, :]
    row += unit
    forget = _sum_of_gate(row, at, own, below, LAYER)
    output = _sum_of_gate(row + _UNITS, at + _UNITS, own, below, LAYER)
    candidate = _sum_of_gate(row + 2 * _UNITS, at + 2 * _UNITS, own, below, LAYER)
    f = tl.load(squash + _bounded(forget >> 13, _SQUASH_MOST) + _SQUASH_MOST + 1) >> 1
    o = tl.load(squash + _bounded(output >> 13, _SQUASH_MOST) + _SQUASH_MOST + 1) >> 1
    g = tl.load(squash + _bounded(candidate >> 12, _SQUASH_MOST) + _SQUASH_MOST + 1) - _ONE
    after = (before * f + (_ONE - f) * g) >> 15
    tl.store(inputs + unit, own.to(tl.int16))
    if LAYER:
        tl.store(inputs + _UNITS + unit, below.to(tl.int16))
    tl.store(gates + unit, f.to(tl.int16))
    tl.store(gates + _UNITS + unit, o.to(tl.int16))
    tl.store(gates + 2 * _UNITS + unit, g.to(tl.int16))
    tl.store(gates + 3 * _UNITS + unit, before.to(tl.int16))
    tl.store(gates + 4 * _UNITS + unit, after.to(tl.int16))
    tl.store(states + unit, after)
    return (after * o + (1 << 20)) >> 21


@triton.jit(do_not_specialize=["lanes", "steps"])
def forward_kernel(
    squash,
    history,
    row_whole,
    unit_whole,
    node_whole,
    all_outputs,
    states,
    window_bytes,
    window_inputs,
    window_gates,
    window_slopes,
    window_deltas,
    logits,
    window_places,
    position,
    lanes,
    steps,
):
    """Take a lane's last byte into its units, a program each, and leave the logits of all nodes."""
    follow()
    lane = tl.program_id(0)
    step = tl.load(position)
    t, window = step % _WINDOW, step // _WINDOW
    if (t == 0) & (step > 0):
        _go_back(unit_whole, window_gates, window_slopes, window_deltas, lane, lanes)
    byte = tl.load(history + lane.to(tl.int64) * (steps + _PAD) + _PAD + step - 1).to(tl.int32)
    unit = tl.arange(0, _UNITS)
    outputs = all_outputs + lane * _OUTPUTS + unit
    own_0, own_1 = tl.load(outputs).to(tl.int32), tl.load(outputs + _UNITS).to(tl.int32)
    states += lane * (_LAYERS * _UNITS)
    before_0, before_1 = tl.load(states + unit), tl.load(states + _UNITS + unit)
    # Every warp has all of these numbers: none may overwrite what another has yet to load.
    tl.debug_barrier()
    tl.store(window_places + lane, t)
    place = t * lanes + lane
    there = (window & 1) * (_WINDOW * lanes) + place
    tl.store(window_bytes + there, byte.to(tl.uint8))
    inputs = window_inputs + there * (_LAYERS * _INPUTS)
    gates = window_gates + place * (_LAYERS * _KEPT * _UNITS)
    new_0 = _forward_layer(
        squash, row_whole + byte * _GATES, unit_whole, states, inputs, gates, before_0, own_0, own_0, 0
    )
    new_1 = _forward_layer(
        squash,
        row_whole + (256 + byte) * _GATES,
        unit_whole + _INPUTS * _GATES,
        states + _UNITS,
        inputs + _INPUTS,
        gates + _KEPT * _UNITS,
        before_1,
        own_1,
        new_0,
        1,
    )
    tl.store(outputs, new_0.to(tl.int16))
    tl.store(outputs + _UNITS, new_1.to(tl.int16))
    node = tl.arange(0, _UNITS)
    for first in tl.static_range(0, 256, _UNITS):
        at = node_whole + (first + node)[:, None] * _OUTPUTS + unit[None, :]
        total = _by_row(tl.load(at), new_0) + _by_row(tl.load(at + _UNITS), new_1)
        tl.store(logits + lane * 256 + first + node, _bounded(total >> 13, _LOGIT_MOST))


@triton.jit
def _learn_nodes(
    squash,
    history,
    node_weights,
    node_squares,
    node_whole,
    all_outputs,
    logits,
    totals,
    step,
    first,
    lanes,
    steps,
):
    """Let some nodes learn from the step's bytes, and add up what the outputs' slopes are made of."""
    node = first + tl.arange(0, _NODES_A_PROGRAM)
    output = tl.arange(0, _OUTPUTS)
    bit_number = node * 0
    for power in tl.static_range(1, 8):
        bit_number += (node >= 1 << power).to(tl.int32)
    at = node[:, None] * _OUTPUTS + output[None, :]
    whole = tl.load(node_whole + at).to(tl.int32)
    gradient = whole * 0
    touched = node * 0
    for lane in range(lanes):
        byte = tl.load(history + lane * (steps + _PAD).to(tl.int64) + _PAD + step).to(tl.int32)
        here = (node > 0) & (((byte | 256) >> (8 - bit_number)) == node)
        bit = (byte >> (7 - bit_number)) & 1
        own = tl.load(squash + tl.load(logits + lane * 256 + node) + _SQUASH_MOST + 1)
        error = tl.where(here, ((bit << 16) - own) >> 4, 0)
        value = tl.load(all_outputs + lane * _OUTPUTS + output).to(tl.int32)
        gradient += error[:, None] * value[None, :]
        touched += here.to(tl.int32)
        if tl.max(here.to(tl.int32), 0) > 0:
            tl.atomic_add(totals + lane * _OUTPUTS + output, tl.sum(error[:, None] * whole, 0), sem="relaxed")
    if tl.max(touched, 0) > 0:
        inside = (touched > 0)[:, None] & (output >= 0)[None, :]
        weight = tl.load(node_weights + at, mask=inside, other=0.0)
        square = tl.load(node_squares + at, mask=inside, other=0.0)
        weight, square, rounded = _moved(gradient, weight, square, _NODE_RATE, _LEAST_NODE)
        tl.store(node_weights + at, weight, mask=inside)
        tl.store(node_squares + at, square, mask=inside)
        tl.store(node_whole + at, rounded, mask=inside)


@triton.jit
def _move_gates(weights, squares, whole, gradient):
    """Move the weights of a layer's gates, [wide], along their gradient."""
    gate = tl.arange(0, _WIDE)
    inside = gate < _GATES
    weight = tl.load(weights + gate, mask=inside, other=0.0)
    square = tl.load(squares + gate, mask=inside, other=0.0)
    weight, square, rounded = _moved(gradient, weight, square, _RATE, _LEAST_UNIT)
    tl.store(weights + gate, weight, mask=inside)
    tl.store(squares + gate, square, mask=inside)
    tl.store(whole + gate, rounded, mask=inside)


@triton.jit
def _sum_of_deltas(factors, deltas, first, count, layer):
    """Return the sum over places, from number `first`, of factors [places] times a layer's slopes, [wide]."""
    gate = tl.arange(0, _WIDE)[None, :]
    place = (first + tl.arange(0, _PLACES))[:, None]
    inside = (place < count) & (gate < _GATES)
    delta = tl.load(deltas + (place * _LAYERS + layer) * _GATES + gate, mask=inside, other=0).to(tl.int32)
    return tl.sum(delta * factors[:, None], 0)


@triton.jit
def _learn_input(unit_weights, unit_squares, unit_whole, inputs, deltas, number, lanes):
    """Move the weights that read one of a layer's inputs; those of the first layer come first."""
    layer = (number >= _UNITS).to(tl.int32)
    number -= layer * _UNITS
    gradient = tl.zeros((_WIDE,), tl.int32)
    count = _WINDOW * lanes
    for first in range(0, count, _PLACES):
        place = first + tl.arange(0, _PLACES)
        at = inputs + (place * _LAYERS + layer) * _INPUTS + number
        value = tl.load(at, mask=place < count, other=0).to(tl.int32)
        gradient += _sum_of_deltas(value, deltas, first, count, layer)
    at = (layer * _INPUTS + number) * _GATES
    _move_gates(unit_weights + at, unit_squares + at, unit_whole + at, gradient)


@triton.jit
def _learn_byte(row_weights, row_squares, row_whole, bytes_, deltas, byte, lanes):
    """Move both layers' weights of a byte, if any lane had it in the window."""
    gradient_0 = tl.zeros((_WIDE,), tl.int32)
    gradient_1 = gradient_0
    found = byte * 0
    count = _WINDOW * lanes
    for first in range(0, count, _PLACES):
        place = first + tl.arange(0, _PLACES)
        here = (tl.load(bytes_ + place, mask=place < count, other=0).to(tl.int32) == byte) & (place < count)
        some = tl.sum(here.to(tl.int32), 0)
        if some > 0:
            factor = here.to(tl.int32) * 512
            gradient_0 += _sum_of_deltas(factor, deltas, first, count, 0)
            gradient_1 += _sum_of_deltas(factor, deltas, first, count, 1)
        found += some
    if found > 0:
        at = byte * _GATES
        _move_gates(row_weights + at, row_squares + at, row_whole + at, gradient_0)
        at += 256 * _GATES
        _move_gates(row_weights + at, row_squares + at, row_whole + at, gradient_1)


@triton.jit(do_not_specialize=["lanes", "steps"])
def learn_kernel(
    squash,
    history,
    row_weights,
    row_squares,
    row_whole,
    unit_weights,
    unit_squares,
    unit_whole,
    node_weights,
    node_squares,
    node_whole,
    all_outputs,
    window_bytes,
    window_inputs,
    window_deltas,
    logits,
    totals,
    position,
    lanes,
    steps,
):
    """Learn from a step: nodes every time, units and bytes after the first step of a window."""
    follow()
    program = tl.program_id(0)
    step = tl.load(position)
    if program < _NODE_PROGRAMS:
        _learn_nodes(
            squash,
            history,
            node_weights,
            node_squares,
            node_whole,
            all_outputs,
            logits,
            totals,
            step,
            program * _NODES_A_PROGRAM,
            lanes,
            steps,
        )
    elif (step > 0) & (step % _WINDOW == 0):
        before = ((step // _WINDOW - 1) & 1) * (_WINDOW * lanes)
        number = program - _NODE_PROGRAMS
        if number < _INPUT_PROGRAMS:
            inputs = window_inputs + before * (_LAYERS * _INPUTS)
            _learn_input(unit_weights, unit_squares, unit_whole, inputs, window_deltas, number, lanes)
        else:
            byte = number - _INPUT_PROGRAMS
            seen = window_bytes + before
            _learn_byte(row_weights, row_squares, row_whole, seen, window_deltas, byte, lanes)
