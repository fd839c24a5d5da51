"""From one stream into another, with progress, and the check that what was written comes back."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import BinaryIO, NamedTuple

from ..errors import CorruptError, FormatError, MismatchError
from ..frame import read_summary
from ..pipeline import compress_stream, decompress_stream
from ..profile import Profile
from .digests import DigestReader, DigestWriter
from .messages import Messages, printable
from .options import Options
from .progress import Report, ratio, shown_progress, speed

__all__ = ["Transfer", "Transferred"]


class Transferred(NamedTuple):
    """What came of one stream: the bytes on both sides, and the time it took."""

    uncompressed: int
    compressed: int
    seconds: float

    def __str__(self) -> str:
        smaller = f"ratio {ratio(self.uncompressed, self.compressed):.3f}"
        return f"{smaller}, {self.seconds:.2f} s, {speed(self.uncompressed, self.seconds)}"


class Transfer:
    """Compresses and decompresses between open streams, as the options say; `name` is what progress shows.

    `profile` counts where the time goes.
    """

    def __init__(self, options: Options, messages: Messages, profile: Profile) -> None:
        self._options = options
        self._messages = messages
        self._profile = profile

    def compress(self, name: str, source: BinaryIO, sink: BinaryIO) -> Transferred:
        """Compress all of `source` into `sink`."""
        return self._compress(name, source, source, sink)

    def compress_verified(self, name: str, source: BinaryIO, sink: BinaryIO, written: str) -> Transferred:
        """Compress all of `source` into `sink`, then decompress the file `written` and compare.

        `written` is the path of what `sink` writes. Raises CorruptError where other bytes come back.
        """
        reader = DigestReader(source)
        done = self._compress(name, source, reader, sink)
        sink.flush()
        writer = DigestWriter()
        with open(written, "rb") as stream:
            try:
                self.decompress("verify", name, stream, writer)
            except (FormatError, MismatchError) as error:
                raise CorruptError(f"the output could not be read back and was discarded: {error}") from error
        if writer.digest.digest() != reader.digest.digest():
            raise CorruptError("not the same bytes came back; the output was discarded: test this machine")
        return done

    def _compress(
        self, name: str, source: BinaryIO, reader: BinaryIO | DigestReader, sink: BinaryIO
    ) -> Transferred:
        size = _size_ahead(source)
        resources = self._options.resources
        started = time.monotonic()
        with self._progress("compress", name, size) as report:
            sizes = compress_stream(
                reader,
                sink,
                self._options.preset,
                resources.device,
                streams=resources.streams,
                memory_limit=resources.memory_limit,
                progress=report,
                size=size,
                profile=self._profile,
            )
        return Transferred(*sizes, time.monotonic() - started)

    def decompress(
        self, action: str, name: str, source: BinaryIO, sink: BinaryIO | DigestWriter | None
    ) -> Transferred:
        """Decompress all of `source` into `sink`, if there is one; `action` is what progress calls it."""
        resources = self._options.resources
        started = time.monotonic()
        total, known_ratio = self._look_ahead(source)
        with self._progress(action, name, total, known_ratio) as report:
            compressed, uncompressed = decompress_stream(
                source,
                sink,
                resources.device,
                streams=resources.streams,
                memory_limit=resources.memory_limit,
                progress=report,
                profile=self._profile,
            )
        return Transferred(uncompressed, compressed, time.monotonic() - started)

    def _look_ahead(self, source: BinaryIO) -> tuple[int | None, float | None]:
        """Return the bytes to come out, and the ratio, where progress wants them and they can be had."""
        if not self._messages.shows_progress or _size_ahead(source) is None:
            return None, None
        start = source.tell()
        try:
            summary = read_summary(source)
        except FormatError:
            # What is wrong is told when decompressing gets there, after all the good that comes before.
            return None, None
        finally:
            source.seek(start)
        return summary.content_size, ratio(summary.content_size, summary.compressed_size)

    def _progress(
        self, action: str, name: str, total: int | None, known_ratio: float | None = None
    ) -> contextlib.AbstractContextManager[Report | None]:
        if not self._messages.shows_progress:
            return contextlib.nullcontext()
        label = f"{action} {printable(os.path.basename(name))}"
        return shown_progress(label, total, known_ratio, compressing=action == "compress")


def _size_ahead(source: BinaryIO) -> int | None:
    """Return how many bytes a stream has yet, or None where it is no regular file and nobody knows."""
    status = os.fstat(source.fileno())
    return max(0, status.st_size - source.tell()) if stat.S_ISREG(status.st_mode) else None
