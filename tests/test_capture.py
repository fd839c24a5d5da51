"""Steps run as graphs: as many as asked for, each graph captured once, each in its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from sepzip import capture


@pytest.mark.parametrize("counts", [[1], [40], [16, 1, 17, 5], [0, 33]])
def test_every_step_runs_once_in_a_turn(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    done = turns = 0
    in_turn = False
    captures = []

    def step() -> None:
        nonlocal done
        assert in_turn
        done += 1

    class Graph:
        def __init__(self, steps: int) -> None:
            self.steps = steps

        def replay(self) -> None:
            for _ in range(self.steps):
                step()

    def captured(
        step: Callable[[], None], steps: int, device: torch.device, end: Callable[[], None]
    ) -> Graph:
        assert end is settle
        assert not in_turn
        captures.append(steps)
        return Graph(steps)

    @contextmanager
    def turn() -> Iterator[None]:
        nonlocal in_turn, turns
        in_turn, turns = True, turns + 1
        yield
        in_turn = False

    def settle() -> None:
        raise AssertionError("what ends a graph is called where it is captured")

    monkeypatch.setattr(capture, "captured", captured)
    stepper = capture.Stepper(step, torch.device("cpu"), turn, settle)
    for count in counts:
        before = done
        stepper.run(count)
        assert done == before + count
    assert len(set(captures)) == len(captures)
    # One to get warm in, and one for each time that steps were asked for.
    assert turns <= 1 + len(counts)


def test_what_was_forgotten_is_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    captures: list[int] = []

    def captured(step: Callable[[], None], steps: int, device: torch.device, end: None) -> SimpleNamespace:
        captures.append(steps)
        return SimpleNamespace(replay=lambda: None)

    monkeypatch.setattr(capture, "captured", captured)
    stepper = capture.Stepper(lambda: None, torch.device("cpu"))
    for _ in range(2):
        stepper.run(34)
        stepper.run(34)
        assert sorted(captures) == [1, 16]
        captures.clear()
        stepper.forget()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are captured on a GPU alone")
def test_a_capture_does_not_wait_for_the_device() -> None:
    device = torch.device("cuda:0")
    counter = torch.zeros(1, dtype=torch.int64, device=device)

    def step() -> None:
        counter.add_(1)

    def end() -> None:
        counter.mul_(2)

    # Their kernels are there, and so is the stream on which they are captured.
    step()
    end()
    capture.captured(step, 1, device, end).replay()
    counter.zero_()
    torch.cuda.synchronize()
    # Half a second: more than it takes to capture this.
    torch.cuda._sleep(1_000_000_000)
    asleep = torch.cuda.Event()
    asleep.record()
    graph = capture.captured(step, 3, device, end)
    assert not asleep.query()
    graph.replay()
    graph.replay()
    assert counter.item() == (3 * 2 + 3) * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are captured on a GPU alone")
def test_a_step_that_fails_ends_its_capture() -> None:
    def step() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        capture.captured(step, 1, torch.device("cuda:0"))
    assert not torch.cuda.is_current_stream_capturing()
    counter = torch.zeros(1, device="cuda:0")

    def count() -> None:
        counter.add_(1)

    capture.captured(count, 2, torch.device("cuda:0")).replay()
    assert counter.item() == 2
