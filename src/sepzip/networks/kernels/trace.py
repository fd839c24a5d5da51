"""TRACE as fused kernels: the twin of networks/trace.py.

A row is a token of a lane. What stays within a row is one program for each row; between these stand the
products and the attention. Keys and values are made of every token. Queries, and what follows, belong to the
newest tokens: one without the SEB, all behind it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...exact.kernels.aside import Aside
from ...exact.kernels.column_sums import layer_columns, norm_columns
from ...exact.kernels.columns import Columns
from ...exact.kernels.digits import RowDigits
from ...exact.kernels.elements import CHAINED
from ...exact.kernels.linear import activate, linear_forward, linear_sums, transpose
from ...exact.kernels.linear_backward import gradient_sums, hidden_gradient
from ...exact.kernels.parameters import Learner
from ...exact.kernels.products import splits
from ...exact.layer_norm import statistics_most
from ...exact.workspace import Workspace
from ...memory import LARGE_MODEL
from ..trace import DEPTH, TRACE, Linear
from ..trace import Norm as PlainNorm
from .mixture import FusedMixture
from .output import OutputLayer
from .rows import row_launch
from .shared import FusedFront, Norm, Parameters, Shared, new_digits, new_row_digits
from .token_front import fuse_front, token_count
from .trace_attention import Attention
from .trace_rows import (
    attended_kernel,
    between_kernel,
    end_backward_kernel,
    end_kernel,
    hidden_backward_kernel,
    mixed_backward_kernel,
    mixed_kernel,
)

__all__ = ["FusedTRACE", "fuse", "fuse_front"]

if DEPTH != 2:
    raise AssertionError("the layers that are used twice learn from two uses")


def fuse(
    network: TRACE,
    front: FusedFront,
    state: Parameters,
    learner: Learner,
    lanes: int,
    steps: Tensor,
    workspace: Workspace,
) -> FusedTRACE:
    """Return the kernels of a plain network, behind what `fuse_front` made of it.

    `steps`, int64 [1], counts the steps before.
    """
    tokens = token_count(network.front)
    queries = 1 if network.mixture is None else tokens
    return FusedTRACE(network, front, state, learner, lanes, tokens, queries, workspace)


class _Use:
    """One use of the feed-forward layer: what its forward pass keeps for the backward one, and gradients."""

    def __init__(
        self, workspace: Workspace, name: str, rows: int, width: int, hidden: int, columns: Columns
    ) -> None:
        def take(part: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(f"{name}.{part}", shape, dtype)

        self.x = take("x", rows, width)
        self.normal, self.slope = take("normal", rows, width), take("slope", rows)
        self.whole, self.scale = take("whole", rows, width, dtype=torch.int8), take("scale", rows)
        self.transposed = take("transposed", width, rows, dtype=torch.int8)
        self.hidden = take("hidden", rows, hidden)
        self.hidden_whole = take("hidden_whole", hidden, rows, dtype=torch.int8)
        self.hidden_largest = take("hidden_largest", rows, dtype=torch.int32)
        self.by_result, self.by_norm = take("by_result", rows, width), take("by_norm", rows, width)
        self.by_hidden = take("by_hidden", rows, hidden)
        self.hidden_digits = new_digits(workspace, f"{name}.hidden_digits", rows, hidden)
        self.result_digits = new_digits(workspace, f"{name}.result_digits", rows, width)
        self.norm_columns, self.result_columns = columns.new(width), columns.new(width)
        self.hidden_columns = columns.new(hidden)


class FusedTRACE:
    """The network of a plain TRACE, whose parameters it learns in place."""

    def __init__(
        self,
        network: TRACE,
        front: FusedFront,
        state: Parameters,
        learner: Learner,
        lanes: int,
        tokens: int,
        queries: int,
        workspace: Workspace,
    ) -> None:
        """Take over from `network`, of whose `tokens` of each lane the newest `queries` attend."""
        self.front = front
        self._learner = learner
        self._lanes, self._tokens, self._queries = lanes, tokens, queries
        self._query_rows = query_rows = lanes * queries
        # A large model's updates keep the device's memory busy: nothing gains by running beside them.
        self._aside = Aside(workspace.device, forks=network.parameters.data.numel() < LARGE_MODEL)

        def shared(layer: Linear) -> Shared:
            return Shared(state(layer.weight), state(layer.bias), workspace)

        def norm(plain: PlainNorm) -> Norm:
            return Norm(state(plain.gain), state(plain.offset))

        def take(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(name, shape, dtype)

        self._columns = columns = Columns()
        self._attention = Attention(
            norm(network.norm_attention),
            shared(network.query),
            shared(network.key_value),
            lanes,
            network.heads,
            tokens,
            queries,
            columns,
            workspace,
        )
        self._norm_hidden = norm(network.norm_hidden)
        self._into_hidden, self._out_of_hidden = shared(network.into_hidden), shared(network.out_of_hidden)
        out = shared(network.out)
        width, hidden = self._into_hidden.by_input.shape
        self._width, self._most = width, statistics_most(width)
        self._padded, self._warps = row_launch(width)
        self._uses = [
            _Use(workspace, f"use{index}", query_rows, width, hidden, columns) for index in range(DEPTH)
        ]
        columns.learn(self._into_hidden.bias, tuple(use.hidden_columns for use in self._uses))
        columns.learn(self._out_of_hidden.bias, tuple(use.result_columns for use in self._uses))
        of_norm = tuple(use.norm_columns for use in self._uses)
        columns.learn(self._norm_hidden.offset, of_norm)
        columns.learn(self._norm_hidden.gain, of_norm, along=True)
        self._mixture: FusedMixture | None = None
        if network.mixture is not None:
            self._mixture = FusedMixture(network.mixture, state, learner, lanes, width, columns, workspace)
        columns.seal(workspace)
        self._x = take("x", query_rows, width)
        self._by_mixed = take("by_mixed", lanes, width)

        self._hidden_whole = take("hidden_whole", query_rows, hidden, dtype=torch.int8)

        self._splits, self._out_splits = splits(hidden, query_rows), splits(256, lanes)
        count = width * max(self._splits * query_rows, self._out_splits * lanes)
        count = max(count, self._attention.sums)
        self._sums = take("sums", count, dtype=torch.int32)
        self._low_sums = take("low_sums", count, dtype=torch.int32)
        # The bits of the largest sizes of rows of gradients.
        self._largest = take("largest", max(lanes, query_rows), dtype=torch.int32)
        transposed = take("out_transposed", width, lanes, dtype=torch.int8)
        self._out = OutputLayer(out, lanes, self._largest, transposed, workspace)
        self.by_logits = self._out.by_logits
        self._result_row_digits = new_row_digits(workspace, "result", query_rows, width)
        self._result_scale = take("result_scale", query_rows)
        self._hidden_row_digits = new_row_digits(workspace, "hidden", query_rows, hidden)

    def forward(self) -> Tensor:
        """Return logits, float32 [lanes, 256]."""
        self._columns.clear()
        tokens = self.front.forward()
        self._attention.forward(tokens)
        self._end_attention(tokens, self._uses[0])
        for use, following in zip(self._uses, [*self._uses[1:], None], strict=True):
            self._feed_forward(use)
            if following is None:
                self._end(use)
                self._mix()
            else:
                self._between(use, following)
        return self._out.forward()

    def backward(self) -> None:
        """Learn from the gradient in `by_logits`: every weight is updated."""
        learner, out = self._learner, self._out
        out.quantise_gradient()
        gradient_sums(*out.row_digits, out.weight.by_input, self._sums, self._low_sums)
        with self._aside.branch():
            out.update(learner)
        by_tokens = self._mix_backward()
        self._end_backward(self._uses[-1], by_tokens)
        for index in reversed(range(DEPTH)):
            self._feed_forward_backward(index)
        with self._aside.branch():
            one, two = self._uses
            self._into_hidden.update(
                one.transposed, one.hidden_digits, learner, (two.transposed, two.hidden_digits)
            )
            self._out_of_hidden.update(
                one.hidden_whole, one.result_digits, learner, (two.hidden_whole, two.result_digits)
            )
        self._attention.backward(self._sums, self._low_sums, learner, self._aside)
        with self._aside.branch():
            self._attention.sum_columns()
            self._columns.run(learner)
        self.front.backward(self._attention.by_tokens)
        self._aside.join()

    def settle(self) -> None:
        """Do nothing: no update lasts beyond its step."""

    def _feed_forward(self, use: _Use) -> None:
        layer = self._into_hidden
        linear_forward(
            use.whole,
            layer.by_output,
            use.scale,
            layer.scale,
            layer.bias.weight,
            use.hidden,
            use.hidden_largest,
        )
        activate(use.hidden, use.hidden_largest, self._hidden_whole, use.hidden_whole)
        linear_sums(self._hidden_whole, self._out_of_hidden.by_output, self._sums)

    def _feed_forward_backward(self, index: int) -> None:
        use, layer = self._uses[index], self._into_hidden
        hidden_gradient(
            *self._result_row_digits,
            self._result_scale,
            self._out_of_hidden.by_input,
            use.hidden,
            use.by_hidden,
            layer.scale,
            self._largest,
            (use.scale, use.hidden_columns.largest, use.hidden_columns.product_largest),
        )
        with self._aside.branch():
            layer_columns(use.by_result, use.hidden_largest, use.result_columns, use.result_digits)
        layer_columns(
            use.by_hidden,
            use.scale,
            use.hidden_columns,
            use.hidden_digits,
            RowDigits(layer.scale, self._largest, *self._hidden_row_digits),
            found=True,
        )
        gradient_sums(*self._hidden_row_digits, layer.by_input, self._sums, self._low_sums)
        self._hidden_backward(use, self._uses[index - 1] if index else None)
        with self._aside.branch():
            transpose(use.whole, use.transposed)
            norm_columns(use.by_norm, use.normal, use.norm_columns)

    def _into_use(self, use: _Use) -> tuple[Tensor, ...]:
        """Return what the kernels take that make a use's input."""
        gain, offset = self._norm_hidden.gain.weight, self._norm_hidden.offset.weight
        return use.x, gain, offset, use.normal, use.slope, use.whole, use.scale, use.hidden_largest

    def _of_use(self, use: _Use) -> tuple[Tensor, ...]:
        """Return what the kernels take that make a use's result."""
        layer = self._out_of_hidden
        return use.x, self._sums, use.hidden_largest, layer.scale, layer.bias.weight

    def _end_attention(self, tokens: Tensor, use: _Use) -> None:
        attended_kernel[(self._query_rows,)](
            tokens,
            self._attention.attended,
            *self._into_use(use),
            self._attention.query_largest,
            self._width,
            self._most,
            self._queries,
            self._tokens,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _between(self, use: _Use, following: _Use) -> None:
        between_kernel[(self._query_rows,)](
            *self._of_use(use),
            *self._into_use(following),
            self._query_rows,
            self._width,
            self._most,
            self._splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _end(self, use: _Use) -> None:
        end_kernel[(self._query_rows,)](
            *self._of_use(use),
            self._x,
            self._out.whole,
            self._out.scale,
            self._query_rows,
            self._width,
            self._mixture is not None,
            self._splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _mix(self) -> None:
        if self._mixture is None:
            return
        mixed = self._mixture.forward(self._x)
        mixed_kernel[(self._lanes,)](
            self._x,
            mixed,
            self._out.whole,
            self._out.scale,
            self._width,
            self._tokens,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _mix_backward(self) -> Tensor | None:
        """Return the gradient by all tokens through the mixture, if there is one."""
        if self._mixture is None:
            return None
        mixed_backward_kernel[(self._lanes,)](
            self._sums,
            self._low_sums,
            self._largest,
            self._by_mixed,
            self._lanes,
            self._width,
            self._out_splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )
        by_tokens = self._mixture.backward(self._x, self._by_mixed)
        with self._aside.branch():
            self._mixture.learn(self._x, self._by_mixed)
        return by_tokens

    def _end_backward(self, use: _Use, by_tokens: Tensor | None) -> None:
        # Without a mixture its arguments are passed but not used.
        end_backward_kernel[(self._query_rows,)](
            self._sums,
            self._low_sums,
            self._largest,
            self._by_mixed,
            self._by_mixed if by_tokens is None else by_tokens,
            self._out_of_hidden.scale,
            use.by_result,
            *self._result_row_digits,
            self._result_scale,
            self._query_rows,
            self._width,
            self._tokens,
            by_tokens is not None,
            self._out_splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )

    def _hidden_backward(self, use: _Use, before: _Use | None) -> None:
        hidden_backward_kernel[(self._query_rows,)](
            self._sums,
            self._low_sums,
            self._largest,
            use.by_result,
            self._norm_hidden.gain.weight,
            use.normal,
            use.slope,
            use.by_norm,
            self._attention.by_attended if before is None else before.by_result,
            self._out_of_hidden.scale,
            *self._result_row_digits,
            self._result_scale,
            self._query_rows,
            self._width,
            before is None,
            self._splits,
            self._padded,
            num_warps=self._warps,
            **CHAINED,
        )
