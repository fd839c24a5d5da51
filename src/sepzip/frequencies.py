"""From logits to integer frequencies: the only border between floats and the coder."""

from __future__ import annotations

import torch
from torch import Tensor

from .exact.softmax import exponentials, loss_gradient

__all__ = ["SYMBOLS", "TOTAL_BITS", "Frequencies"]

SYMBOLS = 256
TOTAL_BITS = 24
_SHARED = (1 << TOTAL_BITS) - SYMBOLS
_SHIFT = 36


class Frequencies:
    """The frequencies of all 256 symbols in each lane; they sum to 2^24 and each is at least 1.

    Symbol i starts at i + floor(c * r / 2^36), c being the sum of the exponentials (in units of 2^-24)
    of the symbols before it and r the ceiling of (2^24 - 256) * 2^36 / (their sum over all symbols).
    """

    def __init__(self, logits: Tensor) -> None:
        """Take logits, float32 [lanes, 256], finite."""
        self._whole, self._total = exponentials(logits)
        self._ends = self._whole.cumsum(1)
        self._ratio = (self._total + ((_SHARED << _SHIFT) - 1)).floor_divide(self._total)

    def intervals(self, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Return the start and the frequency of one symbol a lane, int64 [lanes] each."""
        true = symbols.unsqueeze(1)
        end = self._ends.gather(1, true)
        start = end - self._whole.gather(1, true)
        low = (start * self._ratio) >> _SHIFT
        high = (end * self._ratio) >> _SHIFT
        return (low + true).squeeze(1), (high - low + 1).squeeze(1)

    def starts(self) -> Tensor:
        """Return the start of every symbol, int64 [lanes, 256]."""
        order = torch.arange(SYMBOLS, device=self._ends.device)
        return (((self._ends - self._whole) * self._ratio) >> _SHIFT).add_(order)

    def loss_gradient(self, symbols: Tensor) -> Tensor:
        """Return the gradient of the log-loss of these symbols by the logits, float32 [lanes, 256]."""
        return loss_gradient(self._whole, self._total, symbols)
