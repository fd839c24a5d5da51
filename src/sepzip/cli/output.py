"""An output file, which appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from typing import TYPE_CHECKING, BinaryIO

from ..errors import SepError
from .messages import printable

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["OutputFile", "RefusedError", "drop_buffered"]

_UNSYNCABLE = (errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What a directory answers that cannot be synced at all, as against one whose sync failed."""


class RefusedError(SepError):
    """The command does not do this, to keep the user's data or terminal safe."""


def drop_buffered(stream: BinaryIO) -> None:
    """Close a file without what is still buffered, which would wait for a pipe's reader once more."""
    if isinstance(stream, io.BufferedWriter):
        stream.raw.close()


class OutputFile:
    """A context in which a file is written; `publish` puts it in its place, leaving without it discards it.

    Until then its bytes lie under a temporary name in the same directory. A path that leads to
    something that is no regular file, a pipe or a device, is written to as it is. `like` is the status of
    the source, whose owner, mode and time the output takes. Without `overwrite`, an existing file
    raises FileExistsError, when the context is entered and again when a file has appeared meanwhile.
    """

    def __init__(self, path: str, *, overwrite: bool, like: os.stat_result | None) -> None:
        self._name = path
        # Resolved, so that a symbolic link to the output stays one, as with any other way of writing.
        self._path = os.path.realpath(path)
        self._overwrite = overwrite
        self._like = like
        self._stream: BinaryIO | None = None
        self.temporary: str | None = None
        """The path under which the bytes lie until they are published; None where they go out at once."""
        if os.path.isfile(path) or not os.path.exists(path):
            # Named before it is made: an interrupt at any moment finds what it has to remove.
            name = f".sep-{secrets.token_hex(8)}.tmp"
            self.temporary = os.path.join(os.path.dirname(self._path), name)

    def __enter__(self) -> BinaryIO:
        if os.path.isdir(self._name):
            raise RefusedError(f"the output {printable(self._name)} is a directory; name a file with -o")
        try:
            self._stream = open(self._name, "wb") if self.temporary is None else self._created(self.temporary)
        except OSError as error:
            raise self._named(error) from error
        return self._stream

    def _created(self, temporary: str) -> BinaryIO:
        if not self._overwrite and os.path.lexists(self._path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        # The source's mode comes last: until the output is whole, it is nobody else's to read.
        mode = 0o666 if self._like is None else 0o600
        return os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb")

    def publish(self) -> None:
        """Make the output durable and put it in its place."""
        assert self._stream is not None
        try:
            self._stream.flush()
            if self.temporary is not None:
                if self._like is not None:
                    _copy_status(self._stream.fileno(), self._like)
                os.fsync(self._stream.fileno())
                self._rename(self.temporary)
                _sync_directory(os.path.dirname(self._path))
            self._stream.close()
        except OSError as error:
            raise self._named(error) from error

    def _rename(self, temporary: str) -> None:
        if not self._overwrite:
            # A link, unlike a rename, never replaces a file that has appeared meanwhile.
            try:
                os.link(temporary, self._path)
            except FileExistsError:
                raise
            except OSError:
                # There are file systems without links.
                if os.path.lexists(self._path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            else:
                os.unlink(temporary)
                return
        os.replace(temporary, self._path)

    def discard(self) -> None:
        """Remove what was written and not published; safe to call at any time and more than once."""
        with contextlib.suppress(OSError):
            if self.temporary is not None:
                os.unlink(self.temporary)
        with contextlib.suppress(OSError):
            # Closing writes what is buffered, which may not even fit any more.
            if self._stream is not None:
                self._stream.close()

    def _named(self, error: OSError) -> OSError:
        # The user knows the output by its own name, not by the temporary one.
        if error.errno is None:
            return error
        return OSError(error.errno, os.strerror(error.errno), self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None and kind is not None and issubclass(kind, KeyboardInterrupt):
            drop_buffered(self._stream)
        self.discard()


def _copy_status(descriptor: int, status: os.stat_result) -> None:
    # Each of these is a courtesy: a file system that knows no owners or modes still keeps the bytes.
    with contextlib.suppress(OSError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o777)
    with contextlib.suppress(OSError):
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def _sync_directory(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNSYNCABLE:
            raise
