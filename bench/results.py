"""The lines that bench/suite.py writes: reading them, and the tables made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]

PEER_NAMES = {
    "xz": "xz -9e",
    "zstd": "zstd -22",
    "brotli": "brotli -q 11",
    "7z": "7z PPMd",
    "zpaq": "zpaq -m5",
}


@dataclass
class Setting:
    """What a network's setting, or another compressor, made of all files together."""

    name: str
    peer: bool
    semantics: bool
    asked_lanes: int | None
    lanes: list[int] = field(default_factory=list)
    bytes: int = 0
    coded: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_back: float = 0.0
    same: bool = True
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    saved: float | None = None
    """The share of the bytes that the SEB saves, where both were measured over the same files."""

    @property
    def total(self) -> int:
        """The bytes out."""
        return sum(self.coded.values())

    @property
    def ratio(self) -> float:
        """Bytes in for each byte out."""
        return self.bytes / self.total

    @property
    def speed(self) -> float:
        """KB/s of compressing."""
        return self.bytes / 1e3 / self.seconds

    @property
    def speed_back(self) -> float:
        """KB/s of decompressing."""
        return self.bytes / 1e3 / self.seconds_back

    @property
    def lanes_text(self) -> str:
        """The lanes, or the fewest and the most of them, where the files' sizes decide."""
        if not self.lanes:
            return ""
        fewest, most = min(self.lanes), max(self.lanes)
        return str(most) if fewest == most else f"{fewest} to {most}"


def read(path: Path) -> list[Row]:
    """Return the lines of a file, none if there is none."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            # The line that was being written when a run was ended.
            continue
    return rows


def identity(row: Row) -> str:
    """Return what two results have to share for one to stand for the other."""
    shared = {name: row[name] for name in ("case", "file_sha256", "machine")}
    if row["case"]["kind"] == "peer":
        return json.dumps([shared, row["peer_version"]], sort_keys=True)
    return json.dumps([shared, row["versions"], row["commit"]], sort_keys=True)


def latest(rows: Iterable[Row]) -> list[Row]:
    """Return the newest line of each case and file."""
    newest = {json.dumps([row["case"], row["file_sha256"]], sort_keys=True): row for row in rows}
    return list(newest.values())


def settings(rows: Iterable[Row]) -> list[Setting]:
    """Return what each setting made of all files: networks in the order of the lines, then the peers."""
    found: dict[tuple[Any, ...], Setting] = {}
    for row in rows:
        case = row["case"]
        if case["kind"] not in ("network", "peer") or "error" in row:
            continue
        peer = case["kind"] == "peer"
        key = (peer, case["name"], not case["semantics"], case["lanes"])
        name = PEER_NAMES.get(case["name"], case["name"]) if peer else case["name"]
        setting = found.setdefault(key, Setting(name, peer, case["semantics"], case["lanes"]))
        setting.bytes += row["bytes"]
        setting.coded[row["file"]] = row["coded"]
        setting.seconds += row["compress"]["seconds"]
        setting.seconds_back += row["decompress"]["seconds"]
        setting.same &= row["same"]
        if not peer:
            setting.lanes.append(row["lanes"])
            for direction in ("compress", "decompress"):
                stages = setting.stages.setdefault(direction, {})
                for stage, seconds in row[direction]["stages"].items():
                    stages[stage] = stages.get(stage, 0.0) + seconds
    for (peer, name, plain, lanes), setting in found.items():
        without = found.get((peer, name, True, lanes))
        if not plain and without is not None and without.coded.keys() == setting.coded.keys():
            setting.saved = 1 - setting.total / without.total
    order = {key: number for number, key in enumerate(dict.fromkeys(key[:2] for key in found))}
    ordered = sorted(found, key=lambda key: (key[0], order[key[:2]], key[3] or 0, key[2]))
    return [found[key] for key in ordered]


def summary(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the lines of the table of settings."""
    head = ["setting", "SEB", "lanes", "ratio", "SEB saves", "KB/s", "KB/s back", "bytes out", "came back"]
    lines = []
    for setting in settings(rows):
        lines.append(
            [
                setting.name,
                "" if setting.peer else "with" if setting.semantics else "without",
                setting.lanes_text,
                f"{setting.ratio:.3f}",
                "" if setting.saved is None else f"{round(100 * setting.saved, 1) + 0.0:+.1f} %",
                speed_text(setting.speed),
                speed_text(setting.speed_back),
                f"{setting.total:,}",
                "yes" if setting.same else "NO",
            ]
        )
    return head, lines


def by_file(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the lines of the table of bytes out, a column a file."""
    found = settings(rows)
    files = list(dict.fromkeys(file for setting in found for file in setting.coded))
    lines = []
    for setting in found:
        sizes = [f"{setting.coded[file]:,}" if file in setting.coded else "" for file in files]
        lines.append([label(setting), *sizes])
    return ["setting", *files], lines


def in_flight(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the lines of the table of streams and of shared memory."""
    lines = []
    for row in rows:
        case = row["case"]
        if case["kind"] not in ("streams", "memory") or "error" in row:
            continue
        count = str(case["streams"]) if case["streams"] else "off"
        peak = max((peaks[0] for peaks in row["compress"]["peak_mib"].values()), default=None)
        lines.append(
            [
                f"{case['name']}, {row['segments']} segments",
                count,
                ("shared" if case["shared"] else "apart") if case["kind"] == "memory" else "",
                speed_text(row["bytes"] / 1e3 / row["compress"]["seconds"]),
                speed_text(row["bytes"] / 1e3 / row["decompress"]["seconds"]),
                "" if peak is None else f"{peak:,} MiB",
                "yes" if row["same"] else "NO",
            ]
        )
    return ["setting", "streams", "memory", "KB/s", "KB/s back", "peak on GPUs", "came back"], lines


def label(setting: Setting) -> str:
    """Return a setting's name with what tells it from the others."""
    if setting.peer:
        return setting.name
    with_it = ", SEB" if setting.semantics else ""
    return f"{setting.name}{with_it}, {setting.lanes_text} lanes"


def made_with(rows: list[Row]) -> list[str]:
    """Return lines that say which commits, machines and versions the results are of."""
    lines = []
    for row in rows:
        machine, versions = row["machine"], row["versions"]
        packages = ", ".join(f"{name} {version}" for name, version in versions.items())
        device = "" if machine["device"].startswith("cpu") else f" and {machine['device']}"
        extensions = f" ({machine['device'][4:]})" if not device else ""
        lines.append(
            f"Commit {row['commit'] or 'unknown'}, {machine['processor']}{extensions}, "
            f"{machine['cores']} cores{device}, {machine['system']}; {packages}"
        )
    others = {f"{row['case']['name']} {row['peer_version']}" for row in rows if row["case"]["kind"] == "peer"}
    peers = f"Beside: {', '.join(sorted(others))}" if others else ""
    return [*dict.fromkeys(lines), *([peers] if peers else [])]


def markdown(rows: list[Row]) -> str:
    """Return all tables as Markdown."""
    parts = ["\n".join(f"- {line}" for line in made_with(rows))]
    for head, lines in (summary(rows), by_file(rows), in_flight(rows)):
        if lines:
            table = [head, ["---"] * len(head), *lines]
            parts.append("\n".join("| " + " | ".join(cells) + " |" for cells in table))
    return "\n\n".join(parts) + "\n"


def one_line(row: Row) -> str:
    """Return a result in a line for whoever waits."""
    case = row["case"]
    with_it = " with the SEB" if case["semantics"] else ""
    what = f"{case['kind']} {case['name']}{with_it}, {row['file']}"
    if "error" in row:
        return f"{what}: {row['error']}"
    if "coded" in row:
        return f"{what}: {row['bytes']:,} to {row['coded']:,} bytes in {row['compress']['seconds']:.2f} s"
    return what


def speed_text(speed: float) -> str:
    """Return a speed with three digits that count."""
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
