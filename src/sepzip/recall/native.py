"""The compiled memory of contexts (memory.c), called with NumPy's arrays."""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coder.binary import LaneCoders
from ..compiled import load
from .plan import Settings
from .recurrent import Recurrent, RecurrentRecords, new_recurrent_records
from .state import Memory, Records

__all__ = ["BoundSegment", "convert_calls", "count_differences", "use_recurrent_build"]

_ARRAYS = (
    *(name for name in Memory._fields if name != "recurrent"),
    *Records._fields,
    *LaneCoders._fields,
    "recurrent",
)
_NUMBERS = (
    "used_count",
    "lanes",
    "stride",
    "contexts",
    "bucket_bits",
    "match_size",
    "record",
    "columns",
    "sample",
    "big_endian",
    "uses",
    "decodes",
    "touched_stride",
)


class RecurrentNetwork(ctypes.Structure):
    """Recurrent of recurrent.h: addresses of arrays, and the lanes."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (*Recurrent._fields, *RecurrentRecords._fields, "squash")),
        ("lanes", ctypes.c_int64),
    ]


class Segment(ctypes.Structure):
    """Segment of memory.c: addresses of arrays, and numbers."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        *((name, ctypes.c_int64) for name in _NUMBERS),
    ]


@cache
def _library() -> ctypes.CDLL:
    library = load("sepzip.recall._memory")
    library.sepzip_memory_run.argtypes = [
        ctypes.POINTER(Segment),
        *[ctypes.c_int64] * 3,
        *[ctypes.c_int] * 2,
        ctypes.c_void_p,
    ]
    library.sepzip_meeting_new.restype = ctypes.c_void_p
    library.sepzip_meeting_free.argtypes = [ctypes.c_void_p]
    library.sepzip_convert_calls.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 2, ctypes.c_int]
    library.sepzip_count_differences.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 4, ctypes.c_void_p]
    library.sepzip_recurrent_use.argtypes = [ctypes.c_int]
    for name in ("memory_run", "convert_calls", "count_differences", "meeting_free"):
        getattr(library, f"sepzip_{name}").restype = None
    return library


def convert_calls(data: NDArray[np.uint8], sign: int, wide: bool) -> None:
    """Add each place, times 1 or -1, to the target of the x86 call there, in place.

    With `wide`, for code of 64 bits, also to what operands address relative to their place.
    """
    _library().sepzip_convert_calls(data.ctypes.data, len(data), sign, wide)


def count_differences(data: NDArray[np.uint8], most: int, pieces: int, piece: int) -> NDArray[np.int32]:
    """Return how often bytes differ by how much, int32 [most + 1, 256], at each distance up to `most`.

    So many pieces of so many bytes, spread over the data, are looked at; distance 0 counts bytes.
    """
    counts = np.zeros((most + 1, 256), np.int32)
    data = np.ascontiguousarray(data)
    _library().sepzip_count_differences(data.ctypes.data, len(data), most, pieces, piece, counts.ctypes.data)
    return counts


def use_recurrent_build(number: int | None) -> int:
    """Let the recurrent network run by this of its builds for this processor, all of the same results.

    0 is plain C, None the fastest, which is used if nothing was said. Returns how many builds there are.
    """
    return int(_library().sepzip_recurrent_use(-1 if number is None else number))


def _addresses(arrays: Any) -> dict[str, int]:
    """Return the addresses of the arrays of a named tuple by their names."""
    addresses: dict[str, int] = {}
    for name, array in arrays._asdict().items():
        if not isinstance(array, np.ndarray):
            continue
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not contiguous")
        addresses[name] = array.ctypes.data
    return addresses


class BoundSegment:
    """Arrays bound to the compiled code, which are kept alive."""

    def __init__(
        self,
        memory: Memory,
        records: Records,
        settings: Settings,
        uses: tuple[bool, ...],
        coder: LaneCoders,
        decodes: bool,
    ) -> None:
        recurrent = memory.recurrent
        room = None if recurrent is None else new_recurrent_records(recurrent)
        self._kept = (memory, records, coder, room)
        lanes, stride = memory.history.shape
        self._recurrent = None
        if recurrent is not None and room is not None:
            addresses = _addresses(recurrent) | _addresses(room)
            self._recurrent = RecurrentNetwork(**addresses, squash=memory.squash.ctypes.data, lanes=lanes)
        values = _addresses(memory) | _addresses(records) | _addresses(coder)
        self._segment = Segment(
            **values,
            recurrent=None if self._recurrent is None else ctypes.addressof(self._recurrent),
            used_count=len(memory.used),
            lanes=lanes,
            stride=stride,
            contexts=settings.contexts,
            bucket_bits=settings.table_bits - 4,
            match_size=memory.matches.shape[1],
            record=settings.record,
            columns=settings.columns,
            sample=settings.sample,
            big_endian=settings.big_endian,
            uses=sum(1 << i for i, use in enumerate(uses) if use),
            decodes=decodes,
            touched_stride=records.touched.shape[1],
        )

    def run(self, first: int, steps: int, last_active: int, threads: int = 1) -> None:
        """Run steps from step `first` by so many threads; `last_active` lanes have a byte in the last."""
        library = _library()
        if threads == 1:
            library.sepzip_memory_run(ctypes.byref(self._segment), first, steps, last_active, 0, 1, None)
            return
        meeting = library.sepzip_meeting_new()
        if not meeting:
            raise MemoryError
        counted = threading.Event()
        others: list[threading.Thread] = []

        def work(number: int) -> None:
            counted.wait()
            library.sepzip_memory_run(
                ctypes.byref(self._segment), first, steps, last_active, number, 1 + len(others), meeting
            )

        try:
            try:
                for number in range(1, threads):
                    thread = threading.Thread(target=work, args=(number,))
                    thread.start()
                    others.append(thread)
            except RuntimeError:
                # The system has no more threads: those that there are do it, with the same bytes.
                pass
            counted.set()
            work(0)
            for thread in others:
                thread.join()
        finally:
            library.sepzip_meeting_free(meeting)
