"""PAC as fused kernels: the twin of networks/pac.py.

What stays within a lane runs in one program for each lane: the end of one block's feed-forward layer, the
next block's lane layer, and the norm before its feed-forward layer. Between these stand the products that
all lanes share. Forward a block takes three kernels, backward three, and the updates run beside them.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ...exact.kernels.aside import Aside
from ...exact.kernels.column_tasks import ColumnTasks
from ...exact.kernels.digits import RowDigits, gradient_digits
from ...exact.kernels.elements import CHAINED
from ...exact.kernels.linear import activate, linear_forward, linear_sums, transpose
from ...exact.kernels.linear_backward import gradient_sums, hidden_gradient
from ...exact.kernels.parameters import Learner
from ...exact.kernels.products import splits
from ...exact.layer_norm import statistics_most
from ...exact.workspace import Workspace
from ..pac import PAC
from .lane_front import fuse_front
from .output import OutputLayer
from .pac_block import Block
from .pac_lanes import end_backward_kernel, end_kernel, start_backward_kernel, start_kernel
from .shared import FusedFront, Parameters, Shared, new_row_digits

__all__ = ["FusedPAC", "fuse", "fuse_front"]


def fuse(
    network: PAC,
    front: FusedFront,
    state: Parameters,
    learner: Learner,
    lanes: int,
    steps: Tensor,
    workspace: Workspace,
) -> FusedPAC:
    """Return the kernels of a plain network whose caches are filled, behind what `fuse_front` made of it.

    `steps`, int64 [1], counts the steps before.
    """
    return FusedPAC(network, front, state, learner, lanes, steps, workspace)


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
            Block(lane_layer, feed_forward, state, lanes, workspace, f"block{index}")
            for index, (lane_layer, feed_forward) in enumerate(
                zip(network.lane_layers, network.feed_forwards, strict=True)
            )
        ]
        self._columns = ColumnTasks(lanes)
        for block in self._blocks:
            block.add_columns(self._columns)
        out = Shared(state(network.out_weight), state(network.out_bias))
        self._width = width = out.by_input.shape[0]
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
        self._row_digits = new_row_digits(workspace, "inner", lanes, width)
        self._digit_scale = take("digit_scale", lanes)
        self._hidden_row_digits = new_row_digits(workspace, "hidden", lanes, hidden)
        self._out = OutputLayer(out, lanes, self._largest, self._transposed, workspace)
        self.by_logits = self._out.by_logits

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
        return self._out.forward()

    def backward(self) -> None:
        """Learn from the gradient in `by_logits`: every weight is updated."""
        out = self._out
        out.quantise_gradient()
        gradient_sums(*out.row_digits, out.weight.by_input, self._sums, self._low_sums)
        with self._aside.branch():
            out.update(self._learner)
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

    def _block_backward(self, block: Block, before: Block | None) -> None:
        weight_in, weight_out = block.weight_in, block.weight_out
        hidden_gradient(
            *self._row_digits,
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
            RowDigits(weight_in.scale, self._largest, *self._hidden_row_digits),
        )
        gradient_sums(*self._hidden_row_digits, weight_in.by_input, self._sums, self._low_sums)
        with self._aside.branch():
            transpose(block.whole, self._transposed)
            weight_in.update(self._transposed, block.hidden_digits, self._learner)
        self._start_backward(block, before)
        with (block.lanes_aside if block.programs else self._aside).branch():
            block.update_lanes(self._learner.epsilon)

    def _start(self, block: Block, before: Block | None, rows: Tensor) -> None:
        # Without a block before, its arguments are passed but not used.
        block.lanes_aside.join()
        end = block if before is None else before
        lane_norm = block.lane_norm_in or block.lane_norm_out
        lane_padded, lane_rows = _padded_rows(block.lane_width)
        start_kernel[(self._lanes,)](
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

    def _end(self, block: Block) -> None:
        end_kernel[(self._lanes,)](
            self._sums,
            *block.end,
            self._out.whole,
            self._out.scale,
            self._lanes,
            self._width,
            statistics_most(self._width),
            self._splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _end_backward(self, block: Block) -> None:
        end_backward_kernel[(self._lanes,)](
            self._sums,
            self._low_sums,
            self._largest,
            self._half,
            *block.end_backward,
            *self._row_digits,
            self._digit_scale,
            self._lanes,
            self._width,
            self._out_splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _start_backward(self, block: Block, before: Block | None) -> None:
        end = block if before is None else before
        lane_norm = block.lane_norm_in or block.lane_norm_out
        lane_padded, lane_rows = _padded_rows(block.lane_width)
        start_backward_kernel[(self._lanes,)](
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
            *self._row_digits,
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


def _padded_rows(width: int) -> tuple[int, int]:
    """Return a lane layer's padded width and the rows of its matrix that a program takes at a time."""
    padded = triton.next_power_of_2(width)
    return padded, max(1, min(padded, 8192 // padded))
