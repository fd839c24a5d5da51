"""What segments share on a device: the memory of a step, and streams, one after the other."""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass

import pytest
import torch

from conftest import TINY
from sepzip.memory import workspaces_for
from sepzip.presets import NETWORKS
from sepzip.tensors import _Streams
from sepzip.workspaces import Workspaces, workspaces

CPU = torch.device("cpu")
LARGE = NETWORKS["pac"][True].model


def test_large_models_of_one_kind_take_turns() -> None:
    pool = Workspaces(CPU)
    assert workspaces_for(LARGE, 4) == 2
    loans = [pool.lend(LARGE, 4) for _ in range(4)]
    assert sorted(Counter(id(loan.workspace) for loan in loans).values()) == [2, 2]
    assert all(pool.lend(LARGE, 5).workspace is not loan.workspace for loan in loans)


def test_a_workspace_goes_with_the_last_that_works_in_it() -> None:
    pool = Workspaces(CPU)
    first, second = pool.lend(TINY, 4), pool.lend(TINY, 4, shares=True)
    gone = weakref.ref(first.workspace)
    del first
    assert gone() is second.workspace
    del second
    assert gone() is None


def test_small_models_have_one_each() -> None:
    pool = Workspaces(CPU)
    assert workspaces_for(TINY, 4) is None
    first = pool.lend(TINY, 4)
    assert pool.lend(TINY, 4).workspace is not first.workspace


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_few_are_shared_evenly(most: int) -> None:
    pool = Workspaces(CPU)
    pool.most = most
    loans = [pool.lend(TINY, 4) for _ in range(7)]
    for count in range(1, 8):
        users = Counter(id(loan.workspace) for loan in loans[:count])
        assert len(users) == min(most, count)
        assert max(users.values()) - min(users.values()) <= 1
    # Whoever comes next takes the place of those that have ended.
    left = loans[0].workspace
    loans = [loans[0], *(loan for loan in loans if loan.workspace is not left)]
    assert pool.lend(TINY, 4).workspace is left


def test_how_many_there_are_can_be_set() -> None:
    pool = Workspaces(CPU)
    first = pool.lend(TINY, 4)
    pool.most = 1
    assert pool.lend(TINY, 4).workspace is first.workspace
    pool.most = None
    assert pool.lend(TINY, 4).workspace is not first.workspace


def test_where_memory_is_short_any_workspace_is_enough() -> None:
    pool = Workspaces(CPU)
    # Who was promised no memory for one may come before who was.
    first = pool.lend(TINY, 4, shares=True)
    owner = pool.lend(TINY, 4)
    assert owner.workspace is first.workspace
    second = pool.lend(TINY, 4)
    assert second.workspace is not first.workspace
    assert pool.lend(TINY, 4, shares=True).workspace is second.workspace
    # One that its owner has left goes to the next that is promised one.
    left = owner.workspace
    del owner
    assert pool.lend(TINY, 4).workspace is left
    assert pool.lend(TINY, 5, shares=True).workspace not in (left, second.workspace)


class Device:
    """Notes which stream waits for an event of which other one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._here = threading.local()
        self.waits: list[tuple[str, str]] = []
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: self._here.stream)

    def enter(self, name: str) -> None:
        """Let the calling thread work on the stream of this name."""
        self._here.stream = Stream(name, self.waits)


@dataclass
class Stream:
    """A stream, and the waits that it adds to."""

    name: str
    waits: list[tuple[str, str]]

    def wait_event(self, event: Event) -> None:
        self.waits.append((self.name, event.stream.name))


class Event:
    """An event of the stream that recorded it."""

    stream: Stream

    def record(self, stream: Stream) -> None:
        self.stream = stream


def test_a_turn_waits_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    pool = Workspaces(CPU)
    pool.most = 1
    first, second = pool.lend(TINY, 4), pool.lend(TINY, 4)
    for name, loan in (("a", first), ("b", second), ("a", first)):
        device.enter(name)
        with loan.turn():
            pass
    assert device.waits == [("b", "a"), ("a", "b")]
    device.enter("b")
    with pytest.raises(KeyError), second.turn():
        raise KeyError
    device.enter("a")
    with first.turn():
        pass
    # What was queued before an error came may be under way.
    assert device.waits[2:] == [("b", "a"), ("a", "b")]


def test_one_turn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    pool = Workspaces(CPU)
    pool.most = 2
    loans = [pool.lend(TINY, 4) for _ in range(6)]
    inside: Counter[int] = Counter()
    most: Counter[int] = Counter()

    def work(number: int) -> None:
        device.enter(str(number))
        place = id(loans[number].workspace)
        for _ in range(50):
            with loans[number].turn():
                inside[place] += 1
                most[place] = max(most[place], inside[place])
                time.sleep(0.0001)
                inside[place] -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(most.values()) == [1, 1]


def test_a_device_has_the_same_workspaces_every_time() -> None:
    assert workspaces(CPU) is workspaces(torch.device("cpu"))


def test_a_stream_is_lent_again_and_never_twice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, torch.device]] = []

    def stream(device: torch.device) -> object:
        made.append((object(), device))
        return made[-1][0]

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    streams = _Streams()
    with streams.lend(CPU) as first:
        with pytest.raises(KeyError), streams.lend(CPU) as second:
            assert second is not first
            raise KeyError
        with streams.lend(CPU) as third, streams.lend(torch.device("meta")) as other:
            assert third is second
            assert other is not second
    with streams.lend(CPU) as again:
        assert again is first
    assert len(made) == 3
