"""sepzip: a lossless compressor whose model learns while it codes.

    packed = sepzip.compress(data)
    assert sepzip.decompress(packed) == data
    with sepzip.open("log.sep", "rt") as lines: ...

The names are loaded when they are first used, and torch when a segment is first coded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import (
        CorruptError,
        DeviceError,
        DeviceWarning,
        FormatError,
        MismatchError,
        NotSepError,
        OutOfMemoryError,
        SepError,
        TrailingDataError,
        TruncatedError,
        UnsupportedError,
        UsageError,
    )
    from .sepfile import SepFile, compress, decompress, open

__version__ = "0.1.0"

__all__ = [
    "CorruptError",
    "DeviceError",
    "DeviceWarning",
    "FormatError",
    "MismatchError",
    "NotSepError",
    "OutOfMemoryError",
    "SepError",
    "SepFile",
    "TrailingDataError",
    "TruncatedError",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "compress",
    "decompress",
    "open",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(".errors" if name.endswith(("Error", "Warning")) else ".sepfile", __name__)
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
