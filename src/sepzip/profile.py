"""Where the time of a call goes: the seconds of every stage, on every device."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["DeviceReport", "Profile", "Report", "timed"]


@dataclass(frozen=True)
class DeviceReport:
    """Where the time of one device went.

    `streams` segments could be in flight on it; where its memory held fewer, `fitting` says how many, and
    `room` is the bytes of memory that were there for them. `seconds` has the stages of the work on segments,
    added up over the streams, and `idle`.
    """

    streams: int
    fitting: int | None
    room: int | None
    seconds: dict[str, float]


@dataclass(frozen=True)
class Report:
    """Where the time went: the wall clock, the stages of all threads together, and those of each device.

    All are seconds. The streams of a device work side by side, so that its stages and its idle time are
    parts of `wall` times its number of streams.
    """

    wall: float
    total: dict[str, float]
    devices: dict[str, DeviceReport]


@dataclass
class _Device:
    streams: int = 0
    fitting: int | None = None
    room: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class Profile:
    """Adds up, from any thread, the seconds that each stage took, from when it is made until it reports.

    The stages are *read* and *write*, the input and the output; *unpack* and *pack*, of the packed streams in
    a segment; *copy in*, *step*, *copy out* and *code*, its way onto the device, its time there as the engine
    measures it, its way back and its entropy coding; and *idle*, the time in which no step ran: that of the
    wall clock times the streams, less *step*.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._devices: dict[str, _Device] = {}
        self._here = threading.local()

    def add(self, stage: str, seconds: float) -> None:
        """Count `seconds` to a stage, and to the device of the calling thread if it works for one."""
        device: _Device | None = getattr(self._here, "device", None)
        with self._lock:
            for counted in (self._seconds, *([device.seconds] if device else [])):
                counted[stage] = counted.get(stage, 0.0) + seconds

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    @contextlib.contextmanager
    def working_on(self, device: str) -> Iterator[None]:
        """Count what the calling thread adds inside to `device` as well."""
        self._here.device = self._devices.setdefault(device, _Device())
        try:
            yield
        finally:
            self._here.device = None

    def set_streams(self, device: str, streams: int) -> None:
        """Tell how many segments can be in flight on a device."""
        with self._lock:
            self._devices.setdefault(device, _Device()).streams = streams

    def set_fitting(self, device: str, fitting: int, room: int | None) -> None:
        """Tell that no more than `fitting` segments fitted into `room`; the least that is told counts."""
        with self._lock:
            told = self._devices.setdefault(device, _Device())
            if told.fitting is None or fitting < told.fitting:
                told.fitting, told.room = fitting, room

    def report(self) -> Report:
        """Return where the time went so far."""
        wall = time.perf_counter() - self._started
        with self._lock:
            total = dict(self._seconds)
            devices = {}
            for name, device in self._devices.items():
                idle = max(0.0, wall * device.streams - device.seconds.get("step", 0.0))
                seconds = device.seconds | {"idle": idle}
                devices[name] = DeviceReport(device.streams, device.fitting, device.room, seconds)
                total["idle"] = total.get("idle", 0.0) + idle
        return Report(wall, total, devices)


def timed(profile: Profile | None, stage: str) -> contextlib.AbstractContextManager[None]:
    """Count the time inside to a stage, if there is a profile."""
    return contextlib.nullcontext() if profile is None else profile.stage(stage)
