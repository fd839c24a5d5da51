"""Progress on a terminal: how far, how small, how fast, and how long yet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

__all__ = ["Report", "amount", "ratio", "shown_progress", "speed"]

Report = Callable[[int, int], None]
"""What the pipeline calls, often, with the bytes of input and of output that are done."""

_SECONDS_BETWEEN_UPDATES = 0.1
_SECONDS_OF_SPEED = 60.0
_BAR_WIDTH = 10
_WIDTH_BESIDE_LABEL = _BAR_WIDTH + len("100%, ratio 1000.000, 100 kB/s 10:00:00") + 3
_LEAST_LABEL = 10


def ratio(uncompressed: int, compressed: int) -> float:
    """Return how many times smaller the compressed bytes are; 0 where there are none."""
    return uncompressed / compressed if compressed else 0.0


def amount(size: float) -> str:
    """Return a number of bytes as a short text with its unit, a power of 1000."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"


def speed(size: float, seconds: float) -> str:
    """Return bytes per second as a short text with its unit."""
    return amount(size / seconds if seconds > 0 else 0.0) + "/s"


@contextlib.contextmanager
def shown_progress(
    label: str, total: int | None, known_ratio: float | None, *, compressing: bool
) -> Iterator[Report]:
    """Show on standard error how the work on one file goes, until the context is left.

    `total` is the bytes of its uncompressed side, None where nobody knows, as nobody knows the ratio
    before the end of compressing. `compressing` tells which side the input is.
    """
    # Imported where it shows and nowhere else: the import takes longer than a small file does.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    # A long name is cut, so that all the rest still fits on the line.
    left_for_label = max(_LEAST_LABEL, console.width - _WIDTH_BESIDE_LABEL)
    cut = Column(max_width=left_for_label, no_wrap=True, overflow="ellipsis")
    progress = Progress(
        TextColumn("{task.description}", markup=False, table_column=cut),
        BarColumn(bar_width=_BAR_WIDTH),
        TextColumn("{task.fields[done]}", markup=False, table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        speed_estimate_period=_SECONDS_OF_SPEED,
    )
    with progress:
        task = progress.add_task(label, total=total, done="")
        started = updated = time.monotonic()
        so_far = known_ratio
        flushed = 0

        def report(bytes_in: int, bytes_out: int) -> None:
            nonlocal updated, so_far, flushed
            uncompressed, compressed = (bytes_in, bytes_out) if compressing else (bytes_out, bytes_in)
            if compressing and compressed > flushed:
                # Output comes a block at a time; only as one comes are the two sides of the same bytes.
                flushed, so_far = compressed, ratio(uncompressed, compressed)
            now = time.monotonic()
            if now - updated < _SECONDS_BETWEEN_UPDATES:
                return
            updated = now
            done = f"{uncompressed / total:.0%}" if total else amount(uncompressed)
            smaller = "" if so_far is None else f", ratio {so_far:.3f}"
            rate = speed(uncompressed, now - started)
            progress.update(task, completed=uncompressed, done=f"{done}{smaller}, {rate}")

        yield report
