"""What a block of PAC holds from kernel to kernel, and its lane layer's update."""

from __future__ import annotations

import torch
from torch import Tensor

from ...exact.kernels.aside import Aside
from ...exact.kernels.column_tasks import ColumnTasks
from ...exact.kernels.lane_update import lane_update
from ...exact.kernels.parameters import Learner
from ...exact.quantise import INT8_MOST, quantise
from ...exact.tape import ParameterNode
from ...exact.workspace import Workspace
from ..pac import FeedForward, LaneLayer
from .shared import Norm, Parameters, Shared, new_digits

__all__ = ["Block"]

_MANY_WEIGHTS = 1 << 24
"""From so many weights on, a lane layer's update lasts as long as much of a step."""


class Block:
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


def _programs(lanes: int, width: int, device: torch.device) -> int | None:
    """Return by how many programs a lane layer of this width is updated beside the next step, if it is.

    The step has to wait for its turn on a device that is all taken up by updates: so these get a part of it.
    """
    if device.type != "cuda" or lanes * width * width < _MANY_WEIGHTS:
        return None
    return int(torch.cuda.get_device_properties(device).multi_processor_count) // 2
