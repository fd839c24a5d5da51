"""The memory that only lives within a step, shared by the segments in flight on a device.

Steps of large models fill the device, so that two at a time would only wait for each other: they take
turns in one workspace, each waiting for an event of the one before. Small ones get a workspace each and
overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from weakref import WeakValueDictionary

import torch

from .exact.workspace import Workspace
from .memory import LARGE_MODEL, parameter_count
from .presets import ModelSettings

__all__ = ["Turns", "Workspaces", "workspaces"]


class Turns:
    """A workspace, and the order in which streams work in it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lock = threading.RLock()
        self._done: torch.cuda.Event | None = None

    @contextmanager
    def take(self) -> Iterator[None]:
        """Let the current stream, in what is queued inside, wait for whoever used the workspace before."""
        with self._lock:
            stream = torch.cuda.current_stream(self.workspace.device)
            if self._done is not None:
                stream.wait_event(self._done)
            yield
            self._done = torch.cuda.Event()
            self._done.record(stream)


class Workspaces:
    """The workspaces of one device.

    Where `shared` is set to True, all models that begin afterwards share them, and with False none: what
    sharing saves and costs can then be measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.shared: bool | None = None
        self._device = device
        self._lock = threading.Lock()
        # A workspace goes when the last segment that works in it does.
        self._turns: WeakValueDictionary[tuple[ModelSettings, int], Turns] = WeakValueDictionary()

    def lend(self, model: ModelSettings, lanes: int) -> Turns:
        """Return the workspace for a segment's steps: one that others share if the model is large."""
        shared = parameter_count(model, lanes) >= LARGE_MODEL if self.shared is None else self.shared
        if not shared:
            return Turns(Workspace(self._device))
        with self._lock:
            turns = self._turns.get((model, lanes))
            if turns is None:
                turns = self._turns[model, lanes] = Turns(Workspace(self._device))
            return turns


@cache
def workspaces(device: torch.device) -> Workspaces:
    """Return the workspaces of a device, the same ones every time."""
    return Workspaces(device)
