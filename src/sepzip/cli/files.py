"""What the command does with each file, and the rules by which no file and no terminal comes to harm."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from typing import BinaryIO, cast

from ..errors import SepError
from ..profile import Profile, Report
from .messages import Messages, explain, is_terminal, printable
from .options import STANDARD_STREAM, Mode, Options
from .output import OutputFile, RefusedError, drop_buffered
from .profiles import devices_used, fitting_streams, profile_json, profile_table
from .sources import Source, find_sources, output_name
from .stdout import print_result, standard_output
from .transfer import Transfer, Transferred

__all__ = ["Worker"]

_READ_AT_ONCE = 1 << 20


class Worker:
    """Does with every file what the options ask for; a file that fails does not stop the rest."""

    def __init__(self, options: Options, messages: Messages) -> None:
        self._options = options
        self._messages = messages
        self._profiles: list[tuple[str, Report]] = []
        self._has_failed = False
        self._output: OutputFile | None = None

    def run(self) -> int:
        """Work on all files and return the exit status: 0, or 1 where one failed.

        Raises BrokenPipeError where nobody reads standard output any more. Leaves nothing half made,
        even where KeyboardInterrupt ends it at any moment, provided that it is raised only once.
        """
        if self._options.profile is None:
            return self._work_on_all()
        output = OutputFile(self._options.profile, overwrite=self._options.force, like=None)
        try:
            return self._work_on_all_with_profile(self._options.profile, output)
        finally:
            output.discard()

    def _work_on_all_with_profile(self, name: str, output: OutputFile) -> int:
        try:
            # Opened at once: after hours of work it would be too late to hear that it cannot be.
            stream = output.__enter__()
        except (OSError, SepError) as error:
            self._failed(name, error)
            return int(self._has_failed)
        self._work_on_all()
        try:
            stream.write(profile_json(self._profiles).encode())
            output.publish()
        except OSError as error:
            self._failed(name, error)
        return int(self._has_failed)

    def _work_on_all(self) -> int:
        results: list[dict[str, object]] = []
        try:
            for source in find_sources(self._options, self._failed):
                try:
                    done = self._work(source)
                except BrokenPipeError:
                    raise
                except Exception as error:
                    # Whatever it is, the user gets one line about it and the other files get their turn.
                    self._failed(source.name, error)
                    results.append({"name": source.path, "ok": False, "error": explain(error, source.path)})
                else:
                    results.append({"name": source.path, "ok": True} | done._asdict())
        finally:
            # Its own context has discarded it, unless an interrupt came while it did so.
            if self._output is not None:
                self._output.discard()
        if self._options.json:
            print_result(json.dumps({"files": results}, indent=2))
        return int(self._has_failed)

    def _failed(self, name: str, error: Exception) -> None:
        self._messages.error(explain(error, name), name)
        self._has_failed = True

    def _work(self, source: Source) -> Transferred:
        profile = Profile()
        transfer = Transfer(self._options, self._messages, profile)
        if not source.is_stdin and stat.S_ISDIR(os.stat(source.path).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), source.path)
        if self._options.mode is Mode.TEST:
            with self._opened(source) as stream:
                done = transfer.decompress("test", source.name, stream, None)
            self._report(source, done, "whole", profile.report())
            return done
        target = output_name(source, self._options)
        with self._opened(source) as stream:
            if target is None:
                done = self._to_standard_output(transfer, source, stream)
            else:
                done = self._to_file(transfer, source, stream, target)
        into = "standard output" if target is None else printable(target)
        outcome = f"to {into}, verified" if self._options.verify else f"to {into}"
        self._report(source, done, outcome, profile.report())
        return done

    def _report(self, source: Source, done: Transferred, outcome: str, report: Report) -> None:
        sizes = [done.compressed, done.uncompressed]
        if self._options.mode is Mode.COMPRESS:
            sizes.reverse()
        before, after = sizes
        self._messages.result(f"{before} => {after} bytes, {done}, {outcome}", source.name)
        for line in [*devices_used(report, self._options.resources.device), *fitting_streams(report)]:
            self._messages.detail(line, 1)
        for line in profile_table(report):
            self._messages.detail(line, 2)
        self._profiles.append((source.path, report))

    def _opened(self, source: Source) -> BinaryIO:
        if not source.is_stdin:
            return _opened_for_reading(source.path)
        if sys.stdin is None:
            raise RefusedError("is closed; name a file")
        if self._options.mode is not Mode.COMPRESS and is_terminal(sys.stdin) and not self._options.force:
            raise RefusedError("is a terminal, and compressed data is not typed; name a file, or pipe one in")
        return _opened_for_reading(sys.stdin.fileno())

    def _to_standard_output(self, transfer: Transfer, source: Source, stream: BinaryIO) -> Transferred:
        force = self._options.force
        if self._options.mode is Mode.COMPRESS and is_terminal(sys.stdout) and not force:
            raise RefusedError(
                "compressed data is not for a terminal; name a file with -o, or insist with -f"
            )
        sink = standard_output(text_only=not force)
        _refuse_same_file(os.fstat(stream.fileno()), os.fstat(sys.stdout.fileno()))
        try:
            done = self._code(transfer, source, stream, sink)
            sink.flush()
        except KeyboardInterrupt:
            drop_buffered(sink)
            raise
        return done

    def _to_file(self, transfer: Transfer, source: Source, stream: BinaryIO, target: str) -> Transferred:
        status = os.fstat(stream.fileno())
        overwrite = self._options.force
        if os.path.exists(target):
            _refuse_same_file(status, os.stat(target))
            # Where data comes from standard input, no answer can.
            if os.path.isfile(target) and not overwrite and STANDARD_STREAM not in self._options.files:
                overwrite = self._messages.confirms(f"{printable(target)} exists already; overwrite it")
        like = status if stat.S_ISREG(status.st_mode) else None
        output = OutputFile(target, overwrite=overwrite, like=like)
        self._output = output
        with output as sink:
            if not self._options.verify:
                done = self._code(transfer, source, stream, sink)
            elif output.temporary is None:
                raise RefusedError("--verify reads the output back; name one with -o that is a regular file")
            else:
                done = transfer.compress_verified(source.name, stream, sink, output.temporary)
            output.publish()
        if self._options.remove:
            _remove(source, status)
        return done

    def _code(self, transfer: Transfer, source: Source, stream: BinaryIO, sink: BinaryIO) -> Transferred:
        if self._options.mode is Mode.COMPRESS:
            return transfer.compress(source.name, stream, sink)
        return transfer.decompress("decompress", source.name, stream, sink)


def _opened_for_reading(file: str | int) -> BinaryIO:
    closes = isinstance(file, str)
    if stat.S_ISREG(os.stat(file).st_mode):
        return open(file, "rb", buffering=_READ_AT_ONCE, closefd=closes)
    # Raw, a pipe can be asked whether there is something to read, before the wait for it.
    return cast("BinaryIO", open(file, "rb", buffering=0, closefd=closes))


def _refuse_same_file(source: os.stat_result, target: os.stat_result) -> None:
    # Terminals, pipes and /dev/null can be on both sides; only a regular file would eat itself.
    if stat.S_ISREG(source.st_mode) and os.path.samestat(source, target):
        raise RefusedError("input and output are the same file; name another output")


def _remove(source: Source, as_read: os.stat_result) -> None:
    if source.is_stdin or not stat.S_ISREG(as_read.st_mode):
        return
    now = os.stat(source.path)
    unchanged = (now.st_size, now.st_mtime_ns) == (as_read.st_size, as_read.st_mtime_ns)
    if not (os.path.samestat(now, as_read) and unchanged):
        raise RefusedError("has changed since it was opened, so it is not removed; work on it again")
    os.unlink(source.path)
