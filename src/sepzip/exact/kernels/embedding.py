"""The embedding of bytes, fused with the update of its table; twin of embedding.py and join_positions."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..workspace import Workspace
from .elements import CHAINED, follow
from .parameters import Learner, Parameter
from .symbols import load_symbols, look_up
from .table_update import BLOCK, TableUpdate, clear, part

__all__ = ["FusedEmbedding"]


class FusedEmbedding:
    """The embedded bytes of the context side by side, and the update of their table.

    Its bits are those of `sigmoid_embedding` or, not `squashed`, `embedding`, and `adam`; with positions,
    of `join_positions` behind them. Four kernels a step: one forward, three backward.
    """

    def __init__(
        self,
        table: Parameter,
        history: Tensor,
        position: Tensor,
        context: int,
        learner: Learner,
        workspace: Workspace,
        positions: Tensor | None = None,
        squashed: bool = True,
    ) -> None:
        """Take the table, [256, embedding], and where a step finds the rest.

        `history` is uint8 [rows, lanes], of which a step reads `context` rows from row `position` on, int64
        [1]; `positions` are float32 [context, more]. All tensors are read when a step runs.
        """
        self._table = table.weight
        self._history = history
        self._position = position
        self._context = context
        self._squashed = squashed
        self._lanes, self._embedding = history.shape[1], table.weight.shape[1]
        self._update = TableUpdate(table, history, position, context, learner, workspace, squashed)
        self._more = 0 if positions is None else positions.shape[1]
        self._positions = table.weight if positions is None else positions.contiguous()
        values = self._embedding + self._more
        self._out = workspace.take("embedding", (self._lanes, context * values))

    def forward(self) -> Tensor:
        """Return [lanes, context * (embedding + more)], the oldest byte first; valid until the next step."""
        count = self._out.numel()
        programs = triton.cdiv(count, BLOCK)
        sums = self._update.sums
        _embed[(programs,)](
            self._table,
            self._positions,
            self._history,
            self._position,
            self._out,
            sums,
            sums.numel(),
            self._lanes,
            count,
            self._context,
            self._embedding,
            self._more,
            self._squashed,
            BLOCK,
            part(sums, programs),
            **CHAINED,
        )
        return self._out

    def backward(self, gradient: Tensor) -> None:
        """Update the table by the gradient of the last forward pass's result, contiguous, of its shape."""
        self._update.backward(gradient.view(self._out.shape))


@triton.jit
def _embed(
    table,
    positions,
    history,
    position,
    out,
    sums,
    sums_count,
    lanes,
    count,
    context: tl.constexpr,
    embedding: tl.constexpr,
    more: tl.constexpr,
    squashed: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
):
    follow()
    clear(sums, sums_count, PART)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    row, column = place // (embedding + more), place % (embedding + more)
    symbol = load_symbols(history, position, row % context, row // context, lanes, inside)
    is_byte = inside & (column < embedding)
    if squashed:
        x = look_up(table, symbol, column, embedding, is_byte)
    else:
        x = tl.load(table + symbol * embedding + column, mask=is_byte, other=0.0)
    if more > 0:
        where = (row % context) * more + column - embedding
        x = tl.where(is_byte, x, tl.load(positions + where, mask=inside & (column >= embedding), other=0.0))
    tl.store(out + place, x, mask=inside)
