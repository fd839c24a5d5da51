"""The commands `sep`, `unsep` and `sepcat`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

__all__ = ["sep_main", "sepcat_main", "unsep_main"]


def sep_main() -> NoReturn:
    """Run `sep` with the arguments of the process, and exit."""
    _run("sep")


def unsep_main() -> NoReturn:
    """Run `unsep`, which is `sep -d`, with the arguments of the process, and exit."""
    _run("unsep", "-d")


def sepcat_main() -> NoReturn:
    """Run `sepcat`, which is `sep -dc`, with the arguments of the process, and exit."""
    _run("sepcat", "-dc")


def _run(program: str, *arguments: str) -> NoReturn:
    try:
        # Imported here, so that an interrupt during the import is answered like any other.
        from .run import FAILED, main

        status = main(program, [*arguments, *sys.argv[1:]])
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # The interpreter would try once more as it ends, and complain in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or FAILED
    sys.exit(status)
