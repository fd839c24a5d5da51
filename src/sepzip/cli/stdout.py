"""Standard output, where the command writes bytes, or text about them, and keeps a terminal usable."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, BinaryIO

from .messages import is_terminal
from .output import RefusedError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["print_result", "standard_output"]

_TEXT = bytes({7, 8, 9, 10, 12, 13, 27} | (set(range(0x20, 0x100)) - {0x7F}))
"""The bytes that occur in text, in any encoding that extends ASCII."""


def standard_output(*, text_only: bool) -> BinaryIO:
    """Return standard output for writing bytes; with `text_only`, a terminal is given no binary.

    Raises RefusedError where standard output is closed.
    """
    if sys.stdout is None:
        raise RefusedError("standard output is closed; name an output with -o")
    sys.stdout.flush()
    # A file object of its own: one whose writes fail must not fail again when the interpreter ends.
    raw = io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
    if text_only and is_terminal(sys.stdout):
        return io.BufferedWriter(_TerminalWriter(raw))
    return io.BufferedWriter(raw)


class _TerminalWriter(io.RawIOBase):
    """Lets text through to a terminal, and refuses the bytes that would garble it."""

    def __init__(self, terminal: io.RawIOBase) -> None:
        self._terminal = terminal

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int | None:
        if bytes(data).translate(None, _TEXT):
            raise RefusedError(
                "the content is binary and not for a terminal; name a file with -o, or insist with -f"
            )
        return self._terminal.write(data)


def print_result(text: str) -> None:
    """Print text that is itself what was asked for, such as a listing, to standard output.

    Raises RefusedError where standard output is closed.
    """
    if sys.stdout is None:
        raise RefusedError("is closed; redirect it")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal's encoding lacks is shown escaped rather than not at all.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
