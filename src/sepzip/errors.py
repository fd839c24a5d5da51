"""The errors of sepzip: one tree, each message saying what to do next.

SepError
├── FormatError           the bytes are not a frame that can be read
│   ├── NotSepError       they do not begin as a frame does
│   ├── TruncatedError    they end too early (also an EOFError)
│   ├── CorruptError      a checksum or a rule of the format is broken
│   ├── TrailingDataError something that is no frame follows the last one
│   └── UnsupportedError  made with a newer format, or an unknown network, setting or numerics
├── MismatchError         this machine computed other weights than the one that made the file
├── DeviceError           the device that was asked for is not there (also an OSError)
├── OutOfMemoryError      the work does not fit (also a MemoryError)
└── UsageError            an argument is out of range (also a ValueError)

DeviceWarning (a RuntimeWarning) says that a GPU cannot do the work in the usual way, and what does it.
"""

from __future__ import annotations

__all__ = [
    "CorruptError",
    "DeviceError",
    "DeviceWarning",
    "FormatError",
    "MismatchError",
    "NotSepError",
    "OutOfMemoryError",
    "SepError",
    "TrailingDataError",
    "TruncatedError",
    "UnsupportedError",
    "UsageError",
]


class SepError(Exception):
    """Anything that sepzip refuses or cannot finish; the base of the tree."""


class FormatError(SepError):
    """The bytes cannot be read as a frame."""


class NotSepError(FormatError):
    """The bytes do not begin as a frame does."""


class TruncatedError(FormatError, EOFError):
    """The bytes end before the frame does."""


class CorruptError(FormatError):
    """A checksum does not match, or a field breaks a rule of the format."""


class TrailingDataError(FormatError):
    """Bytes that are no frame follow the last frame."""


class UnsupportedError(FormatError):
    """The frame needs a format, network, setting or numerics that this version does not know."""


class MismatchError(SepError):
    """The weights computed here differ from those of the machine that made the file."""


class DeviceError(SepError, OSError):
    """The device that was asked for is not there."""


class DeviceWarning(RuntimeWarning):
    """A GPU cannot do the work in the usual way; it gets done, more slowly."""


class OutOfMemoryError(SepError, MemoryError):
    """The work does not fit into the memory that is free."""


class UsageError(SepError, ValueError):
    """An argument is out of its range."""
