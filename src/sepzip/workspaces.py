"""The memory that only lives within a step, shared by the segments in flight on a device.

Segments that share a workspace take turns in it, each waiting for an event of the one before; with one each,
their steps overlap. `memory.workspaces_for` says how many there are where memory allows, and the ledger of a
device that one more segment has to share.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from weakref import WeakSet

import torch

from .exact.workspace import Workspace
from .memory import workspaces_for
from .presets import ModelSettings

__all__ = ["Loan", "Workspaces", "workspaces"]


class _Place:
    """A workspace, who has it on loan, and when the last that worked in it is done."""

    def __init__(self, device: torch.device) -> None:
        self.workspace = Workspace(device)
        self.loans: WeakSet[Loan] = WeakSet()
        self._lock = threading.Lock()
        self._done: torch.cuda.Event | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._lock:
            stream = torch.cuda.current_stream(self.workspace.device)
            if self._done is not None:
                stream.wait_event(self._done)
            try:
                yield
            finally:
                # Also what was queued before an error came works in it.
                self._done = torch.cuda.Event()
                self._done.record(stream)


class Loan:
    """A segment's right to work in a workspace, which ends with this object."""

    def __init__(self, place: _Place, shares: bool) -> None:
        self.shares = shares
        """Whether there was no memory for a workspace of its own."""
        self._place = place
        place.loans.add(self)

    @property
    def workspace(self) -> Workspace:
        """What is worked in: by models whenever they are made, by their steps in turns."""
        return self._place.workspace

    def turn(self) -> AbstractContextManager[None]:
        """Let the current stream, in what is queued inside, wait for whoever used the workspace before.

        Others wait meanwhile. Nobody waits for ever: who has queued AHEAD chunks waits for the first of them.
        """
        return self._place.turn()


class Workspaces:
    """The workspaces of one device.

    `most`, where it is set, is how many the models that begin afterwards share, of each kind, instead of what
    `workspaces_for` says: what sharing saves and costs can then be measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.most: int | None = None
        self._device = device
        self._lock = threading.Lock()
        # A workspace goes when the last segment that works in it does.
        self._places: dict[tuple[ModelSettings, int], WeakSet[_Place]] = {}

    def lend(self, model: ModelSettings, lanes: int, shares: bool = False) -> Loan:
        """Return a loan of the workspace that fewest have, a new one unless there are enough of this kind.

        With `shares` any are enough: there is no memory for more.
        """
        most = workspaces_for(model, lanes) if self.most is None else self.most
        with self._lock:
            self._places = {kind: places for kind, places in self._places.items() if places}
            places = self._places.setdefault((model, lanes), WeakSet())
            known = list(places)
            # Those left by whom their memory was promised to.
            left = [place for place in known if all(loan.shares for loan in place.loans)]
            if left and not shares:
                known = left
            elif not known or not (shares or (most is not None and len(known) >= most)):
                known = [_Place(self._device)]
                places.update(known)
            return Loan(min(known, key=lambda place: len(place.loans)), shares)


@cache
def workspaces(device: torch.device) -> Workspaces:
    """Return the workspaces of a device, the same ones every time."""
    return Workspaces(device)
