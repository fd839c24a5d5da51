"""Segments in flight: each is coded by a thread of its own, on a device that has a stream and memory for it.

The calling thread does all reading and writing, so that an interrupt finds it there and nothing else can be
left waiting for a pipe; what it does overlaps with the coding. It learns of the threads by an event, they of
it whenever they report how far they are.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Generic, TypeVar

from .devices import Resources, pick_devices, streams_on, uses_cuda
from .errors import FormatError, MismatchError
from .gpu_kernels import kernels_run
from .memory import Ledger, Promise, memory_needed, workspace_needed
from .presets import ModelSettings
from .profile import Profile
from .recall.placement import is_sooner_on_cpu

__all__ = ["Job", "Scheduler"]

Result = TypeVar("Result")


def _shareable(device: str, model: ModelSettings, lanes: int) -> int:
    """Return the bytes of what segments on the device can share, 0 where its steps work in no workspace."""
    if device == "cpu" or model.contexts:
        return 0
    from .tensors import has_kernels

    return workspace_needed(model, lanes) if has_kernels(model, lanes, device) else 0


class _Stopped(BaseException):
    """Ends the coding of a segment that nobody waits for any more; it never leaves this module."""


class Job(Generic[Result]):
    """The coding of one segment: how far it is, and in the end its result or the error that ended it.

    `work` is called with the job itself and the device; `shares` then says that there is no memory for a
    workspace of its own, which is only so where `may_share` allows it. `done` counts the bytes of content
    that are coded, `written` the bytes that came of them, if `work` keeps it.
    """

    def __init__(
        self, work: Callable[[Job[Result], str], Result], model: ModelSettings, lanes: int, size: int
    ) -> None:
        self.done = 0
        self.written = 0
        self.error: BaseException | None = None
        self.is_finished = False
        self.is_cancelled = False
        self.needs = model, lanes, size
        self.memory = memory_needed(model, lanes, size)
        self.promise: Promise | None = None
        self.may_share = self.shares = False
        self.devices: list[str] = []
        self.thread: threading.Thread | None = None
        self._work: Callable[[Job[Result], str], Result] | None = work
        self._results: list[Result] = []
        self._advanced: Callable[[Job[Any], int], None] | None = None

    def advance(self, count: int) -> None:
        """Count further bytes as done; ends the work, by an exception, where it is no longer wanted."""
        self.done += count
        if self._advanced is not None:
            self._advanced(self, count)

    def run(self, device: str, advanced: Callable[[Job[Any], int], None]) -> None:
        """Do the work; `advanced` is called whenever it has got on."""
        work, self._work = self._work, None
        if work is None:
            raise RuntimeError("a job runs once")
        self._advanced = advanced
        self._results.append(work(self, device))

    def result(self) -> Result:
        """Return what came of the work, or raise the error that ended it, once."""
        if self.error is not None:
            error, self.error = self.error, None
            try:
                raise error
            finally:
                # An error knows the frames that it comes through, and so all that is in them: if one of them
                # knew the error, only the garbage collector would free it.
                del error
        if not self._results:
            raise RuntimeError("the job was ended before it had a result")
        return self._results[0]


class Scheduler:
    """Runs jobs, as many at a time as the devices have streams and memory for, begun in their order.

    Where an error other than FormatError and MismatchError ends a job, whatever is called next raises it:
    those two are a fault of the input, and raised in its order by `wait`. `progressed` is called, by the
    calling thread, when jobs have got on. Without `overlap`, a single stream needs no thread: the job runs
    inside `submit`, which raises its error. `expected` is the bytes of all jobs, as far as they are known.
    """

    def __init__(
        self,
        resources: Resources,
        *,
        overlap: bool,
        expected: int = 0,
        progressed: Callable[[], None] | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.streams = 1
        """The jobs that can be in flight, on all devices in use; 1 until the first one is submitted."""
        self._resources = resources
        self._overlap = overlap
        self._progressed = progressed
        self._profile = profile
        self._expected = expected
        self._submitted = 0
        self._picked: list[str] | None = None
        # Only the calling thread takes jobs out.
        self._jobs: list[Job[Any]] = []
        self._events: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_woken = False
        self._lock = threading.Lock()
        # What follows is the lock's.
        self._ledgers: dict[str, tuple[int, Ledger]] = {}
        self._waiting: deque[Job[Any]] = deque()
        self._fatal: BaseException | None = None
        self._is_ending = False

    def submit(self, job: Job[Any]) -> None:
        """Run a job as soon as there is a stream and memory for it.

        Raises DeviceError if the devices are not there.
        """
        model, lanes, size = job.needs
        job.devices = self.devices_for(model, lanes, size)
        self._submitted += size
        self._open(job.devices)
        if self.streams == 1 and not self._overlap:
            self._run_here(job)
            return
        self._jobs.append(job)
        with self._lock:
            self._waiting.append(job)
            self._start_waiting()

    def wait(self, job: Job[Result]) -> Result:
        """Return a job's result when it is there, or raise its error, or the one that ended all."""
        while True:
            self.check()
            if job.is_finished:
                break
            self._events.get()
        if job in self._jobs:
            self._jobs.remove(job)
        if job.thread is not None:
            job.thread.join()
        return job.result()

    def check(self) -> None:
        """Report progress, and raise the error that has ended all, if there is one."""
        while not self._events.empty():
            self._events.get()
        # From here on, whatever changes sends another event.
        self._is_woken = False
        if self._progressed is not None:
            self._progressed()
        if self._fatal is not None:
            error, self._fatal = self._fatal, None
            try:
                raise error
            finally:
                # As in Job.result.
                del error

    def cancel(self, job: Job[Any]) -> None:
        """Let a job end at its next report, or never begin: nobody waits for it."""
        job.is_cancelled = True
        # Those that have ended meanwhile are forgotten, whatever they ended with.
        self._jobs = [other for other in self._jobs if not (other.is_cancelled and other.is_finished)]

    def stop(self) -> None:
        """End all jobs and return when no thread is left; then others may be submitted."""
        with self._lock:
            self._waiting.clear()
            for job in self._jobs:
                job.is_cancelled = True
        for job in self._jobs:
            # An interrupt may have come between making a thread and starting it.
            if job.thread is not None and job.thread.ident is not None:
                job.thread.join()
        self._jobs.clear()
        self._ledgers = {}
        self._fatal = None
        self._is_ending = False

    def devices_for(self, model: ModelSettings, lanes: int, size: int) -> list[str]:
        """Return the devices that a segment may go to, were it the next; DeviceError if they are not there.

        'auto' takes CPUs for a memory of contexts where they are expected to be done sooner. Nobody may know
        how much is to come: a GPU is begun with when what there was by then would have been worth it.
        """
        name = self._resources.device
        if name == "auto" and model.contexts:
            whole = max(self._expected, self._submitted + size)
            if is_sooner_on_cpu(model, lanes, size, whole, begun=uses_cuda()):
                return ["cpu"]
        if self._picked is None:
            self._picked = pick_devices(name)
        if name == "auto" and model.contexts:
            return [device for device in self._picked if kernels_run(device, of_networks=False)] or ["cpu"]
        return self._picked

    def _open(self, devices: list[str]) -> None:
        """Make ledgers for the devices that have none yet."""
        for device in devices:
            if device not in self._ledgers:
                streams = streams_on(device, self._resources.streams)
                ledger = Ledger(device, self._resources.memory_limit)
                with self._lock:
                    self._ledgers[device] = streams, ledger
                if self._profile is not None:
                    self._profile.set_streams(device, streams)
        self.streams = sum(streams for streams, _ in self._ledgers.values())

    def _start_waiting(self) -> None:
        """Start what can start, in order, unless an error has ended all; the lock is held."""
        while self._waiting and not self._is_ending:
            job = self._waiting[0]
            try:
                device = None if job.is_cancelled else self._place(job)
                if device is None and not job.is_cancelled:
                    return
                self._waiting.popleft()
                if device is None:
                    self._end(job)
                    continue
                job.thread = threading.Thread(target=self._run_in_thread, args=(job, device), name="sepzip")
                job.thread.start()
            except BaseException as error:
                self._waiting.clear()
                self._keep_error(job, error)
                self._end(job)
                return

    def _place(self, job: Job[Any]) -> str | None:
        """Return the device whose memory is now promised to the job, or None where it has to wait.

        Raises OutOfMemoryError where it would wait for ever.
        """
        own = {device: self._ledgers[device] for device in job.devices}
        for device, (streams, ledger) in sorted(own.items(), key=lambda item: item[1][1].in_flight):
            if ledger.in_flight >= streams:
                continue
            model, lanes, _ = job.needs
            kind = (model, lanes) if job.may_share else None
            job.promise = ledger.admit(job.memory, kind)
            if job.promise is None and kind is not None and (shared := _shareable(device, *kind)):
                job.promise = ledger.admit(job.memory, kind, shared)
            if job.promise is not None:
                job.shares = job.promise.shared > 0
                return device
            if self._profile is not None and ledger.in_flight:
                self._profile.set_fitting(device, ledger.in_flight, ledger.room)
        if any(ledger.in_flight for _, ledger in own.values()):
            return None
        roomiest = max((ledger for _, ledger in own.values()), key=lambda ledger: ledger.room or 0)
        raise roomiest.refusal(*job.needs)

    def _run_here(self, job: Job[Any]) -> None:
        device = self._place(job)
        if device is None:
            raise RuntimeError("the only stream is taken")
        try:
            self._run(job, device, self._advanced_here)
        finally:
            self._release(job, device)
        job.is_finished = True

    def _run_in_thread(self, job: Job[Any], device: str) -> None:
        try:
            self._run(job, device, self._advanced_in_thread)
        except BaseException as error:
            self._keep_error(job, error)
        with self._lock:
            self._release(job, device)
            self._start_waiting()
        self._end(job)

    def _release(self, job: Job[Any], device: str) -> None:
        if job.promise is not None:
            self._ledgers[device][1].release(job.promise)
            job.promise = None

    def _run(self, job: Job[Any], device: str, advanced: Callable[[Job[Any], int], None]) -> None:
        with self._profile.working_on(device) if self._profile is not None else nullcontext():
            job.run(device, advanced)

    def _keep_error(self, job: Job[Any], error: BaseException) -> None:
        if isinstance(error, _Stopped) or job.is_cancelled:
            return
        if isinstance(error, FormatError | MismatchError):
            job.error = error
        elif not self._is_ending:
            self._fatal = error
            self._is_ending = True

    def _end(self, job: Job[Any]) -> None:
        job.is_finished = True
        self._wake()

    def _advanced_here(self, job: Job[Any], count: int) -> None:
        if count and self._progressed is not None:
            self._progressed()

    def _advanced_in_thread(self, job: Job[Any], count: int) -> None:
        # A thread must not outlive the interpreter either, which waits for it at its end.
        if job.is_cancelled or self._is_ending or not threading.main_thread().is_alive():
            raise _Stopped
        if count and self._progressed is not None:
            self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._events.put(None)
