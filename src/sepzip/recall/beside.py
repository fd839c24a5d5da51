"""The recurrent network of a memory on a CUDA device, beside the contexts: the twin of recurrent.c."""

from __future__ import annotations

from collections import deque

import torch
import triton
from torch import Tensor

from ..exact.kernels.aside import CAPTURE_PRIORITY
from ..exact.kernels.elements import CHAINED
from .kernels.recurrent import (
    AHEAD,
    BACK_WARPS,
    FORWARD_WARPS,
    LEARN_PROGRAMS,
    LEARN_WARPS,
    LOGIT_WARPS,
    NODE_PROGRAMS,
    back_kernel,
    forward_kernel,
    learn_kernel,
    logits_kernel,
)
from .recurrent import LAYERS, UNITS

__all__ = ["RecurrentBeside"]

_LANES_AT_ONCE = 8
"""Lanes from which nodes learn at the same time."""


class RecurrentBeside:
    """Queues the network's kernels: where steps are captured, in a branch that lasts from each into the next.

    Of a step the contexts wait for the logits alone. Decoding, the network waits for the byte that was found,
    and not for what contexts learn from it. Encoding, it is some steps ahead.
    """

    def __init__(self, arrays: dict[str, Tensor], lanes: int, steps: int, device: torch.device) -> None:
        """Take the arrays of Recurrent and of Memory by their names."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._arrays, self._lanes, self._steps, self._device = arrays, lanes, steps, device
        self.logits = zeros(AHEAD, lanes, 256)
        """Those of a step are at its number, modulo AHEAD."""
        self._new_outputs = zeros(lanes, LAYERS * UNITS, dtype=torch.int16)
        self._unit_turned = arrays["unit_whole"].transpose(1, 2).contiguous()
        self._totals = zeros(lanes, LAYERS * UNITS)
        # The step's number for all kernels but the last, which takes it from the second.
        self._positions = zeros(2)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device, priority=CAPTURE_PRIORITY)
        self._predicted: deque[torch.cuda.Event] = deque(maxlen=AHEAD)
        self._has_forked = False

    def step(self, decodes: bool) -> None:
        """Queue that lanes' last bytes are taken in and learnt from; what is queued next has the logits."""
        if self._stream is None or not torch.cuda.is_current_stream_capturing():
            self._predict()
            self._learn()
            return
        contexts = torch.cuda.current_stream(self._device)
        ahead = 1 if decodes else AHEAD
        if not self._has_forked:
            self._stream.wait_stream(contexts)
            self._predicted.clear()
            self._has_forked = True
        elif len(self._predicted) >= ahead:
            self._stream.wait_event(self._predicted[-ahead])
        with torch.cuda.stream(self._stream):
            self._predict()
            contexts.wait_event(self._stream.record_event())
            self._learn()

    def predicted(self) -> None:
        """Say that all that reads the step's logits is queued, and what finds its bytes."""
        if self._has_forked:
            self._predicted.append(torch.cuda.current_stream(self._device).record_event())

    def join(self) -> None:
        """Let what is queued next wait for the branch; due before a capture ends."""
        if self._stream is not None and self._has_forked:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
            self._has_forked = False

    def _predict(self) -> None:
        arrays, lanes = self._arrays, self._lanes
        forward_kernel[(lanes + NODE_PROGRAMS,)](
            arrays["squash"],
            arrays["history"],
            arrays["row_whole"],
            self._unit_turned,
            arrays["node_weights"],
            arrays["node_squares"],
            arrays["node_whole"],
            arrays["outputs"],
            self._new_outputs,
            arrays["states"],
            arrays["window_bytes"],
            arrays["window_inputs"],
            arrays["window_gates"],
            self.logits,
            self._totals,
            self._positions,
            lanes,
            self._steps,
            AT_ONCE=min(triton.next_power_of_2(lanes), _LANES_AT_ONCE),
            num_warps=FORWARD_WARPS,
            **CHAINED,
        )
        logits_kernel[((NODE_PROGRAMS + 1) * lanes,)](
            arrays["node_whole"],
            arrays["outputs"],
            self._new_outputs,
            arrays["window_slopes"],
            self.logits,
            self._totals,
            self._positions,
            lanes,
            num_warps=LOGIT_WARPS,
            **CHAINED,
        )

    def _learn(self) -> None:
        arrays, lanes = self._arrays, self._lanes
        back_kernel[(lanes,)](
            arrays["unit_whole"],
            arrays["window_gates"],
            arrays["window_slopes"],
            arrays["window_deltas"],
            self._positions,
            lanes,
            num_warps=BACK_WARPS,
            **CHAINED,
        )
        learn_kernel[(LEARN_PROGRAMS,)](
            arrays["row_weights"],
            arrays["row_squares"],
            arrays["row_whole"],
            arrays["unit_weights"],
            arrays["unit_squares"],
            arrays["unit_whole"],
            self._unit_turned,
            arrays["window_bytes"],
            arrays["window_inputs"],
            arrays["window_deltas"],
            self._positions,
            lanes,
            num_warps=LEARN_WARPS,
            **CHAINED,
        )
