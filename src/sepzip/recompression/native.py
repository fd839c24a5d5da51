"""The compiled packers (deflate.c, lzw.c), called with NumPy's arrays."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiled import load
from ..errors import CorruptError

__all__ = [
    "MOST_RAW",
    "DeflateSettings",
    "Image",
    "Inflated",
    "deflate",
    "find_signature",
    "find_zlib",
    "inflate",
    "looks_like",
    "lzw_decode",
    "lzw_encode",
    "measure",
]

MOST_RAW = 1 << 30
"""The most raw bytes that a stream can be packed of."""

_KEPT = 1 << 16
_SAME, _NO_MEMORY = 0, 3


class Inflated(ctypes.Structure):
    """Inflated of deflate.c: what reading a stream found out."""

    _fields_ = [
        (name, ctypes.c_int64) for name in ("used", "raw", "kept", "dynamic", "most_symbols", "last_symbols")
    ]
    used: int
    raw: int
    kept: int
    dynamic: int
    most_symbols: int
    last_symbols: int


class _Deflated(ctypes.Structure):
    """Deflated of deflate.c: what packing came to."""

    _fields_ = [(name, ctypes.c_int64) for name in ("size", "reached")]
    size: int
    reached: int


class Image(ctypes.Structure):
    """Image of lzw.c: how an image's data was written."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("code_size", "block", "period", "clears_first", "ends", "forgets", "used", "raw")
    ]
    code_size: int
    block: int
    period: int
    clears_first: int
    ends: int
    forgets: int
    used: int
    raw: int


class DeflateSettings(NamedTuple):
    """How a deflate stream is written: Settings of deflate.c."""

    level: int
    window_bits: int
    memory_level: int
    strategy: int


@cache
def _library() -> ctypes.CDLL:
    library = load("sepzip.recompression._recompression")
    address, number = ctypes.c_void_p, ctypes.c_int64
    arguments = {
        "inflate": [address, number, address, number, address, number, ctypes.POINTER(Inflated)],
        "deflate": [
            *[address, number, ctypes.POINTER(number * 4), address, address, number],
            *[address, number, ctypes.POINTER(_Deflated)],
        ],
        "find_signature": [address, number, number],
        "find_zlib": [address, *[number] * 5, ctypes.POINTER(number)],
        "lzw_decode": [address, number, address, number, ctypes.POINTER(Image)],
        "lzw_encode": [address, number, address, number, ctypes.POINTER(Image)],
    }
    for name, types in arguments.items():
        function = getattr(library, f"sepzip_{name}")
        function.argtypes = types
        function.restype = number if name.startswith("find") else ctypes.c_int
    return library


def measure(data: NDArray[np.uint8], most_raw: int) -> tuple[bool, Inflated]:
    """Return whether data begins with a deflate stream of so many raw bytes at most, and what it is."""
    report = Inflated()
    status = _library().sepzip_inflate(
        data.ctypes.data, len(data), None, most_raw, None, 0, ctypes.byref(report)
    )
    return status == 0, report


def inflate(data: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Return the `size` raw bytes of the deflate stream that data begins with, and its first symbols."""
    raw, symbols, report = np.empty(size, np.uint8), np.empty(_KEPT, np.uint32), Inflated()
    status = _library().sepzip_inflate(
        *(data.ctypes.data, len(data), raw.ctypes.data, size),
        *(symbols.ctypes.data, _KEPT, ctypes.byref(report)),
    )
    if status or report.raw != size:
        raise ValueError("data does not begin with a deflate stream of this size")
    return raw, symbols[: report.kept]


def deflate(raw: NDArray[np.uint8], settings: DeflateSettings) -> bytes:
    """Return raw as a deflate stream; CorruptError where there are no such settings."""
    # No symbol is packed worse than a byte by nine bits; the smallest blocks have 127 of them.
    capacity = len(raw) + len(raw) // 4 + 64
    out, report = np.empty(capacity, np.uint8), _Deflated()
    status = _library().sepzip_deflate(
        *(raw.ctypes.data, len(raw), (ctypes.c_int64 * 4)(*settings)),
        *(out.ctypes.data, None, capacity, None, 0, ctypes.byref(report)),
    )
    if status == _NO_MEMORY:
        raise MemoryError
    if status != _SAME:
        raise CorruptError("a packed stream cannot be packed again; the file is damaged")
    return out[: report.size].tobytes()


def looks_like(
    raw: NDArray[np.uint8],
    settings: DeflateSettings,
    expected: NDArray[np.uint8],
    symbols: NDArray[np.uint32],
) -> tuple[bool, int]:
    """Return whether raw is packed to these bytes and first symbols, and how much of raw was looked at."""
    report = _Deflated()
    status = _library().sepzip_deflate(
        *(raw.ctypes.data, len(raw), (ctypes.c_int64 * 4)(*settings)),
        *(None, expected.ctypes.data, len(expected)),
        *(symbols.ctypes.data, len(symbols), ctypes.byref(report)),
    )
    if status == _NO_MEMORY:
        raise MemoryError
    return status == _SAME, report.reached


def find_signature(data: NDArray[np.uint8], start: int) -> int:
    """Return where from `start` on a gzip member, a zip entry, a PNG or a GIF may begin, or the size."""
    place: int = _library().sepzip_find_signature(data.ctypes.data, len(data), start)
    return place


def find_zlib(
    data: NDArray[np.uint8], start: int, end: int, least: int, most_raw: int, budget: int
) -> tuple[int, int]:
    """Return where within `start` and `end` a zlib stream begins, or the size, and the budget that is left.

    It has `least` packed bytes or more and `most_raw` raw bytes or fewer; the budget is of bytes that are
    looked at in vain.
    """
    left = ctypes.c_int64(budget)
    place: int = _library().sepzip_find_zlib(
        data.ctypes.data, len(data), start, end, least, most_raw, ctypes.byref(left)
    )
    return place, left.value


def lzw_decode(data: NDArray[np.uint8], most_raw: int) -> tuple[NDArray[np.uint8] | None, Image]:
    """Return the pixels of the image data that data begins with, None if there is none, and what it is."""
    image = Image()
    library, start = _library(), (data.ctypes.data, len(data))
    if library.sepzip_lzw_decode(*start, None, most_raw, ctypes.byref(image)):
        return None, image
    raw = np.empty(image.raw, np.uint8)
    if library.sepzip_lzw_decode(*start, raw.ctypes.data, len(raw), ctypes.byref(image)):
        raise ValueError("data does not begin with an image of this size")
    return raw, image


def lzw_encode(raw: NDArray[np.uint8], image: Image) -> bytes:
    """Return the image data of pixels written in that way; CorruptError where it cannot be."""
    # A code of at most 12 bits a pixel and another that empties the table, in blocks of a byte at the worst.
    codes = 3 * len(raw) + 8
    capacity = codes + codes // max(image.block, 1) + 8
    out = np.empty(capacity, np.uint8)
    if _library().sepzip_lzw_encode(
        raw.ctypes.data, len(raw), out.ctypes.data, capacity, ctypes.byref(image)
    ):
        raise CorruptError("a packed image cannot be packed again; the file is damaged")
    return out[: image.used].tobytes()
