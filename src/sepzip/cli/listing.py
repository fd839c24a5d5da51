"""What is in .sep files, as a table or as JSON; nothing is decoded, and torch is not loaded."""

from __future__ import annotations

import dataclasses
import json
from typing import NamedTuple

from ..frame import FileSummary, FrameSummary, read_summary
from ..memory import memory_needed
from .messages import Messages, explain, printable
from .options import Options
from .progress import ratio
from .sources import Source, find_sources
from .stdout import print_result

__all__ = ["list_files"]

_SHOWN_OF_CHECK = 8


class _Row(NamedTuple):
    """One line of the table; the fields' names are its head."""

    compressed: str
    uncompressed: str
    ratio: str
    network: str
    lanes: str
    segments: str
    memory: str
    check: str
    name: str


def list_files(options: Options, messages: Messages) -> int:
    """Print what is in each file to standard output and return the exit status: 0, or 1 where one failed."""
    has_failed = False

    def failed(name: str, error: Exception) -> None:
        nonlocal has_failed
        messages.error(explain(error, name), name)
        has_failed = True

    summaries: list[tuple[str, FileSummary]] = []
    entries: list[dict[str, object]] = []
    for source in find_sources(options, failed):
        try:
            with open(source.path, "rb") as stream:
                summary = read_summary(stream)
        except Exception as error:
            # Whatever it is, the user gets one line about it and the other files get their turn.
            failed(source.name, error)
            entries.append({"name": source.path, "error": explain(error, source.path)})
        else:
            summaries.append((source.path, summary))
            entries.append(_entry(source, summary))
    if options.json:
        print_result(json.dumps({"files": entries}, indent=2))
    elif summaries:
        print_result(_table(summaries))
    return int(has_failed)


def _entry(source: Source, summary: FileSummary) -> dict[str, object]:
    return {
        "name": source.path,
        "compressed": summary.compressed_size,
        "uncompressed": summary.content_size,
        "ratio": ratio(summary.content_size, summary.compressed_size),
        "frames": [dataclasses.asdict(frame) for frame in summary.frames],
    }


def _table(summaries: list[tuple[str, FileSummary]]) -> str:
    rows = [_Row(*_Row._fields), *(_row(name, summary) for name, summary in summaries)]
    if len(summaries) > 1:
        compressed = sum(summary.compressed_size for _, summary in summaries)
        uncompressed = sum(summary.content_size for _, summary in summaries)
        segments = sum(len(frame.segments) for _, summary in summaries for frame in summary.frames)
        total = f"{ratio(uncompressed, compressed):.3f}"
        names = f"{len(summaries)} files"
        rows.append(_Row(str(compressed), str(uncompressed), total, "", "", str(segments), "", "", names))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {_Row._fields.index(field) for field in ("network", "check", "name")}
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(name: str, summary: FileSummary) -> _Row:
    segments = [segment for frame in summary.frames for segment in frame.segments]
    networks = dict.fromkeys(map(_network, summary.frames))
    return _Row(
        compressed=str(summary.compressed_size),
        uncompressed=str(summary.content_size),
        ratio=f"{ratio(summary.content_size, summary.compressed_size):.3f}",
        network=",".join(networks),
        lanes=str(max((segment.lanes for segment in segments), default=0)),
        segments=str(len(segments)),
        memory=_memory(summary),
        check=summary.frames[0].checksum[:_SHOWN_OF_CHECK] if len(summary.frames) == 1 else "-",
        name=printable(name),
    )


def _network(frame: FrameSummary) -> str:
    if frame.model is None:
        return "stored"
    model = frame.model
    block = "seb-drop+" if model.drop_step else "seb+"
    return block * model.semantics + model.network + "+ngrams" * bool(model.ngrams)


def _memory(summary: FileSummary) -> str:
    """Return the MiB that decoding the file's largest segment takes; nothing if all are stored."""
    most = max(
        (
            memory_needed(frame.model, part.lanes, part.content_size)
            for frame in summary.frames
            for segment in frame.segments
            for part in segment.parts or (segment,)
            if frame.model is not None and part.lanes
        ),
        default=0,
    )
    return f"{-(-most >> 20)}MiB" if most else "-"
