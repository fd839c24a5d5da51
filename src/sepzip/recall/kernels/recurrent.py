"""The recurrent network beside a memory's contexts: the twin of recurrent.c.

A step has four kernels. `forward_kernel` takes a byte into the units and lets nodes learn from it, and
`logits_kernel` makes of both what the step's prediction waits for. `back_kernel` and `learn_kernel`, which
have something to do once in a window, may run beside that. So nodes and the newest slopes of outputs are a
step behind those of the plain twin.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from ...exact.kernels.elements import follow, from_bits, size_bits, whole_number
from ..functions import SQUASH_MOST
from ..recurrent import LAYERS, UNITS, WHOLE, WINDOW
from ..state import PAD

__all__ = [
    "AHEAD",
    "BACK_WARPS",
    "FORWARD_WARPS",
    "LEARN_PROGRAMS",
    "LEARN_WARPS",
    "LOGIT_WARPS",
    "NODE_PROGRAMS",
    "back_kernel",
    "forward_kernel",
    "learn_kernel",
    "logits_kernel",
]

AHEAD = 4
"""Steps of which logits are there: so far the network may be ahead of the contexts, encoding."""

FORWARD_WARPS, LOGIT_WARPS, BACK_WARPS, LEARN_WARPS = 8, 4, 16, 4

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
NODE_PROGRAMS = 256 // _NODES_A_PROGRAM.value
_NODE_PROGRAMS = tl.constexpr(NODE_PROGRAMS)
_INPUT_PROGRAMS = tl.constexpr((2 * LAYERS - 1) * UNITS)
LEARN_PROGRAMS = _INPUT_PROGRAMS.value + 256
"""Programs of `learn_kernel`: for a layer's inputs, and for bytes."""

_PLACES = tl.constexpr(16)
_AHEAD = tl.constexpr(AHEAD)
_WIDE = tl.constexpr(1 << (3 * UNITS - 1).bit_length())

_KEEP = tl.constexpr(float(np.float32(0.999)))
_TAKE = tl.constexpr(float(np.float32(1) - np.float32(0.999)))
_RATE = tl.constexpr(0.004)
_NODE_RATE = tl.constexpr(0.006)
_LEAST_UNIT = tl.constexpr(700000.0)
_LEAST_NODE = tl.constexpr(44000.0)
_WEIGHT_MOST = tl.constexpr(4.0)
_WHOLE = tl.constexpr(float(WHOLE))


@triton.jit
def _bounded(x, MOST: tl.constexpr):
    return tl.minimum(tl.maximum(x, -MOST), MOST)


@triton.jit
def _fifteenth(x):
    """Return x / 2^15, rounded to nearest."""
    return (x + (1 << 14)) >> 15


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
def _three(matrix, pitch: tl.constexpr, step: tl.constexpr):
    """Return three int16 [units, units] matrices of rows so far apart, each so far behind the one before."""
    unit = tl.arange(0, _UNITS)
    at = matrix + unit[:, None] * pitch + unit[None, :]
    return tl.load(at), tl.load(at + step), tl.load(at + 2 * step)


@triton.jit
def _by_row(weight, vector):
    """Return the sums of int16 [rows, columns] weights times values, by row, within a warp."""
    return tl.sum(weight.to(tl.int32) * vector[None, :], 1)


@triton.jit
def _kept_of_layer(gates, slopes):
    gates += tl.arange(0, _UNITS)
    f, o = tl.load(gates).to(tl.int32), tl.load(gates + _UNITS).to(tl.int32)
    g, before = tl.load(gates + 2 * _UNITS).to(tl.int32), tl.load(gates + 3 * _UNITS).to(tl.int32)
    after = tl.load(gates + 4 * _UNITS).to(tl.int32)
    return f, o, g, before, after, tl.load(slopes + tl.arange(0, _UNITS))


@triton.jit
def _kept(window_gates, window_slopes, place):
    """Return what was kept of a step of both layers, and the slopes of their outputs."""
    gates = window_gates + place * (_LAYERS * _KEPT * _UNITS)
    slopes = window_slopes + place * _OUTPUTS
    return _kept_of_layer(gates, slopes), _kept_of_layer(gates + _KEPT * _UNITS, slopes + _UNITS)


@triton.jit
def _go_back_layer(kept, deltas, more, cell):
    """Go back a step in a layer; returns the slopes of its gates' sums, and by its states before."""
    unit = tl.arange(0, _UNITS)
    f, o, g, before, after, own = kept
    slope = _bounded(own + more, _SLOPE_MOST)
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
def _go_back(unit_whole, gates_of_window, window_slopes, window_deltas, lane, lanes):
    """Find the slopes of the gates' sums over a lane's window; twin of go_back."""
    unit = tl.arange(0, _UNITS)
    later_0, later_1 = unit * 0, unit * 0
    cell_0, cell_1 = unit * 0, unit * 0
    # Each layer's own, and what the second one reads of the first.
    own_f, own_o, own_g = _three(unit_whole, _GATES, _UNITS)
    next_f, next_o, next_g = _three(unit_whole + _INPUTS * _GATES, _GATES, _UNITS)
    down_f, down_o, down_g = _three(unit_whole + (_INPUTS + _UNITS) * _GATES, _GATES, _UNITS)
    place = (_WINDOW - 1) * lanes + lane
    kept_0, kept_1 = _kept(gates_of_window, window_slopes, place)
    for back in range(_WINDOW):
        now_0, now_1 = kept_0, kept_1
        slopes = window_slopes + place * _OUTPUTS
        deltas = window_deltas + place * (_LAYERS * _GATES)
        # What the step before needs is on its way meanwhile; before the first one there is none.
        place = tl.maximum((_WINDOW - 2 - back) * lanes, 0) + lane
        kept_0, kept_1 = _kept(gates_of_window, window_slopes, place)
        f, o, g, cell_1 = _go_back_layer(now_1, deltas + _GATES, later_1, cell_1)
        later_1 = _slope_of_inputs(next_f, next_o, next_g, f, o, g)
        from_above = _slope_of_inputs(down_f, down_o, down_g, f, o, g)
        tl.store(slopes + unit, now_0[5] + from_above)
        f, o, g, cell_0 = _go_back_layer(now_0, deltas, later_0 + from_above, cell_0)
        later_0 = _slope_of_inputs(own_f, own_o, own_g, f, o, g)


@triton.jit
def _take_in(squash, row, forget, output, candidate, states, inputs, gates, before, own):
    """Make a layer's new outputs of sums of weights times inputs, and keep what the way back needs."""
    unit = tl.arange(0, _UNITS)
    row += unit
    forget += tl.load(row).to(tl.int32) * 512
    output += tl.load(row + _UNITS).to(tl.int32) * 512
    candidate += tl.load(row + 2 * _UNITS).to(tl.int32) * 512
    f = tl.load(squash + _bounded(forget >> 13, _SQUASH_MOST) + _SQUASH_MOST + 1) >> 1
    o = tl.load(squash + _bounded(output >> 13, _SQUASH_MOST) + _SQUASH_MOST + 1) >> 1
    g = tl.load(squash + _bounded(candidate >> 12, _SQUASH_MOST) + _SQUASH_MOST + 1) - _ONE
    after = (before * f + (_ONE - f) * g) >> 15
    tl.store(inputs + unit, own.to(tl.int16))
    tl.store(gates + unit, f.to(tl.int16))
    tl.store(gates + _UNITS + unit, o.to(tl.int16))
    tl.store(gates + 2 * _UNITS + unit, g.to(tl.int16))
    tl.store(gates + 3 * _UNITS + unit, before.to(tl.int16))
    tl.store(gates + 4 * _UNITS + unit, after.to(tl.int16))
    tl.store(states + unit, after)
    return (after * o + (1 << 20)) >> 21


@triton.jit
def _forward(
    squash,
    history,
    row_whole,
    unit_turned,
    outputs,
    new_outputs,
    states,
    window_bytes,
    window_inputs,
    window_gates,
    step,
    lane,
    lanes,
    steps,
):
    """Take a lane's last byte into its units."""
    unit = tl.arange(0, _UNITS)
    outputs += lane * _OUTPUTS + unit
    states += lane * (_LAYERS * _UNITS)
    # Whatever depends on nothing is loaded before it is waited for, and before any of it is overwritten.
    byte = tl.load(history + lane.to(tl.int64) * (steps + _PAD) + _PAD + step - 1).to(tl.int32)
    own_0, own_1 = tl.load(outputs).to(tl.int32), tl.load(outputs + _UNITS).to(tl.int32)
    before_0, before_1 = tl.load(states + unit), tl.load(states + _UNITS + unit)
    own_f, own_o, own_g = _three(unit_turned, _INPUTS, _UNITS * _INPUTS)
    next_f, next_o, next_g = _three(unit_turned + _GATES * _INPUTS, _INPUTS, _UNITS * _INPUTS)
    up_f, up_o, up_g = _three(unit_turned + _GATES * _INPUTS + _UNITS, _INPUTS, _UNITS * _INPUTS)
    tl.debug_barrier()
    place = (step // _WINDOW & 1) * (_WINDOW * lanes) + step % _WINDOW * lanes + lane
    tl.store(window_bytes + place, byte.to(tl.uint8))
    inputs = window_inputs + place * (_LAYERS * _INPUTS)
    gates = window_gates + place * (_LAYERS * _KEPT * _UNITS)
    row = row_whole + byte * _GATES
    forget, output, candidate = _by_row(own_f, own_0), _by_row(own_o, own_0), _by_row(own_g, own_0)
    below = _take_in(squash, row, forget, output, candidate, states, inputs, gates, before_0, own_0)
    inputs += _INPUTS
    tl.store(inputs + _UNITS + unit, below.to(tl.int16))
    row += 256 * _GATES
    states += _UNITS
    gates += _KEPT * _UNITS
    forget = _by_row(next_f, own_1) + _by_row(up_f, below)
    output = _by_row(next_o, own_1) + _by_row(up_o, below)
    candidate = _by_row(next_g, own_1) + _by_row(up_g, below)
    upper = _take_in(squash, row, forget, output, candidate, states, inputs, gates, before_1, own_1)
    new_outputs += lane * _OUTPUTS + unit
    tl.store(new_outputs, below.to(tl.int16))
    tl.store(new_outputs + _UNITS, upper.to(tl.int16))


@triton.jit
def _learn_nodes(
    squash,
    history,
    node_weights,
    node_squares,
    node_whole,
    outputs,
    logits,
    totals,
    step,
    first,
    lanes,
    steps,
    AT_ONCE: tl.constexpr,
):
    """Let some nodes learn from a step's bytes, and add up what the outputs' slopes are made of."""
    node = first + tl.arange(0, _NODES_A_PROGRAM)
    output = tl.arange(0, _OUTPUTS)
    bit_number = node * 0
    for power in tl.static_range(1, 8):
        bit_number += (node >= 1 << power).to(tl.int32)
    at = node[:, None] * _OUTPUTS + output[None, :]
    whole = tl.load(node_whole + at).to(tl.int32)
    gradient = whole * 0
    touched = node * 0
    logits += (step % _AHEAD) * lanes * 256
    for begin in range(0, lanes, AT_ONCE):
        lane = begin + tl.arange(0, AT_ONCE)
        byte = tl.load(history + lane * (steps + _PAD).to(tl.int64) + _PAD + step, mask=lane < lanes, other=0)
        byte = byte.to(tl.int32)[:, None]
        here = (lane < lanes)[:, None] & (node > 0)[None, :]
        here = here & (((byte | 256) >> (8 - bit_number)[None, :]) == node[None, :])
        touched += tl.sum(here.to(tl.int32), 0)
        if tl.max(touched, 0) > 0:
            bit = (byte >> (7 - bit_number)[None, :]) & 1
            logit = tl.load(logits + lane[:, None] * 256 + node[None, :], mask=here, other=0)
            own = tl.load(squash + logit + _SQUASH_MOST + 1)
            error = tl.where(here, ((bit << 16) - own) >> 4, 0)[:, :, None]
            place = lane[:, None] * _OUTPUTS + output[None, :]
            value = tl.load(outputs + place, mask=(lane < lanes)[:, None], other=0).to(tl.int32)
            gradient += tl.sum(error * value[:, None, :], 0)
            adds = (tl.max(here.to(tl.int32), 1) > 0)[:, None] & (output >= 0)[None, :]
            tl.atomic_add(totals + place, tl.sum(error * whole[None, :, :], 1), mask=adds, sem="relaxed")
    if tl.max(touched, 0) > 0:
        inside = (touched > 0)[:, None] & (output >= 0)[None, :]
        weight = tl.load(node_weights + at, mask=inside, other=0.0)
        square = tl.load(node_squares + at, mask=inside, other=0.0)
        weight, square, rounded = _moved(gradient, weight, square, _NODE_RATE, _LEAST_NODE)
        tl.store(node_weights + at, weight, mask=inside)
        tl.store(node_squares + at, square, mask=inside)
        tl.store(node_whole + at, rounded, mask=inside)


@triton.jit(do_not_specialize=["lanes", "steps"])
def forward_kernel(
    squash,
    history,
    row_whole,
    unit_turned,
    node_weights,
    node_squares,
    node_whole,
    outputs,
    new_outputs,
    states,
    window_bytes,
    window_inputs,
    window_gates,
    logits,
    totals,
    positions,
    lanes,
    steps,
    AT_ONCE: tl.constexpr,
):
    """Take the lanes' last bytes into their units, a program each, and let nodes learn from them in others.

    Nodes learn by outputs and logits that predicted these bytes; new outputs lie elsewhere. `unit_turned` are
    whole weights by [layers, gates, inputs]: sums of what lies side by side need no other warp.
    """
    follow()
    program = tl.program_id(0)
    step = tl.load(positions)
    if program < lanes:
        _forward(
            squash,
            history,
            row_whole,
            unit_turned,
            outputs,
            new_outputs,
            states,
            window_bytes,
            window_inputs,
            window_gates,
            step,
            program,
            lanes,
            steps,
        )
    elif step > 0:
        _learn_nodes(
            squash,
            history,
            node_weights,
            node_squares,
            node_whole,
            outputs,
            logits,
            totals,
            step - 1,
            (program - lanes) * _NODES_A_PROGRAM,
            lanes,
            steps,
            AT_ONCE,
        )


@triton.jit(do_not_specialize=["lanes"])
def logits_kernel(node_whole, outputs, new_outputs, window_slopes, logits, totals, positions, lanes):
    """Make the logits of all nodes, some of a lane a program; then a program for what else a lane has to do.

    That takes over the new outputs, and makes the slopes of those before, in 2^-14, of sums of errors times
    weights. Logits are [AHEAD, lanes, 256], those of further steps in turn.
    """
    follow()
    program = tl.program_id(0)
    lane = program % lanes
    output = tl.arange(0, _OUTPUTS)
    value = tl.load(new_outputs + lane * _OUTPUTS + output)
    step = tl.load(positions)
    if program < _NODE_PROGRAMS * lanes:
        node = program // lanes * _NODES_A_PROGRAM + tl.arange(0, _NODES_A_PROGRAM)
        weight = tl.load(node_whole + node[:, None] * _OUTPUTS + output[None, :])
        total = _by_row(weight, value.to(tl.int32))
        tl.store(logits + (step % _AHEAD * lanes + lane) * 256 + node, _bounded(total >> 13, _LOGIT_MOST))
    else:
        tl.store(outputs + lane * _OUTPUTS + output, value)
        if step > 0:
            at = totals + lane * _OUTPUTS + output
            total = tl.load(at)
            tl.store(at, output * 0)
            place = (step - 1) % _WINDOW * lanes + lane
            tl.store(window_slopes + place * _OUTPUTS + output, (total + 512) >> 10)


@triton.jit(do_not_specialize=["lanes"])
def back_kernel(unit_whole, window_gates, window_slopes, window_deltas, positions, lanes):
    """Go back over a lane's last window, if it has ended; a program a lane."""
    follow()
    lane = tl.program_id(0)
    step = tl.load(positions)
    if lane == 0:
        tl.store(positions + 1, step + 1)
    if (step > 0) & (step % _WINDOW == 0):
        gates = window_gates + (step // _WINDOW - 1 & 1) * (_WINDOW * lanes * _LAYERS * _KEPT * _UNITS)
        _go_back(unit_whole, gates, window_slopes, window_deltas, lane, lanes)


@triton.jit
def _move_gates(weights, squares, whole, gradient):
    """Move the weights of a layer's gates, [wide], along their gradient; returns their whole numbers."""
    gate = tl.arange(0, _WIDE)
    inside = gate < _GATES
    weight = tl.load(weights + gate, mask=inside, other=0.0)
    square = tl.load(squares + gate, mask=inside, other=0.0)
    weight, square, rounded = _moved(gradient, weight, square, _RATE, _LEAST_UNIT)
    tl.store(weights + gate, weight, mask=inside)
    tl.store(squares + gate, square, mask=inside)
    tl.store(whole + gate, rounded, mask=inside)
    return rounded


@triton.jit
def _sum_of_deltas(factors, deltas, first, count, layer):
    """Return the sum over places, from number `first`, of factors [places] times a layer's slopes, [wide]."""
    gate = tl.arange(0, _WIDE)[None, :]
    place = (first + tl.arange(0, _PLACES))[:, None]
    inside = (place < count) & (gate < _GATES)
    delta = tl.load(deltas + (place * _LAYERS + layer) * _GATES + gate, mask=inside, other=0).to(tl.int32)
    return tl.sum(delta * factors[:, None], 0)


@triton.jit
def _learn_input(unit_weights, unit_squares, unit_whole, unit_turned, inputs, deltas, number, lanes):
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
    rounded = _move_gates(unit_weights + at, unit_squares + at, unit_whole + at, gradient)
    gate = tl.arange(0, _WIDE)
    turned = unit_turned + (layer * _GATES + gate) * _INPUTS + number
    tl.store(turned, rounded, mask=gate < _GATES)


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


@triton.jit(do_not_specialize=["lanes"])
def learn_kernel(
    row_weights,
    row_squares,
    row_whole,
    unit_weights,
    unit_squares,
    unit_whole,
    unit_turned,
    window_bytes,
    window_inputs,
    window_deltas,
    positions,
    lanes,
):
    """Let units and bytes learn from a window after the first step of the next; and count the step."""
    follow()
    program = tl.program_id(0)
    end = tl.load(positions + 1)
    step = end - 1
    if program == 0:
        tl.store(positions, end)
    if (step > 0) & (step % _WINDOW == 0):
        before = ((step // _WINDOW - 1) & 1) * (_WINDOW * lanes)
        if program < _INPUT_PROGRAMS:
            inputs = window_inputs + before * (_LAYERS * _INPUTS)
            weights = unit_weights, unit_squares, unit_whole, unit_turned
            _learn_input(*weights, inputs, window_deltas, program, lanes)
        else:
            byte = program - _INPUT_PROGRAMS
            seen = window_bytes + before
            _learn_byte(row_weights, row_squares, row_whole, seen, window_deltas, byte, lanes)
