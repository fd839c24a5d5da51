"""Steps run as graphs: as many as asked for, each graph captured once, each in its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    assert turns <= done
