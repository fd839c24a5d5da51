"""PAC as fused kernels: the twin of networks/pac.py.

What stays within a lane runs in one program for each lane: the end of one block's feed-forward layer, the
next block's lane layer, and the norm before its feed-forward layer. Between these stand the products that
all lanes share. Forward a block takes three kernels, backward three, and the updates run beside them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...exact.kernels.aside import Aside
from ...exact.kernels.column_tasks import ColumnTasks
from ...exact.kernels.digits import RowDigits, gradient_digits
from ...exact.kernels.elements import CHAINED, follow, from_bits, gelu, gelu_slope, row_scale, whole_number
from ...exact.kernels.embedding import FusedEmbedding
from ...exact.kernels.lane_update import lane_update
from ...exact.kernels.layer_norm import normalised, normalised_backward
from ...exact.kernels.linear import (
    activate,
    gradient_sums,
    hidden_gradient,
    linear_forward,
    linear_sums,
    row_digits,
    splits,
    sum_of_splits,
    transpose,
)
from ...exact.kernels.parameters import Learner
from ...exact.kernels.patches import FusedSemantics
from ...exact.layer_norm import statistics_most
from ...exact.quantise import INT8_MOST, INT16_MOST, quantise
from ...exact.tape import ParameterNode
from ...exact.workspace import Workspace
from ...semantics import SemanticsEnhancement
from ..pac import PAC, Embedding, FeedForward, LaneLayer
from .shared import (
    FusedFront,
    Norm,
    Parameters,
    Shared,
    new_digits,
    product_gradient,
    store_digits,
    store_quantised,
)

__all__ = ["FusedPAC", "fuse", "fuse_front"]

_INT8_MOST = tl.constexpr(INT8_MOST)
_INT16_MOST = tl.constexpr(INT16_MOST)

_STAGES = tl.constexpr(3)
"""Parts of a lane's matrix that are on their way at a time, and one."""

_MANY_WEIGHTS = 1 << 24
"""From so many weights on, a lane layer's update lasts as long as much of a step."""


@triton.jit
def _feed_forward_end(
    lane,
    column,
    inside,
    sums,
    hidden_largest,
    scale_weight,
    bias,
    gain,
    offset,
    skip,
    normal_out,
    slope_out,
    lanes,
    width: tl.constexpr,
    most: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Return the block's result from the integer sums of its second product."""
    place = lane * width + column
    _, scale = row_scale(from_bits(tl.load(hidden_largest + lane)), _INT8_MOST)
    inner = sum_of_splits(sums, place, inside, lanes * width, SPLITS).to(tl.float32) * scale
    inner = inner * tl.load(scale_weight + column, mask=inside, other=0.0)
    inner = inner + tl.load(bias + column, mask=inside, other=0.0)
    normal, slope = normalised(inner, inside, width, most)
    tl.store(normal_out + place, normal, mask=inside)
    tl.store(slope_out + lane, slope)
    x = normal * tl.load(gain + column, mask=inside, other=0.0) + tl.load(
        offset + column, mask=inside, other=0.0
    )
    return (tl.load(skip + place, mask=inside, other=0.0) + gelu(x)) * 0.5


@triton.jit
def _end_kernel(
    sums,
    hidden_largest,
    scale_weight,
    bias,
    gain,
    offset,
    skip,
    normal_out,
    slope_out,
    whole,
    scale_out,
    lanes,
    width: tl.constexpr,
    most: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    x = _feed_forward_end(
        lane,
        column,
        inside,
        sums,
        hidden_largest,
        scale_weight,
        bias,
        gain,
        offset,
        skip,
        normal_out,
        slope_out,
        lanes,
        width,
        most,
        SPLITS,
    )
    store_quantised(x, lane, column, inside, whole, scale_out, width)


@triton.jit
def _start_kernel(
    # The end of the block before, or, without one, the front's values in `rows`.
    sums,
    before_largest,
    before_scale_weight,
    before_bias,
    before_gain,
    before_offset,
    before_skip,
    before_normal_out,
    before_slope_out,
    rows,
    # The lane layer.
    lane_gain_in,
    lane_offset_in,
    lane_weight,
    lane_scale_weight,
    lane_bias,
    lane_gain,
    lane_offset,
    lane_skip,
    lane_normal_in,
    lane_slope_in,
    lane_whole,
    lane_normal_out,
    lane_slope_out,
    ring,
    steps,
    # The feed-forward layer.
    gain_in,
    offset_in,
    skip,
    normal_in,
    slope_in,
    whole,
    scale_x,
    hidden_largest,
    lanes,
    width: tl.constexpr,
    lane_width: tl.constexpr,
    most: tl.constexpr,
    lane_most: tl.constexpr,
    first: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
    LANE_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = lane * width + column
    if not first:
        before = _feed_forward_end(
            lane,
            column,
            inside,
            sums,
            before_largest,
            before_scale_weight,
            before_bias,
            before_gain,
            before_offset,
            before_skip,
            before_normal_out,
            before_slope_out,
            lanes,
            width,
            most,
            SPLITS,
        )
        tl.store(rows + place, before, mask=inside)
        tl.debug_barrier()

    # The lane layer, over the newest values.
    own = tl.arange(0, LANE_WIDTH)
    own_inside = own < lane_width
    own_place = lane * lane_width + own
    x = tl.load(rows + lane * width + (width - lane_width) + own, mask=own_inside, other=0.0)
    normal, slope = normalised(x, own_inside, lane_width, lane_most)
    tl.store(lane_normal_in + own_place, normal, mask=own_inside)
    tl.store(lane_slope_in + lane, slope)
    x = normal
    if first:
        x = normal * tl.load(lane_gain_in + own, mask=own_inside, other=0.0) + tl.load(
            lane_offset_in + own, mask=own_inside, other=0.0
        )
    tl.store(lane_skip + own_place, x, mask=own_inside)
    factor, scale = row_scale(tl.max(tl.abs(x), 0), _INT8_MOST)
    tl.store(lane_whole + lane * width + own, whole_number(x, factor).to(tl.int8), mask=own_inside)
    # Read again by other threads of the program.
    tl.debug_barrier()
    products = tl.zeros((ROWS, LANE_WIDTH), tl.int32)
    weight_start = lane.to(tl.int64) * lane_width * lane_width
    for first_row in tl.range(0, lane_width, ROWS, num_stages=_STAGES):
        row = first_row + tl.arange(0, ROWS)
        row_inside = row < lane_width
        a = tl.load(lane_whole + lane * width + row, mask=row_inside, other=0).to(tl.int32)
        b = tl.load(
            lane_weight + weight_start + row[:, None] * lane_width + own[None, :],
            mask=row_inside[:, None] & own_inside[None, :],
            other=0,
        ).to(tl.int32)
        products += a[:, None] * b
    inner = tl.sum(products, 0).to(tl.float32) * scale
    inner = inner * tl.load(lane_scale_weight + own_place, mask=own_inside, other=0.0)
    inner = inner + tl.load(lane_bias + own_place, mask=own_inside, other=0.0)
    normal, slope = normalised(inner, own_inside, lane_width, lane_most)
    tl.store(lane_normal_out + own_place, normal, mask=own_inside)
    tl.store(lane_slope_out + lane, slope)
    z = normal * tl.load(lane_gain + own, mask=own_inside, other=0.0) + tl.load(
        lane_offset + own, mask=own_inside, other=0.0
    )
    # The ring holds the newest `width` outputs; the newest of them take the oldest's places.
    oldest = ((tl.load(steps) * lane_width) % width).to(tl.int32)
    tl.store(ring + lane * width + (oldest + own) % width, (x + gelu(z)) * 0.5, mask=own_inside)
    tl.debug_barrier()
    x = tl.load(ring + lane * width + (oldest + lane_width + column) % width, mask=inside, other=0.0)

    # The norm before the feed-forward layer.
    normal, slope = normalised(x, inside, width, most)
    tl.store(normal_in + place, normal, mask=inside)
    tl.store(slope_in + lane, slope)
    x = normal * tl.load(gain_in + column, mask=inside, other=0.0) + tl.load(
        offset_in + column, mask=inside, other=0.0
    )
    tl.store(skip + place, x, mask=inside)
    store_quantised(x, lane, column, inside, whole, scale_x, width)
    tl.store(hidden_largest + lane, 0)


@triton.jit
def _feed_forward_end_backward(
    gradient,
    lane,
    column,
    inside,
    half,
    gain,
    offset,
    normal_out,
    slope_out,
    scale_weight,
    by_norm,
    by_inner,
    high,
    low,
    digit_scale,
    largest,
    width: tl.constexpr,
):
    """Take the gradient by the block's result back to the one by its second product, quantised."""
    place = lane * width + column
    gradient = gradient * 0.5
    tl.store(half + place, gradient, mask=inside)
    by_column = tl.load(gain + column, mask=inside, other=0.0)
    normal = tl.load(normal_out + place, mask=inside, other=0.0)
    x = normal * by_column + tl.load(offset + column, mask=inside, other=0.0)
    gradient = gelu_slope(x) * gradient
    tl.store(by_norm + place, gradient, mask=inside)
    gradient = normalised_backward(gradient * by_column, normal, tl.load(slope_out + lane), width)
    tl.store(by_inner + place, gradient, mask=inside)
    gradient = gradient * tl.load(scale_weight + column, mask=inside, other=0.0)
    store_digits(gradient, lane, column, inside, high, low, digit_scale, width)
    tl.store(largest + lane, 0)


@triton.jit
def _end_backward_kernel(
    high_sums,
    low_sums,
    largest,
    half,
    gain,
    offset,
    normal_out,
    slope_out,
    scale_weight,
    by_norm,
    by_inner,
    high,
    low,
    digit_scale,
    lanes,
    width: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    gradient = product_gradient(
        lane, lane * width + column, inside, high_sums, low_sums, largest, lanes * width, SPLITS
    )
    tl.debug_barrier()
    _feed_forward_end_backward(
        gradient,
        lane,
        column,
        inside,
        half,
        gain,
        offset,
        normal_out,
        slope_out,
        scale_weight,
        by_norm,
        by_inner,
        high,
        low,
        digit_scale,
        largest,
        width,
    )


@triton.jit
def _start_backward_kernel(
    # The feed-forward layer.
    high_sums,
    low_sums,
    largest,
    half,
    gain_in,
    normal_in,
    slope_in,
    by_skip,
    rows,
    # The lane layer.
    lane_gain_in,
    lane_weight,
    lane_scale_weight,
    lane_gain,
    lane_offset,
    lane_normal_in,
    lane_slope_in,
    lane_normal_out,
    lane_slope_out,
    lane_by_norm,
    lane_by_inner,
    lane_by_skip,
    lane_rows,
    # The update of the lane layer may last until this step's size is another.
    size,
    step_size,
    # The end of the block before.
    before_gain,
    before_offset,
    before_normal_out,
    before_slope_out,
    before_scale_weight,
    before_by_norm,
    before_by_inner,
    high,
    low,
    digit_scale,
    lanes,
    width: tl.constexpr,
    lane_width: tl.constexpr,
    first: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
    LANE_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    follow()
    lane = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    place = lane * width + column
    if lane == 0:
        tl.store(step_size, tl.load(size))
    by_product = product_gradient(lane, place, inside, high_sums, low_sums, largest, lanes * width, SPLITS)
    gradient = tl.load(half + place, mask=inside, other=0.0) + by_product
    tl.store(by_skip + place, gradient, mask=inside)
    normal = tl.load(normal_in + place, mask=inside, other=0.0)
    gradient = normalised_backward(
        gradient * tl.load(gain_in + column, mask=inside, other=0.0),
        normal,
        tl.load(slope_in + lane),
        width,
    )
    tl.store(rows + place, gradient, mask=inside)
    tl.debug_barrier()

    # The lane layer: only the newest values were its own.
    own = tl.arange(0, LANE_WIDTH)
    own_inside = own < lane_width
    own_place = lane * lane_width + own
    newest = lane * width + (width - lane_width) + own
    own_half = tl.load(rows + newest, mask=own_inside, other=0.0) * 0.5
    by_column = tl.load(lane_gain + own, mask=own_inside, other=0.0)
    normal = tl.load(lane_normal_out + own_place, mask=own_inside, other=0.0)
    x = normal * by_column + tl.load(lane_offset + own, mask=own_inside, other=0.0)
    gradient = gelu_slope(x) * own_half
    tl.store(lane_by_norm + own_place, gradient, mask=own_inside)
    gradient = normalised_backward(gradient * by_column, normal, tl.load(lane_slope_out + lane), lane_width)
    gradient = tl.where(own_inside, gradient, 0.0)
    tl.store(lane_by_inner + own_place, gradient, mask=own_inside)
    gradient = gradient * tl.load(lane_scale_weight + own_place, mask=own_inside, other=0.0)
    factor, scale = row_scale(tl.max(tl.abs(gradient), 0), _INT16_MOST)
    # Below 2^31 for widths up to 512: 127 * 32639 * 512 is 2.12e9.
    whole = whole_number(gradient, factor)
    weight_start = lane.to(tl.int64) * lane_width * lane_width
    for first_row in tl.range(0, lane_width, ROWS, num_stages=_STAGES):
        row = first_row + tl.arange(0, ROWS)
        row_inside = row < lane_width
        a = tl.load(
            lane_weight + weight_start + row[:, None] * lane_width + own[None, :],
            mask=row_inside[:, None] & own_inside[None, :],
            other=0,
        ).to(tl.int32)
        products = tl.sum(a * whole[None, :], 1).to(tl.float32) * scale
        tl.store(lane_rows + lane * lane_width + row, products, mask=row_inside)
    tl.debug_barrier()
    gradient = own_half + tl.load(lane_rows + own_place, mask=own_inside, other=0.0)
    if first:
        tl.store(lane_by_skip + own_place, gradient, mask=own_inside)
        gradient = gradient * tl.load(lane_gain_in + own, mask=own_inside, other=0.0)
    normal = tl.load(lane_normal_in + own_place, mask=own_inside, other=0.0)
    gradient = normalised_backward(gradient, normal, tl.load(lane_slope_in + lane), lane_width)
    tl.store(rows + newest, gradient, mask=own_inside)
    tl.debug_barrier()
    is_newest = inside & (column >= width - lane_width)
    gradient = tl.load(rows + place, mask=is_newest, other=0.0)
    if first:
        tl.store(rows + place, gradient, mask=inside)
    else:
        _feed_forward_end_backward(
            gradient,
            lane,
            column,
            inside,
            half,
            before_gain,
            before_offset,
            before_normal_out,
            before_slope_out,
            before_scale_weight,
            before_by_norm,
            before_by_inner,
            high,
            low,
            digit_scale,
            largest,
            width,
        )


def fuse(
    network: PAC,
    state: Parameters,
    learner: Learner,
    lanes: int,
    history: Tensor,
    position: Tensor,
    steps: Tensor,
    workspace: Workspace,
) -> FusedPAC:
    """Return the kernels of a plain network whose caches are filled.

    A step's context is the rows of `history`, uint8 [rows, lanes], from position[0] on, int64 [1]; `steps`,
    int64 [1], counts the steps before.
    """
    front = fuse_front(network, state, learner, history, position, workspace)
    return FusedPAC(network, front, state, learner, lanes, steps, workspace)


def fuse_front(
    network: PAC,
    state: Parameters,
    learner: Learner,
    history: Tensor,
    position: Tensor,
    workspace: Workspace,
) -> FusedFront:
    """Return the kernels of the plain network's front; the arguments are those of `fuse`."""
    plain = network.front
    if isinstance(plain, SemanticsEnhancement):
        # Of the patches, and of the rows of bytes, those that are dropped come first.
        first = plain.dropped
        return FusedSemantics(
            state(plain.table),
            state(plain.weight).after(first),
            state(plain.bias),
            state(plain.mask).after(first),
            plain.kept[first:],
            plain.sharpness,
            plain.patch,
            history[first:],
            position,
            learner.size,
            learner.epsilon,
            workspace,
        )
    if isinstance(plain, Embedding):
        context = network.context
        return FusedEmbedding(
            state(plain.table), history, position, context, learner.size, learner.epsilon, workspace
        )
    raise TypeError(f"no kernels for a front of type {type(plain).__name__}")


class _Block:
    """One block's weights, what its forward pass keeps for the backward one, and its gradients."""

    def __init__(
        self,
        lane_layer: LaneLayer,
        feed_forward: FeedForward,
        state: Parameters,
        lanes: int,
        workspace: Workspace,
        name: str,
    ) -> None:
        def norm(pair: tuple[ParameterNode, ParameterNode]) -> Norm:
            return Norm(state(pair[0]), state(pair[1]))

        def take(part: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(f"{name}.{part}", shape, dtype)

        device = workspace.device
        self.weight_in = Shared(state(feed_forward.weight_in), state(feed_forward.bias_in))
        self.weight_out = Shared(state(feed_forward.weight_out), state(feed_forward.bias_out))
        self.norm_in, self.norm_out = norm(feed_forward.norm_in), norm(feed_forward.norm_out)
        width, hidden = self.weight_in.by_input.shape
        self.skip, self.normal_in = take("skip", lanes, width), take("normal_in", lanes, width)
        self.slope_in, self.slope_out = take("slope_in", lanes), take("slope_out", lanes)
        self.whole = take("whole", lanes, width, dtype=torch.int8)
        self.scale_x = take("scale_x", lanes)
        self.hidden = take("hidden", lanes, hidden)
        self.hidden_whole = take("hidden_whole", hidden, lanes, dtype=torch.int8)
        self.hidden_largest = take("hidden_largest", lanes, dtype=torch.int32)
        self.normal_out = take("normal_out", lanes, width)
        self.by_norm, self.by_inner = take("by_norm", lanes, width), take("by_inner", lanes, width)
        self.by_hidden, self.by_skip = take("by_hidden", lanes, hidden), take("by_skip", lanes, width)
        self.hidden_digits = new_digits(workspace, f"{name}.hidden_digits", lanes, hidden)
        self.inner_digits = new_digits(workspace, f"{name}.inner_digits", lanes, width)

        self.lane_width = lane_width = lane_layer.lane_width
        self.lane_norm_in = None if lane_layer.norm_in is None else norm(lane_layer.norm_in)
        self.lane_weight, self.lane_bias = state(lane_layer.weight), state(lane_layer.bias)
        self.lane_norm_out = norm(lane_layer.norm_out)
        whole, scale = quantise(self.lane_weight.weight, 1, INT8_MOST)
        self.lane_weight_whole = whole.to(torch.int8)
        self.lane_weight_scale = scale.squeeze(1).contiguous()
        self.ring = torch.cat([torch.zeros((lanes, lane_width), device=device), lane_layer.cache], 1)
        self.lane_skip = take("lane_skip", lanes, lane_width)
        self.lane_normal_in = take("lane_normal_in", lanes, lane_width)
        self.lane_normal_out = take("lane_normal_out", lanes, lane_width)
        self.lane_slope_in, self.lane_slope_out = take("lane_slope_in", lanes), take("lane_slope_out", lanes)
        self.lane_by_norm = take("lane_by_norm", lanes, lane_width)
        self.lane_by_inner = take("lane_by_inner", lanes, lane_width)
        self.lane_by_skip = take("lane_by_skip", lanes, lane_width)
        self.step_size = take("step_size", 1)
        self.programs = _programs(lanes, lane_width, device)
        self.lanes_aside = Aside(device, forks=self.programs is not None)

    def add_columns(self, columns: ColumnTasks) -> None:
        """Let the norms learn by `columns`."""
        columns.add(self.by_norm, self.norm_out.offset, self.normal_out, self.norm_out.gain)
        columns.add(self.by_skip, self.norm_in.offset, self.normal_in, self.norm_in.gain)
        norm = self.lane_norm_out
        columns.add(self.lane_by_norm, norm.offset, self.lane_normal_out, norm.gain)
        if self.lane_norm_in is not None:
            norm = self.lane_norm_in
            columns.add(self.lane_by_skip, norm.offset, self.lane_normal_in, norm.gain)

    @property
    def end(self) -> tuple[Tensor, ...]:
        """What the kernels take of the block to make its result of the second product's sums."""
        return (
            self.hidden_largest,
            self.weight_out.scale,
            self.weight_out.bias.weight,
            self.norm_out.gain.weight,
            self.norm_out.offset.weight,
            self.skip,
            self.normal_out,
            self.slope_out,
        )

    @property
    def end_backward(self) -> tuple[Tensor, ...]:
        """What the kernels take of the block to go back from its result to the second product."""
        return (
            self.norm_out.gain.weight,
            self.norm_out.offset.weight,
            self.normal_out,
            self.slope_out,
            self.weight_out.scale,
            self.by_norm,
            self.by_inner,
        )

    def update_lanes(self, epsilon: float) -> None:
        """Update what each lane has of its own; that may last until the next step needs it."""
        lane_update(
            self.lane_skip,
            self.lane_by_inner,
            self.lane_weight,
            self.lane_bias,
            Learner(self.step_size, epsilon),
            self.lane_weight_whole,
            self.lane_weight_scale,
            self.programs,
        )


class FusedPAC:
    """The network of a plain PAC, whose parameters it learns in place."""

    def __init__(
        self,
        network: PAC,
        front: FusedFront,
        state: Parameters,
        learner: Learner,
        lanes: int,
        steps: Tensor,
        workspace: Workspace,
    ) -> None:
        """Take over from `network`, whose caches are filled; `steps`, int64 [1], counts the steps before."""
        self.front = front
        self._learner = learner
        self._lanes = lanes
        self._steps = steps
        self._aside = Aside(workspace.device)
        self._blocks = [
            _Block(lane_layer, feed_forward, state, lanes, workspace, f"block{index}")
            for index, (lane_layer, feed_forward) in enumerate(
                zip(network.lane_layers, network.feed_forwards, strict=True)
            )
        ]
        self._columns = ColumnTasks(lanes)
        for block in self._blocks:
            block.add_columns(self._columns)
        self._out = Shared(state(network.out_weight), state(network.out_bias))
        self._width = width = self._out.by_input.shape[0]
        self._padded = triton.next_power_of_2(width)
        self._warps = max(1, min(2, self._padded // 128))

        def take(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(name, shape, dtype)

        self._rows, self._half = take("rows", lanes, width), take("half", lanes, width)
        self._lane_rows = take("lane_rows", lanes, width)
        hidden = network.feed_forwards[0].weight_in.data.shape[1]
        self._splits, self._out_splits = splits(hidden, lanes), splits(256, lanes)
        parts = max(self._splits, self._out_splits)
        self._sums = take("sums", parts, lanes, width, dtype=torch.int32)
        self._low_sums = take("low_sums", parts, lanes, width, dtype=torch.int32)
        self._lane_whole = take("lane_whole", lanes, width, dtype=torch.int8)
        self._transposed = take("transposed", width, lanes, dtype=torch.int8)
        self._hidden_whole = take("hidden_whole", lanes, hidden, dtype=torch.int8)
        self._largest = take("largest", lanes, dtype=torch.int32)
        self._high = take("high", lanes, width, dtype=torch.int8)
        self._low = take("low", lanes, width, dtype=torch.int8)
        self._digit_scale = take("digit_scale", lanes)
        self._hidden_high = take("hidden_high", lanes, hidden, dtype=torch.int8)
        self._hidden_low = take("hidden_low", lanes, hidden, dtype=torch.int8)
        self._out_whole = take("out_whole", lanes, width, dtype=torch.int8)
        self._out_scale = take("out_scale", lanes)
        self._logits, self.by_logits = take("logits", lanes, 256), take("by_logits", lanes, 256)
        self._out_high = take("out_high", lanes, 256, dtype=torch.int8)
        self._out_low = take("out_low", lanes, 256, dtype=torch.int8)
        self._out_digits = new_digits(workspace, "out_digits", lanes, 256)

    def forward(self) -> Tensor:
        """Return logits, float32 [lanes, 256]."""
        rows = self.front.forward()
        before = None
        for block in self._blocks:
            self._start(block, before, rows)
            linear_forward(
                block.whole,
                block.weight_in.by_output,
                block.scale_x,
                block.weight_in.scale,
                block.weight_in.bias.weight,
                block.hidden,
                block.hidden_largest,
            )
            activate(block.hidden, block.hidden_largest, self._hidden_whole, block.hidden_whole)
            linear_sums(self._hidden_whole, block.weight_out.by_output, self._sums)
            before, rows = block, self._rows
        self._end(self._blocks[-1])
        linear_forward(
            self._out_whole,
            self._out.by_output,
            self._out_scale,
            self._out.scale,
            self._out.bias.weight,
            self._logits,
        )
        return self._logits

    def backward(self) -> None:
        """Learn from the gradient in `by_logits`: every weight is updated."""
        row_digits(self.by_logits, self._out.scale, self._out_high, self._out_low, self._largest)
        gradient_sums(self._out_high, self._out_low, self._out.by_input, self._sums, self._low_sums)
        with self._aside.branch():
            gradient_digits(self.by_logits, self._out_scale, self._out_digits, self._out.bias, self._learner)
            transpose(self._out_whole, self._transposed)
            self._out.update(self._transposed, self._out_digits, self._learner)
        self._end_backward(self._blocks[-1])
        for index in reversed(range(len(self._blocks))):
            self._block_backward(self._blocks[index], self._blocks[index - 1] if index else None)
        with self._aside.branch():
            self._columns.run(self._learner)
        self.front.backward(self._rows)
        self._aside.join()

    def settle(self) -> None:
        """Let what is launched next wait for all updates; due before a capture ends."""
        for block in self._blocks:
            block.lanes_aside.join()

    def _block_backward(self, block: _Block, before: _Block | None) -> None:
        weight_in, weight_out = block.weight_in, block.weight_out
        hidden_gradient(
            self._high,
            self._low,
            self._digit_scale,
            weight_out.by_input,
            block.hidden,
            block.by_hidden,
            weight_in.scale,
            self._largest,
        )
        with self._aside.branch():
            gradient_digits(
                block.by_inner, block.hidden_largest, block.inner_digits, weight_out.bias, self._learner
            )
            weight_out.update(block.hidden_whole, block.inner_digits, self._learner)
        gradient_digits(
            block.by_hidden,
            block.scale_x,
            block.hidden_digits,
            weight_in.bias,
            self._learner,
            RowDigits(weight_in.scale, self._largest, self._hidden_high, self._hidden_low),
        )
        gradient_sums(self._hidden_high, self._hidden_low, weight_in.by_input, self._sums, self._low_sums)
        with self._aside.branch():
            transpose(block.whole, self._transposed)
            weight_in.update(self._transposed, block.hidden_digits, self._learner)
        self._start_backward(block, before)
        with (block.lanes_aside if block.programs else self._aside).branch():
            block.update_lanes(self._learner.epsilon)

    def _start(self, block: _Block, before: _Block | None, rows: Tensor) -> None:
        # Without a block before, its arguments are passed but not used.
        block.lanes_aside.join()
        end = block if before is None else before
        lane_norm = block.lane_norm_in or block.lane_norm_out
        lane_padded, lane_rows = _padded_rows(block.lane_width)
        _start_kernel[(self._lanes,)](
            self._sums,
            *end.end,
            rows,
            lane_norm.gain.weight,
            lane_norm.offset.weight,
            block.lane_weight_whole,
            block.lane_weight_scale,
            block.lane_bias.weight,
            block.lane_norm_out.gain.weight,
            block.lane_norm_out.offset.weight,
            block.lane_skip,
            block.lane_normal_in,
            block.lane_slope_in,
            self._lane_whole,
            block.lane_normal_out,
            block.lane_slope_out,
            block.ring,
            self._steps,
            block.norm_in.gain.weight,
            block.norm_in.offset.weight,
            block.skip,
            block.normal_in,
            block.slope_in,
            block.whole,
            block.scale_x,
            block.hidden_largest,
            self._lanes,
            self._width,
            block.lane_width,
            statistics_most(self._width),
            statistics_most(block.lane_width),
            before is None,
            self._splits,
            self._padded,
            lane_padded,
            lane_rows,
            num_warps=max(1, min(2, lane_padded // 64)),
            **CHAINED,
        )

    def _end(self, block: _Block) -> None:
        _end_kernel[(self._lanes,)](
            self._sums,
            *block.end,
            self._out_whole,
            self._out_scale,
            self._lanes,
            self._width,
            statistics_most(self._width),
            self._splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _end_backward(self, block: _Block) -> None:
        _end_backward_kernel[(self._lanes,)](
            self._sums,
            self._low_sums,
            self._largest,
            self._half,
            *block.end_backward,
            self._high,
            self._low,
            self._digit_scale,
            self._lanes,
            self._width,
            self._out_splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _start_backward(self, block: _Block, before: _Block | None) -> None:
        end = block if before is None else before
        lane_norm = block.lane_norm_in or block.lane_norm_out
        lane_padded, lane_rows = _padded_rows(block.lane_width)
        _start_backward_kernel[(self._lanes,)](
            self._sums,
            self._low_sums,
            self._largest,
            self._half,
            block.norm_in.gain.weight,
            block.normal_in,
            block.slope_in,
            block.by_skip,
            self._rows,
            lane_norm.gain.weight,
            block.lane_weight_whole,
            block.lane_weight_scale,
            block.lane_norm_out.gain.weight,
            block.lane_norm_out.offset.weight,
            block.lane_normal_in,
            block.lane_slope_in,
            block.lane_normal_out,
            block.lane_slope_out,
            block.lane_by_norm,
            block.lane_by_inner,
            block.lane_by_skip,
            self._lane_rows,
            self._learner.size,
            block.step_size,
            *end.end_backward,
            self._high,
            self._low,
            self._digit_scale,
            self._lanes,
            self._width,
            block.lane_width,
            before is None,
            self._splits,
            self._padded,
            lane_padded,
            lane_rows,
            num_warps=max(1, min(4, lane_padded // 64)),
            **CHAINED,
        )


def _programs(lanes: int, width: int, device: torch.device) -> int | None:
    """Return by how many programs a lane layer of this width is updated beside the next step, if it is.

    The step has to wait for its turn on a device that is all taken up by updates: so these get a part of it.
    """
    if device.type != "cuda" or lanes * width * width < _MANY_WEIGHTS:
        return None
    return int(torch.cuda.get_device_properties(device).multi_processor_count) // 2


def _padded_rows(width: int) -> tuple[int, int]:
    """Return a lane layer's padded width and the rows of its matrix that a program takes at a time."""
    padded = triton.next_power_of_2(width)
    return padded, max(1, min(padded, 8192 // padded))
