"""Which files the command works on, and what their outputs are called."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .options import STANDARD_STREAM, Mode, Options
from .output import RefusedError

__all__ = ["SUFFIX", "Source", "find_sources", "output_name"]

SUFFIX = ".sep"


class Source(NamedTuple):
    """One input; `found` tells that a walk through a directory found it, and the user did not name it."""

    path: str
    found: bool = False

    @property
    def is_stdin(self) -> bool:
        """Whether the input is standard input."""
        return self.path == STANDARD_STREAM and not self.found

    @property
    def name(self) -> str:
        """What messages call the input."""
        return "standard input" if self.is_stdin else self.path


def find_sources(options: Options, failed: Callable[[str, OSError], None]) -> Iterator[Source]:
    """Yield what the user named, and under -r the files in a directory instead of the directory.

    Of those only the ones that suit the mode: .sep files, or when compressing all others.
    `failed` is told of each directory that cannot be read; the walk goes on.
    """
    for path in options.files:
        if options.recursive and path != STANDARD_STREAM and os.path.isdir(path):
            yield from _walk(path, options, failed)
        else:
            yield Source(path)


def _walk(directory: str, options: Options, failed: Callable[[str, OSError], None]) -> Iterator[Source]:
    def unreadable(error: OSError) -> None:
        failed(error.filename, error)

    for parent, directories, names in os.walk(directory, onerror=unreadable):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            if options.mode is not Mode.COMPRESS:
                suits = name.endswith(SUFFIX)
            else:
                suits = options.force or not name.endswith(SUFFIX)
            if suits:
                yield Source(path, found=True)


def output_name(source: Source, options: Options) -> str | None:
    """Return the path of a source's output, or None where that is standard output.

    Raises RefusedError where the source's own name gives none.
    """
    if options.to_stdout:
        return None
    if options.output is not None:
        return options.output
    if source.is_stdin:
        return None
    if not os.path.isfile(source.path):
        raise RefusedError("is not a regular file; name the output with -o, or use -c")
    if options.mode is Mode.COMPRESS:
        if source.path.endswith(SUFFIX) and not options.force:
            raise RefusedError(f"ends in {SUFFIX} already and is left as it is; -f compresses it again")
        return source.path + SUFFIX
    directory, name = os.path.split(source.path)
    if not name.endswith(SUFFIX) or name == SUFFIX:
        raise RefusedError(f"its name does not end in {SUFFIX}; name the output with -o, or use -c")
    return os.path.join(directory, name.removesuffix(SUFFIX))
