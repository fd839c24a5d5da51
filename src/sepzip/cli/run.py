"""One run of the command: arguments in, exit status out, and one line for whatever ends it early."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from ..errors import DeviceWarning, SepError, UsageError
from .files import Worker
from .listing import list_files
from .messages import Messages, explain, is_terminal
from .options import Mode, read_arguments

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "main"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130
"""The exit statuses besides 0: a file failed, the command line is wrong, an interrupt ended it."""


def main(program: str, arguments: Sequence[str]) -> int:
    """Do what the arguments ask for and return the exit status: 0, 1, 2 or 130."""
    messages = Messages(program)
    try:
        with _one_interrupt():
            options = read_arguments(program, arguments)
            if options is None:
                return 0
            shares_terminal = options.writes_stdout and is_terminal(sys.stdout)
            messages = Messages(
                program,
                quiet=options.quiet,
                verbosity=options.verbosity,
                shares_terminal=shares_terminal,
            )
            if options.mode is Mode.LIST:
                return list_files(options, messages)
            with _device_warnings(messages):
                return Worker(options, messages).run()
    except UsageError as error:
        messages.error(f"{error}; {program} -h lists the options")
        return USAGE
    except BrokenPipeError:
        # Whoever read has seen enough: that is no fault worth a line.
        return FAILED
    except KeyboardInterrupt:
        messages.error("interrupted")
        return INTERRUPTED
    except (OSError, SepError) as error:
        # Every file has its own errors told; what is left is what was to be printed about them.
        messages.error(explain(error, ""), "standard output")
        return FAILED


@contextlib.contextmanager
def _device_warnings(messages: Messages) -> Iterator[None]:
    """Print what the library warns of devices as the command prints what is wrong; others as before."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, DeviceWarning):
            messages.error(str(message))
        else:
            before(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextlib.contextmanager
def _one_interrupt() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt, and ignore all that follow.

    So whatever cleans up after the first is never interrupted itself.
    """
    before: dict[signal.Signals, signal.Handlers | Callable[[int, FrameType | None], Any] | int | None] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        before.clear()
        raise KeyboardInterrupt

    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What is ignored from the start, as under nohup, stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
        yield
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
