"""PatchTST as fused kernels: the twin of networks/patchtst.py.

A row is a token of a lane. Between the products and the attention stand the two batch norms: a column's sums
over all rows are made in one pass, and what they come to is used in the next.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ...exact.kernels.aside import Aside
from ...exact.kernels.batch_norm import FusedBatchNorm
from ...exact.kernels.column_sums import layer_columns, norm_columns
from ...exact.kernels.columns import Columns, ColumnSums
from ...exact.kernels.digits import RowDigits
from ...exact.kernels.elements import CHAINED
from ...exact.kernels.linear import activate, linear_forward, linear_sums, transpose
from ...exact.kernels.linear_backward import gradient_sums, hidden_gradient, input_gradient
from ...exact.kernels.parameters import Learner
from ...exact.kernels.products import splits
from ...exact.kernels.quantise import quantise_rows
from ...exact.kernels.residual import add_layer, add_newest, add_product
from ...exact.kernels.softmax_attention import attend, attend_backward
from ...exact.workspace import Workspace
from ...memory import LARGE_MODEL
from ..patchtst import BatchNorm, PatchTST
from ..trace import Linear
from .mixture import FusedMixture
from .output import OutputLayer
from .shared import FusedFront, Parameters, Shared, new_digits, new_row_digits
from .token_front import fuse_front, token_count
from .trace_rows import mixed_kernel

__all__ = ["FusedPatchTST", "fuse", "fuse_front"]


def fuse(
    network: PatchTST,
    front: FusedFront,
    state: Parameters,
    learner: Learner,
    lanes: int,
    steps: Tensor,
    workspace: Workspace,
) -> FusedPatchTST:
    """Return the kernels of a plain network, behind what `fuse_front` made of it.

    `steps`, int64 [1], counts the steps before.
    """
    return FusedPatchTST(network, front, state, learner, lanes, token_count(network.front), workspace)


class _Layer:
    """A layer of all rows: its weight, its int8 input, and the gradient by its result."""

    def __init__(
        self,
        name: str,
        weight: Shared,
        rows: int,
        columns: Columns,
        workspace: Workspace,
        beside: _Layer | None = None,
    ) -> None:
        """Make room for it; a layer `beside` it has the same input."""

        def take(part: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(f"{name}.{part}", shape, dtype)

        self.weight = weight
        inputs, outputs = weight.by_input.shape
        self._beside = beside
        if beside is None:
            self.whole, self.scale = take("whole", rows, inputs, dtype=torch.int8), take("scale", rows)
            self.transposed = take("transposed", inputs, rows, dtype=torch.int8)
        else:
            self.whole, self.scale, self.transposed = beside.whole, beside.scale, beside.transposed
        self.row_digits = new_row_digits(workspace, name, rows, outputs)
        # The bits of the largest sizes that the digits' scales come from.
        self.largest = take("largest", rows, dtype=torch.int32)
        self.digits = new_digits(workspace, f"{name}.digits", rows, outputs)
        self.columns: ColumnSums = columns.new(outputs)
        columns.learn(weight.bias, (self.columns,))

    @property
    def rows(self) -> RowDigits:
        """What `layer_columns` makes for the gradient by the input."""
        return RowDigits(self.weight.scale, self.largest, *self.row_digits)

    def forward(self, out: Tensor, largest: Tensor | None = None) -> None:
        """Write the result, float32 [rows, outputs]."""
        weight = self.weight
        linear_forward(
            self.whole, weight.by_output, self.scale, weight.scale, weight.bias.weight, out, largest
        )

    def input_gradient(self, out: Tensor, added: Tensor | None = None) -> None:
        """Write the gradient by the input, float32 [rows, inputs], behind `added` if given."""
        input_gradient(*self.row_digits, self.largest, self.weight.by_input, out, added)

    def update(self, learner: Learner) -> None:
        """Learn the weight, after the layer beside it; the bias learns with the columns."""
        if self._beside is None:
            transpose(self.whole, self.transposed)
        self.weight.update(self.transposed, self.digits, learner)


class FusedPatchTST:
    """The network of a plain PatchTST, whose parameters it learns in place."""

    def __init__(
        self,
        network: PatchTST,
        front: FusedFront,
        state: Parameters,
        learner: Learner,
        lanes: int,
        tokens: int,
        workspace: Workspace,
    ) -> None:
        """Take over from `network`, which sees so many tokens of each lane."""
        self.front = front
        self._learner = learner
        self._lanes, self._heads = lanes, network.heads
        rows = lanes * tokens
        # A large model's updates keep the device's memory busy: nothing gains by running beside them.
        self._aside = Aside(workspace.device, forks=network.parameters.data.numel() < LARGE_MODEL)
        self._columns = columns = Columns()

        def shared(plain: Linear) -> Shared:
            return Shared(state(plain.weight), state(plain.bias), workspace)

        def layer(name: str, plain: Linear, beside: _Layer | None = None) -> _Layer:
            return _Layer(name, shared(plain), rows, columns, workspace, beside)

        def norm(name: str, plain: BatchNorm) -> FusedBatchNorm:
            gain, offset = state(plain.gain), state(plain.offset)
            return FusedBatchNorm(name, gain, offset, plain.kept, rows, columns, workspace)

        def take(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(name, shape, dtype)

        self._key_value = layer("key_value", network.key_value)
        self._query = layer("query", network.query, self._key_value)
        self._attended = layer("attended", network.attended)
        self._norm_attention = norm("norm_attention", network.norm_attention)
        self._into_hidden = layer("into_hidden", network.into_hidden)
        self._norm_hidden = norm("norm_hidden", network.norm_hidden)
        self._out_of_hidden, out = shared(network.out_of_hidden), shared(network.out)
        width, hidden = self._into_hidden.weight.by_input.shape
        self._result_columns = columns.new(width)
        columns.learn(self._out_of_hidden.bias, (self._result_columns,))
        self._mixture: FusedMixture | None = None
        if network.mixture is not None:
            self._mixture = FusedMixture(network.mixture, state, learner, lanes, width, columns, workspace)
        columns.seal(workspace)

        self._asked, self._keys_and_values = (
            take("asked", rows, width),
            take("keys_and_values", rows, 2 * width),
        )
        self._got, self._x, self._y = (take(name, rows, width) for name in ("got", "x", "y"))
        self._mixed_sizes = width, tokens, int(triton.next_power_of_2(width))
        self._hidden = take("hidden", rows, hidden)
        self._hidden_largest = take("hidden_largest", rows, dtype=torch.int32)
        self._hidden_whole = take("hidden_whole", rows, hidden, dtype=torch.int8)
        self._hidden_transposed = take("hidden_transposed", hidden, rows, dtype=torch.int8)
        self._newest_normal = take("newest_normal", lanes, width)
        largest = take("out_largest", lanes, dtype=torch.int32)
        transposed = take("out_transposed", width, lanes, dtype=torch.int8)
        self._out = OutputLayer(out, lanes, largest, transposed, workspace)
        self.by_logits = self._out.by_logits

        self._attended_splits, self._hidden_splits = splits(width, rows), splits(hidden, rows)
        count = width * rows * max(self._attended_splits, self._hidden_splits)
        self._sums = take("sums", count, dtype=torch.int32), take("low_sums", count, dtype=torch.int32)
        self._by_newest = take("by_newest", lanes, width)
        self._by_y, self._by_result = take("by_y", rows, width), take("by_result", rows, width)
        self._result_row_digits = new_row_digits(workspace, "result", rows, width)
        self._result_scale = take("result_scale", rows)
        self._result_digits = new_digits(workspace, "result_digits", rows, width)
        self._attended_scale = take("attended_scale", rows)
        self._by_hidden = take("by_hidden", rows, hidden)
        self._by_attended, self._by_got = take("by_attended", rows, width), take("by_got", rows, width)
        self._by_query, self._by_key_value = (
            take("by_query", rows, width),
            take("by_key_value", rows, 2 * width),
        )
        self._by_half, self._by_tokens = take("by_half", rows, width), take("by_tokens", rows, width)

    def forward(self) -> Tensor:
        """Return logits, float32 [lanes, 256]."""
        self._columns.clear()
        out, tokens = self._out, self.front.forward().view(self._x.shape)
        self._attend(tokens)
        self._feed_forward()
        if self._mixture is None:
            self._norm_hidden.forward(None, out.whole, out.scale, newest_normal=self._newest_normal)
        else:
            self._norm_hidden.forward(self._x)
            mixed = self._mixture.forward(self._x)
            mixed_kernel[(self._lanes,)](
                self._x,
                mixed,
                out.whole,
                out.scale,
                *self._mixed_sizes,
                num_warps=2,
                **CHAINED,
            )
        return out.forward()

    def backward(self) -> None:
        """Learn from the gradient in `by_logits`: every weight is updated."""
        learner, out = self._learner, self._out
        out.quantise_gradient()
        input_gradient(*out.row_digits, out.largest, out.weight.by_input, self._by_newest)
        with self._aside.branch():
            out.update(learner)
        self._norm_hidden_backward()
        self._feed_forward_backward()
        self._attention_backward()
        with self._aside.branch():
            self._columns.run(learner)
        self.front.backward(self._by_tokens)
        self._aside.join()

    def settle(self) -> None:
        """Do nothing: no update lasts beyond its step."""

    def _attend(self, tokens: Tensor) -> None:
        """The first half of the layer, up to the quantised input of the feed-forward one."""
        query, key_value, attended = self._query, self._key_value, self._attended
        quantise_rows(tokens, key_value.whole, key_value.scale, (key_value.largest, query.largest))
        key_value.forward(self._keys_and_values)
        query.forward(self._asked)
        attend(self._asked, self._keys_and_values, self._got, self._lanes, self._heads)
        quantise_rows(self._got, attended.whole, attended.scale)
        linear_sums(attended.whole, attended.weight.by_output, self._sums[0])
        norm, hidden = self._norm_attention, self._into_hidden
        self._add_layer(tokens, self._attended_splits, attended.scale, attended.weight, norm)
        norm.forward(self._y, hidden.whole, hidden.scale, self._hidden_largest)

    def _add_layer(self, x: Tensor, parts: int, scale: Tensor, weight: Shared, norm: FusedBatchNorm) -> None:
        add_layer(x, self._sums[0], parts, scale, weight.scale, weight.bias.weight, norm.normal, norm.largest)

    def _feed_forward(self) -> None:
        self._into_hidden.forward(self._hidden, self._hidden_largest)
        activate(self._hidden, self._hidden_largest, self._hidden_whole, self._hidden_transposed)
        linear_sums(self._hidden_whole, self._out_of_hidden.by_output, self._sums[0])
        self._add_layer(
            self._y, self._hidden_splits, self._hidden_largest, self._out_of_hidden, self._norm_hidden
        )

    def _norm_hidden_backward(self) -> None:
        norm, gradient = self._norm_hidden, self._by_newest
        if self._mixture is None:
            norm_columns(gradient, self._newest_normal, norm.columns)
        else:
            by_x = self._mixture.backward(self._x, gradient)
            with self._aside.branch():
                self._mixture.learn(self._x, gradient)
            add_newest(by_x, gradient, self._by_y, norm.columns.largest)
            gradient = self._by_y
            norm_columns(gradient, norm.normal, norm.columns, found=True)
        norm.backward(
            gradient,
            self._by_result,
            self._out_of_hidden.scale,
            self._result_row_digits,
            self._result_scale,
            self._into_hidden.largest,
        )

    def _feed_forward_backward(self) -> None:
        layer, learner = self._into_hidden, self._learner
        hidden_gradient(
            *self._result_row_digits,
            self._result_scale,
            self._out_of_hidden.by_input,
            self._hidden,
            self._by_hidden,
            layer.weight.scale,
            layer.largest,
            (layer.scale, layer.columns.largest, layer.columns.product_largest),
        )
        with self._aside.branch():
            layer_columns(self._by_result, self._hidden_largest, self._result_columns, self._result_digits)
            self._out_of_hidden.update(self._hidden_transposed, self._result_digits, learner)
        layer_columns(self._by_hidden, layer.scale, layer.columns, layer.digits, layer.rows, found=True)
        gradient_sums(*layer.row_digits, layer.weight.by_input, *self._sums)
        norm, attended = self._norm_attention, self._attended
        with self._aside.branch():
            layer.update(learner)
        add_product(
            self._by_result, self._sums, self._hidden_splits, layer.largest, self._by_y, norm.columns.largest
        )
        norm_columns(self._by_y, norm.normal, norm.columns, found=True)
        norm.backward(
            self._by_y, self._by_attended, attended.weight.scale, attended.row_digits, self._attended_scale
        )

    def _attention_backward(self) -> None:
        query, key_value, attended = self._query, self._key_value, self._attended
        input_gradient(*attended.row_digits, self._attended_scale, attended.weight.by_input, self._by_got)
        with self._aside.branch():
            layer_columns(self._by_attended, attended.scale, attended.columns, attended.digits)
            attended.update(self._learner)
        attend_backward(
            self._by_got,
            self._asked,
            self._keys_and_values,
            self._by_query,
            self._by_key_value,
            query.weight.scale,
            key_value.weight.scale,
            query.largest,
            key_value.largest,
            self._lanes,
            self._heads,
        )
        layer_columns(
            self._by_key_value, key_value.scale, key_value.columns, key_value.digits, key_value.rows
        )
        layer_columns(self._by_query, query.scale, query.columns, query.digits, query.rows)
        # In the order in which the plain twin adds them.
        key_value.input_gradient(self._by_half, self._by_attended)
        query.input_gradient(self._by_tokens, self._by_half)
        with self._aside.branch():
            key_value.update(self._learner)
            query.update(self._learner)
