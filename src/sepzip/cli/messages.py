"""What the command says on standard error: one line a message, and never a traceback."""

from __future__ import annotations

import contextlib
import errno
import sys
from typing import TextIO

from ..errors import SepError

__all__ = ["Messages", "explain", "is_terminal", "printable"]

_ADVICE = {
    errno.EACCES: "permission denied; check the permissions of the file and of its directory",
    errno.EDQUOT: "the disk quota is used up; free some space, or name another place with -o",
    errno.EEXIST: "exists already; -f overwrites it",
    errno.EFBIG: "the output is larger than a file may be here; raise the limit, or name another with -o",
    errno.EIO: "the device failed to read or write; check it before trusting what is on it",
    errno.EISDIR: "is a directory; -r takes the files in it",
    errno.ELOOP: "symbolic links lead round in a circle; check the name",
    errno.ENAMETOOLONG: "the name is too long; name a shorter output with -o",
    errno.ENOENT: "no such file or directory; check the name",
    errno.ENOSPC: "no space left for the output; free some, or name another place with -o",
    errno.ENOTDIR: "a part of the path is not a directory; check the name",
    errno.EPERM: "the system does not permit it; check the file's owner and attributes",
    errno.EROFS: "the file system is read-only; name another place with -o",
}


def explain(error: BaseException, source: str) -> str:
    """Return one line on what is wrong and what to do, for an error that ended the work on `source`."""
    if isinstance(error, SepError):
        text = str(error) or type(error).__name__
    elif isinstance(error, MemoryError):
        text = "out of memory; free some, or compress with fewer --lanes or a lower level"
    elif isinstance(error, ImportError):
        text = f"a library cannot be loaded ({error}); install sepzip again, or free some memory"
    elif isinstance(error, OSError):
        text = _ADVICE.get(error.errno or 0) or f"{error.strerror or error}; check the file and its device"
        if isinstance(error.filename, str) and error.filename != source:
            text = f"{printable(error.filename)}: {text}"
    else:
        text = f"an error in sepzip itself, {type(error).__name__}: {error}; please report it"
    return " ".join(text.split())


def printable(name: str) -> str:
    """Return a file's name with every character escaped that could break the line or command a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in name
    )


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a standard stream is open and is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


class Messages:
    """Standard error as the command uses it: always for errors, and as far as it was asked for the rest.

    `quiet` is the option of this name, `verbosity` how often -v was given; `shares_terminal` says that the
    output itself goes to a terminal, where messages would mix with it.
    """

    def __init__(
        self, program: str, *, quiet: bool = False, verbosity: int = 0, shares_terminal: bool = False
    ) -> None:
        self._program = program
        self._quiet = quiet
        self.shows_progress = is_terminal(sys.stderr) and not quiet and not shares_terminal
        """Whether there is a terminal to show progress on, and a user who wants it."""
        self._shows_results = verbosity > 0 or self.shows_progress
        self._verbosity = verbosity

    def error(self, text: str, name: str | None = None) -> None:
        """Print why something was not done; this is never silenced."""
        _print(": ".join([self._program, *([printable(name)] if name is not None else []), text]))

    def result(self, text: str, name: str) -> None:
        """Print what came of one file, on a terminal or where it was asked for."""
        if self._shows_results:
            _print(f"{printable(name)}: {text}")

    def detail(self, text: str, verbosity: int) -> None:
        """Print a further line about a file where -v was given `verbosity` times at least."""
        if self._verbosity >= verbosity:
            _print(f"  {text}")

    def confirms(self, question: str) -> bool:
        """Return whether the user, asked on the terminal, says yes; False where there is nobody to ask."""
        if self._quiet or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
            return False
        _print(f"{self._program}: {question} (y/n)? ", end="")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print(line: str, end: str = "\n") -> None:
    # A closed or broken standard error is no reason to lose the work.
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, end=end, file=sys.stderr, flush=True)
