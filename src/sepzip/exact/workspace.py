"""Memory that lives only within a step, at addresses that stay: what a captured step works in."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

__all__ = ["Workspace"]


class Workspace:
    """Tensors by name, made when first asked for and kept.

    Nothing in them outlasts a step, so models whose steps never overlap in time can work in one.
    Whoever adds to a tensor sets it to zero within the same step. Models may be made in it by several threads
    at a time, and while steps of others run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._tensors: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}

    @property
    def size(self) -> int:
        """The bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the tensor of this name, shape and type; its content is whatever was written last."""
        key = (name, shape, dtype)
        with self._lock:
            if key not in self._tensors:
                self._tensors[key] = torch.empty(shape, dtype=dtype, device=self.device)
            return self._tensors[key]
