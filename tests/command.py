"""Runs the command for the tests, as a process of its own or on a terminal of its own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sepzip

MODULE = [sys.executable, "-m", "sepzip"]
SECONDS = 60
"""How long a process may take before a test gives it up."""

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(sepzip.__file__).parents[1]), "TERM": "xterm"}


def call(function: str, *arguments: str) -> list[str]:
    """Return the command line of one of the entry points `sep_main`, `unsep_main` and `sepcat_main`."""
    return [sys.executable, "-c", f"from sepzip.cli import {function}; {function}()", *arguments]


def run(
    *arguments: str | Path, command: Sequence[str] = MODULE, data: bytes = b"", **settings: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end with `data` on its standard input, and return what it wrote."""
    line = [*command, *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        line, env=_ENVIRONMENT, input=data, timeout=SECONDS, check=False, **streams
    )
    return done


def start(*arguments: str | Path, command: Sequence[str] = MODULE) -> subprocess.Popen[bytes]:
    """Start the command with signals as a shell in the foreground gives them, and return its process."""

    def heed_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    line = [*command, *map(str, arguments)]
    return subprocess.Popen(line, env=_ENVIRONMENT, stderr=subprocess.PIPE, preexec_fn=heed_interrupts)


def on_terminal(
    *arguments: str | Path, command: Sequence[str] = MODULE, typed: bytes = b""
) -> tuple[int, bytes]:
    """Run the command with a terminal for all its streams; return its exit status and what was shown.

    Lines on the terminal end in a carriage return and a line feed.
    """
    master, slave = pty.openpty()
    line = [*command, *map(str, arguments)]
    with subprocess.Popen(line, env=_ENVIRONMENT, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        os.write(master, typed)
        shown = b""
        try:
            while piece := os.read(master, 1 << 16):
                shown += piece
        except OSError:
            # So does Linux tell that the other side is closed.
            pass
        finally:
            os.close(master)
        return process.wait(SECONDS), shown
