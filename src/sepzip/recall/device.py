"""A segment's memory of contexts on a CUDA device, with its lanes' coders: the twin of state.py.

Nothing waits for the host, and every tensor keeps its address, so that steps can be captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..coder.binary import LaneCoders
from ..exact.kernels.elements import CHAINED
from ..lanes import longer_lanes, steps_for
from .beside import RecurrentBeside
from .kernels.fields import used_fields
from .kernels.learn import CELLS_A_PROGRAM, ROWS_A_PROGRAM, apply_kernel, count_kernel
from .kernels.predict import predict_kernel
from .plan import Plan, Settings
from .primer import first_memory
from .profiles import INPUTS, PROFILES
from .recurrent import Recurrent
from .state import (
    APM_CONTEXTS,
    APM_POINTS,
    CELLS,
    LENGTHS,
    MATCHES,
    PAD,
    Memory,
    arrays_of,
)

__all__ = ["DeviceCoders", "DeviceMemory"]

ENCODE_WARPS, DECODE_WARPS = 1, 2
"""Warps that predict and code a lane's byte: a decoder would run out of registers in one."""

_ALL = 0xFFFFFFFF


@dataclass(frozen=True)
class DeviceCoders:
    """The lanes' coders as in binary.LaneCoders: int64 [lanes], and `data`, uint8."""

    low: Tensor
    high: Tensor
    code: Tensor
    at: Tensor
    end: Tensor
    data: Tensor

    @classmethod
    def new(cls, lanes: int, capacity: int, device: torch.device) -> DeviceCoders:
        """Return coders before their first bit, with `data` for so many bytes."""

        def zeros() -> Tensor:
            return torch.zeros(lanes, dtype=torch.int64, device=device)

        data = torch.zeros(capacity, dtype=torch.uint8, device=device)
        return cls(zeros(), zeros() + _ALL, zeros(), zeros(), zeros(), data)

    def load(self, coders: LaneCoders) -> None:
        """Take over the state and the first bytes of the data of other coders."""
        for mine, other in zip((self.low, self.high, self.code, self.at, self.end), coders[:5], strict=True):
            mine.copy_(torch.from_numpy(other))
        self.data[: len(coders.data)].copy_(torch.from_numpy(coders.data))

    def restart(self) -> None:
        """Queue what a block begins with, encoding."""
        self.low.zero_()
        self.high.fill_(_ALL)

    def numpy(self) -> LaneCoders:
        """Return a copy on the host, for which this waits."""
        tensors = (self.low, self.high, self.code, self.at, self.end, self.data)
        return LaneCoders(*(x.cpu().numpy().copy() for x in tensors))


class DeviceMemory:
    """Predicts and codes a byte of every lane a step, and learns it."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        size: int,
        lanes: int,
        device: torch.device,
    ) -> None:
        """Make the memory of a segment of `size` bytes, before step 0."""
        self.plan, self.settings = plan, settings
        self.lanes = lanes
        self.steps = steps_for(size, lanes)
        self._longer = longer_lanes(size, lanes)
        memory = first_memory(plan, settings, size, lanes)
        self.tensors: dict[str, Tensor] = {}
        for name, array in arrays_of(memory).items():
            if name == "slots" and not plan.primer:
                # All zeros, and by far the largest.
                self.tensors[name] = torch.zeros(array.shape, dtype=torch.uint32, device=device)
            else:
                self.tensors[name] = torch.from_numpy(array).to(device, copy=True)

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        contexts, buckets = memory.slots.shape[:2]
        self._bucket_bits = buckets.bit_length() - 1
        rows = len(memory.weights)
        self.position = zeros(1)
        self._recurrent = (
            RecurrentBeside(self.tensors, lanes, self.steps, device) if settings.recurrent else None
        )
        # Without a network the kernel has no use for them, but takes some.
        self._logits = self._recurrent.logits if self._recurrent else self.position
        self._claims = zeros(contexts, buckets, dtype=torch.uint32)
        self._places = zeros(lanes, 2, INPUTS)
        self._checks = zeros(lanes, 2, INPUTS)
        self._slot_counts = zeros(contexts, 2 * lanes, 16)
        self._apm_places = zeros(lanes, 8, 2)
        self._match_places = zeros(lanes, MATCHES)
        self._followers = zeros(65536)
        self._cell_counts = zeros(contexts, CELLS)
        self._length_counts = zeros(MATCHES, LENGTHS)
        self._apm_counts = zeros(2, APM_CONTEXTS * APM_POINTS)
        self._row_counts = zeros(rows)
        self._gradient = zeros(rows, INPUTS)
        self._final_gradient = zeros(*memory.final_weights.shape, dtype=torch.int64)
        self._used = used_fields(plan, settings)
        # Triton's interpreter is as slow for a small program as for a large one.
        factor = 1 if device.type == "cuda" else 256
        self._cells_a_program, self._rows_a_program = CELLS_A_PROGRAM * factor, ROWS_A_PROGRAM * factor
        self._cell_programs = -(-contexts * CELLS // self._cells_a_program)
        self._row_programs = -(-rows // self._rows_a_program)

    def see(self, symbols: Tensor, step: int) -> None:
        """Queue that bytes, uint8 [steps, lanes], are those of the lanes from byte number `step` on."""
        first = PAD + step
        self.tensors["history"][:, first : first + len(symbols)].copy_(symbols.T)

    def seen(self, first: int, end: int) -> Tensor:
        """Return the lanes' bytes from number `first` to before `end`, uint8 [steps, lanes], a view."""
        return self.tensors["history"][:, PAD + first : PAD + end].T

    def step(self, coders: DeviceCoders, decodes: bool) -> None:
        """Queue a step: its bytes are found by the coders with `decodes`, and have been seen otherwise."""
        plan, settings, memory = self.plan, self.settings, self.tensors
        profile = PROFILES[plan.profile]
        match_mask = memory["matches"].shape[1] - 1
        if self._recurrent:
            self._recurrent.step(decodes)
        predict_kernel[(self.lanes,)](
            memory["stretch"],
            memory["squash"],
            memory["multipliers"],
            memory["masks"],
            memory["kinds"],
            memory["instructions"],
            memory["slots"],
            memory["cell_stretch"],
            memory["lengths"],
            memory["apm"],
            memory["weights"],
            memory["final_weights"],
            memory["history"],
            memory["starts"],
            memory["lane"],
            memory["followed_one"],
            memory["followed_two"],
            memory["followed_code"],
            memory["matches"],
            memory["taps"],
            memory["tap_values"],
            memory["predictions"],
            self._logits,
            coders.low,
            coders.high,
            coders.code,
            coders.at,
            coders.end,
            coders.data,
            self._claims,
            self._places,
            self._checks,
            self._apm_places,
            self._match_places,
            self._followers,
            self._cell_counts,
            self._length_counts,
            self._apm_counts,
            self._row_counts,
            self._gradient,
            self._final_gradient,
            self.position,
            self.lanes,
            self.steps,
            self._longer,
            plan.record,
            settings.columns,
            match_mask,
            CONTEXTS=settings.contexts,
            bucket_bits=self._bucket_bits,
            USED=self._used,
            TEXT=profile.uses_text,
            RECORDS=profile.uses_record,
            SAMPLES=profile.uses_samples,
            FLOATS=profile.uses_floats,
            INSTRUCTIONS=profile.uses_instructions,
            MARKUP=profile.uses_markup,
            TABLE=profile.uses_table,
            RECORD=plan.record > 0,
            SAMPLE=plan.sample,
            BIG_ENDIAN=plan.big_endian > 0,
            RECURRENT=settings.recurrent > 0,
            DECODES=decodes,
            num_warps=DECODE_WARPS if decodes else ENCODE_WARPS,
            **CHAINED,
        )
        if self._recurrent:
            self._recurrent.predicted()
        count_kernel[(self.lanes + self._cell_programs + 1 + self._row_programs,)](
            memory["stretch"],
            memory["root"],
            memory["cells"],
            memory["cell_stretch"],
            memory["lengths"],
            memory["apm"],
            memory["weights"],
            memory["final_weights"],
            memory["history"],
            memory["followed_two"],
            memory["matches"],
            self._claims,
            self._places,
            self._checks,
            self._slot_counts,
            self._apm_places,
            self._match_places,
            self._followers,
            self._cell_counts,
            self._length_counts,
            self._apm_counts,
            self._row_counts,
            self._gradient,
            self._final_gradient,
            self.position,
            self.lanes,
            self.steps,
            match_mask,
            len(memory["weights"]),
            CONTEXTS=settings.contexts,
            bucket_bits=self._bucket_bits,
            CELLS_A_PROGRAM=self._cells_a_program,
            ROWS_A_PROGRAM=self._rows_a_program,
            num_warps=1,
            **CHAINED,
        )
        apply_kernel[(2 * self.lanes,)](
            memory["reciprocal"],
            memory["slots"],
            self._claims,
            self._places,
            self._checks,
            self._slot_counts,
            self.position,
            self.lanes,
            CONTEXTS=settings.contexts,
            bucket_bits=self._bucket_bits,
            num_warps=1,
            **CHAINED,
        )

    def join(self) -> None:
        """Let what is queued next wait for all of the steps; due before a capture of them ends."""
        if self._recurrent:
            self._recurrent.join()

    def numpy(self) -> Memory:
        """Return a copy of the memory on the host, for which this waits.

        Nodes of a recurrent network have learnt from all steps but the last, whose slopes are not there.
        """
        copies: dict[str, Any] = {name: x.cpu().numpy().copy() for name, x in self.tensors.items()}
        recurrent = None
        if self.settings.recurrent:
            recurrent = Recurrent(**{name: copies.pop(name) for name in Recurrent._fields})
        return Memory(**copies, recurrent=recurrent)
