"""The range decoder on the model's device: the same arithmetic as `plain.BlockDecoder`, in tensors.

Nothing in it waits for the host, so it can stand inside a captured step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..frequencies import SYMBOLS, TOTAL_BITS
from . import RANGE_FIRST, RANGE_LEAST, WORD_BITS, coders_for
from .plain import words_from_payload

__all__ = ["DeviceDecoder"]


class DeviceDecoder:
    """Finds the symbols of one block after another; its tensors keep their addresses."""

    def __init__(self, lanes: int, lanes_per_coder: int, capacity: int, device: torch.device) -> None:
        """Make room for payloads of up to `capacity` words."""
        self.coders = coders_for(lanes, lanes_per_coder)
        self.capacity = capacity
        self._lanes = lanes
        # The last place holds a zero, which is what reading past a payload's end gives.
        self._words = torch.zeros(capacity + 1, dtype=torch.int64, device=device)
        self._code = torch.zeros(self.coders, dtype=torch.int64, device=device)
        self._range = torch.zeros(self.coders, dtype=torch.int64, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._count = 0

    def load(self, payload: bytes) -> None:
        """Begin the block with this payload; CorruptError if it cannot be one."""
        words = torch.from_numpy(words_from_payload(payload, self.coders))
        self._count = len(words)
        self._words.zero_()
        self._words[: len(words)].copy_(words)
        self._code.copy_((words[: self.coders] << WORD_BITS) | words[self.coders : 2 * self.coders])
        self._range.fill_(RANGE_FIRST)
        self._position.fill_(2 * self.coders)

    @property
    def words_left(self) -> int:
        """The words not yet read: 0 at the end of a block; below 0, more were read than there are."""
        return self._count - int(self._position.item())

    def step(self, starts: Tensor, active: int) -> Tensor:
        """Return one symbol a lane, int64 [lanes]; lanes from `active` on have none left and give 0.

        `starts` is int64 [lanes, 256].
        """
        found = []
        for first in range(0, active, self.coders):
            found.append(self._group(starts[first : min(first + self.coders, active)]))
        if active < self._lanes:
            found.append(torch.zeros(self._lanes - active, dtype=torch.int64, device=starts.device))
        return torch.cat(found)

    def _group(self, starts: Tensor) -> Tensor:
        active = starts.shape[0]
        code, width = self._code[:active], self._range[:active]
        unit = width >> TOTAL_BITS
        slot = torch.div(code, unit, rounding_mode="floor").clamp_(0, (1 << TOTAL_BITS) - 1)
        found = (starts <= slot.unsqueeze(1)).sum(1, keepdim=True).sub_(1)
        start = starts.gather(1, found).squeeze(1)
        end = starts.gather(1, (found + 1).clamp_(max=SYMBOLS - 1)).squeeze(1)
        found = found.squeeze(1)
        end = torch.where(found == SYMBOLS - 1, 1 << TOTAL_BITS, end)
        code.sub_(unit * start)
        width.copy_(unit.mul_(end.sub_(start)))
        reads = width < RANGE_LEAST
        rank = reads.cumsum(0)
        places = (self._position + rank).sub_(1).clamp_(max=self.capacity)
        word = self._words.index_select(0, places)
        code.copy_(torch.where(reads, (code << WORD_BITS) | word, code))
        width.copy_(torch.where(reads, width << WORD_BITS, width))
        self._position.add_(rank[-1:])
        return found
