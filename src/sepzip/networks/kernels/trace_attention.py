"""TRACE's attention with the norm before it, forward and backward, and the updates of their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ...exact.kernels.aside import Aside
from ...exact.kernels.attention import attend, attend_backward
from ...exact.kernels.column_sums import layer_columns, norm_columns
from ...exact.kernels.columns import Columns
from ...exact.kernels.digits import RowDigits
from ...exact.kernels.elements import CHAINED
from ...exact.kernels.linear import linear_forward, transpose
from ...exact.kernels.linear_backward import gradient_sums
from ...exact.kernels.parameters import Learner
from ...exact.kernels.products import splits
from ...exact.layer_norm import statistics_most
from ...exact.workspace import Workspace
from .rows import row_launch
from .shared import Norm, Shared, new_digits, new_row_digits
from .trace_rows import norm_backward_kernel, norm_kernel

__all__ = ["Attention"]


class Attention:
    """Keys and values of all tokens of each lane, queries of the newest, and what their passes keep."""

    def __init__(
        self,
        norm: Norm,
        query: Shared,
        key_value: Shared,
        lanes: int,
        heads: int,
        tokens: int,
        queries: int,
        columns: Columns,
        workspace: Workspace,
    ) -> None:
        """Take the layers; of `tokens` of each lane the newest `queries` attend."""

        def take(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return workspace.take(name, shape, dtype)

        self._norm, self._query, self._key_value = norm, query, key_value
        self._lanes, self._heads, self._tokens, self._queries = lanes, heads, tokens, queries
        self._width = width = len(norm.gain.weight)
        self._rows, self._query_rows = rows, query_rows = lanes * tokens, lanes * queries
        self._columns = columns.new(width)
        self._query_columns, self._key_value_columns = columns.new(width), columns.new(2 * width)
        columns.learn(query.bias, (self._query_columns,))
        columns.learn(key_value.bias, (self._key_value_columns,))
        columns.learn(norm.offset, (self._columns,))
        columns.learn(norm.gain, (self._columns,), along=True)

        self._normal, self._slope = take("normal", rows, width), take("slope", rows)
        self._whole, self._scale = take("whole", rows, width, dtype=torch.int8), take("scale", rows)
        self._transposed = take("transposed", width, rows, dtype=torch.int8)
        self._newest_whole, self._newest_scale = self._whole, self._scale
        self._newest_transposed = self._transposed
        if queries < tokens:
            self._newest_whole = take("newest_whole", query_rows, width, dtype=torch.int8)
            self._newest_scale = take("newest_scale", query_rows)
            self._newest_transposed = take("newest_transposed", width, query_rows, dtype=torch.int8)
        self._asked = take("asked", query_rows, width)
        self._keys_and_values = take("keys_and_values", rows, 2 * width)
        self.attended = take("attended", query_rows, width)
        """What the newest tokens got, float32 [queries' rows, width]."""

        self._query_splits, self._key_value_splits = splits(width, query_rows), splits(2 * width, rows)
        self.sums = width * self._key_value_splits * rows
        """How many integer sums of each digit `backward` is given room for."""
        count = width * self._query_splits * query_rows
        self._query_sums = take("query_sums", count, dtype=torch.int32)
        self._query_low_sums = take("query_low_sums", count, dtype=torch.int32)
        # The bits of the largest sizes of rows of gradients.
        self.query_largest = take("query_largest", query_rows, dtype=torch.int32)
        """To be set to zero before `backward`."""
        self._key_value_largest = take("key_value_largest", rows, dtype=torch.int32)
        self._query_row_digits = new_row_digits(workspace, "query", query_rows, width)
        self._key_value_row_digits = new_row_digits(workspace, "key_value", rows, 2 * width)
        self._query_digits = new_digits(workspace, "query_digits", query_rows, width)
        self._key_value_digits = new_digits(workspace, "key_value_digits", rows, 2 * width)
        self.by_attended = take("by_attended", query_rows, width)
        """The gradient by the newest tokens plus what they got: to be written before `backward`."""
        self._by_query = take("by_query", query_rows, width)
        self._by_key_value = take("by_key_value", rows, 2 * width)
        self._by_norm, self.by_tokens = take("by_norm", rows, width), take("by_tokens", rows, width)
        """The gradient by all tokens, float32 [rows, width], which `backward` writes."""

    def forward(self, tokens: Tensor) -> None:
        """Let the newest tokens attend to all, float32 [rows, width]."""
        padded, warps = row_launch(self._width)
        norm_kernel[(self._rows,)](
            tokens,
            self._norm.gain.weight,
            self._norm.offset.weight,
            self._normal,
            self._slope,
            self._whole,
            self._scale,
            self._newest_whole,
            self._newest_scale,
            self._key_value_largest,
            self._width,
            statistics_most(self._width),
            self._queries,
            self._tokens,
            padded,
            num_warps=warps,
            **CHAINED,
        )
        linear_forward(
            self._whole,
            self._key_value.by_output,
            self._scale,
            self._key_value.scale,
            self._key_value.bias.weight,
            self._keys_and_values,
        )
        linear_forward(
            self._newest_whole,
            self._query.by_output,
            self._newest_scale,
            self._query.scale,
            self._query.bias.weight,
            self._asked,
        )
        attend(self._asked, self._keys_and_values, self.attended, self._lanes, self._heads)

    def backward(self, sums: Tensor, low_sums: Tensor, learner: Learner, aside: Aside) -> None:
        """Write the gradient by all tokens, and learn the weights beside; `sums` says how many each has."""
        query, key_value = self._query, self._key_value
        attend_backward(
            self.by_attended,
            self._asked,
            self._keys_and_values,
            self._by_query,
            self._by_key_value,
            query.scale,
            key_value.scale,
            self.query_largest,
            self._key_value_largest,
            self._lanes,
            self._heads,
        )
        layer_columns(
            self._by_key_value,
            self._scale,
            self._key_value_columns,
            self._key_value_digits,
            RowDigits(key_value.scale, self._key_value_largest, *self._key_value_row_digits),
        )
        gradient_sums(*self._key_value_row_digits, key_value.by_input, sums, low_sums)
        layer_columns(
            self._by_query,
            self._newest_scale,
            self._query_columns,
            self._query_digits,
            RowDigits(query.scale, self.query_largest, *self._query_row_digits),
        )
        gradient_sums(*self._query_row_digits, query.by_input, self._query_sums, self._query_low_sums)
        with aside.branch():
            transpose(self._whole, self._transposed)
            key_value.update(self._transposed, self._key_value_digits, learner)
            if self._queries < self._tokens:
                transpose(self._newest_whole, self._newest_transposed)
            query.update(self._newest_transposed, self._query_digits, learner)
        padded, warps = row_launch(self._width)
        norm_backward_kernel[(self._rows,)](
            sums,
            low_sums,
            self._key_value_largest,
            self._query_sums,
            self._query_low_sums,
            self.query_largest,
            self.by_attended,
            self._norm.gain.weight,
            self._normal,
            self._slope,
            self._by_norm,
            self.by_tokens,
            self._rows,
            self._query_rows,
            self._width,
            self._queries,
            self._tokens,
            self._key_value_splits,
            self._query_splits,
            padded,
            num_warps=warps,
            **CHAINED,
        )

    def sum_columns(self) -> None:
        """Sum up what the norm learns from, after `backward`."""
        norm_columns(self._by_norm, self._normal, self._columns)
