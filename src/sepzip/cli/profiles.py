"""Where the time went, as a table for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json

from ..profile import Report
from .progress import amount

__all__ = ["devices_used", "fitting_streams", "profile_json", "profile_table"]

_STAGES = ("read", "unpack", "copy in", "step", "copy out", "code", "pack", "write", "idle")
_OF_THE_CALLER = ("read", "unpack", "write")


def devices_used(report: Report, asked: str) -> list[str]:
    """Return a line that says where segments were coded, if any were and `asked` left that open."""
    if asked != "auto" or not report.devices:
        return []
    return [f"on {', '.join(report.devices)}, which --device auto chose"]


def fitting_streams(report: Report) -> list[str]:
    """Return a line for each device on which memory held fewer segments than were asked for."""
    lines = []
    for name, device in report.devices.items():
        if device.fitting is not None and device.fitting < device.streams:
            room = "its memory" if device.room is None else amount(device.room)
            place = f"{name}: " if len(report.devices) > 1 else ""
            lines.append(f"{place}{device.fitting} of {device.streams} streams fit in {room}")
    return lines


def profile_table(report: Report) -> list[str]:
    """Return a table's lines: the stages' seconds and share of the wall clock, in all and on each device.

    A device's stages, and those of all devices, are shares of the wall clock times the streams.
    """
    streams = sum(device.streams for device in report.devices.values())
    columns = {"total": (report.total, max(1, streams))}
    for name, device in report.devices.items():
        columns[f"{name} x {device.streams}"] = device.seconds, device.streams
    rows = [[f"{report.wall:.2f} s", *columns]]
    for stage in _STAGES:
        cells = []
        for seconds, side_by_side in columns.values():
            whole = report.wall * (1 if stage in _OF_THE_CALLER else side_by_side)
            share = seconds.get(stage, 0.0) / whole if whole else 0.0
            cells.append(f"{seconds[stage]:.2f} s {share:6.1%}" if stage in seconds else "-")
        rows.append([stage, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]


def profile_json(reports: list[tuple[str, Report]]) -> str:
    """Return one JSON document with the reports of all files, each with the file's name."""
    files = [{"name": name} | dataclasses.asdict(report) for name, report in reports]
    return json.dumps({"files": files}, indent=2) + "\n"
