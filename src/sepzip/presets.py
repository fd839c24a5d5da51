"""Levels and model settings: everything about a model that a frame's header stores.

Imports without torch, so that listing a file needs none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .errors import UsageError

__all__ = [
    "DEFAULT_LEVEL",
    "LEVELS",
    "MOST_LANES",
    "NETWORKS",
    "NUMERICS_VERSION",
    "ModelSettings",
    "Preset",
    "lanes_for",
    "resolve",
]

NUMERICS_VERSION = 1
"""The set of exact operations (docs/numerics.md) that new frames are made with."""

MOST_LANES = 1 << 16


@dataclass(frozen=True)
class ModelSettings:
    """All that decides what a model computes; equal settings and equal bytes give equal predictions.

    `context` is in bytes. With the SEB (`semantics`), `patch` is the bytes of a patch and every
    `stride`-th patch is kept by the mask; without it both are 0. `embedding` is the values per byte,
    `lane_widths` the widths of the per-lane layers, `hidden` the width between the two products of
    the feed-forward layer. `learning_rate` is in millionths. `lanes_per_coder` lanes share one
    entropy coder.
    """

    network: str = "pac"
    semantics: bool = True
    context: int = 48
    patch: int = 16
    stride: int = 8
    embedding: int = 16
    lane_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    hidden: int = 4096
    learning_rate: int = 1000
    seed: int = 0
    lanes_per_coder: int = 8

    @property
    def width(self) -> int:
        """The number of values that a base network takes from each lane."""
        return (self.patch if self.semantics else self.context) * self.embedding


@dataclass(frozen=True)
class Preset:
    """A level: the model, how many lanes at most, and how many bytes make a segment."""

    model: ModelSettings
    lanes: int
    segment_size: int


_PAC_SEMANTIC = ModelSettings()
_PAC_PLAIN = ModelSettings(semantics=False, context=16, patch=0, stride=0, lane_widths=(16, 32, 64, 128))
_SMALL_SEMANTIC = ModelSettings(
    context=24, patch=12, stride=4, embedding=8, lane_widths=(8, 16, 32), hidden=256, learning_rate=2000
)
_SMALL_PLAIN = replace(_SMALL_SEMANTIC, semantics=False, context=12, patch=0, stride=0)

NETWORKS: dict[str, dict[bool, Preset]] = {
    "pac": {
        True: Preset(_PAC_SEMANTIC, lanes=512, segment_size=1 << 26),
        False: Preset(_PAC_PLAIN, lanes=512, segment_size=1 << 26),
    },
    "pac-small": {
        True: Preset(_SMALL_SEMANTIC, lanes=256, segment_size=1 << 26),
        False: Preset(_SMALL_PLAIN, lanes=256, segment_size=1 << 26),
    },
}
"""Named settings: the network alone (False) and with the SEB in front of it (True)."""


def _level(lanes: int, hidden: int, lane_widths: tuple[int, ...], embedding: int = 8) -> Preset:
    model = replace(_SMALL_SEMANTIC, hidden=hidden, lane_widths=lane_widths, embedding=embedding)
    return Preset(model, lanes=lanes, segment_size=1 << 26)


LEVELS: dict[int, Preset] = {
    1: _level(512, 128, (8,)),
    2: _level(512, 256, (8, 16)),
    3: _level(256, 256, (8, 16)),
    4: _level(256, 256, (8, 16, 32)),
    5: _level(128, 256, (8, 16, 32)),
    6: _level(128, 512, (8, 16, 32)),
    7: _level(128, 1024, (16, 32, 64), embedding=16),
    8: NETWORKS["pac"][False],
    9: NETWORKS["pac"][True],
}
DEFAULT_LEVEL = 3

_BYTES_PER_LANE = 2048
"""The least that is worth a lane: below it, a lane's start costs more than its parallel work saves."""


def lanes_for(size: int, most: int) -> int:
    """Return how many lanes a segment of `size` bytes gets, at most `most` and at least 1."""
    return max(1, min(most, size // _BYTES_PER_LANE))


def resolve(
    level: int | None = None,
    network: str | None = None,
    semantics: bool = True,
    lanes: int | None = None,
) -> Preset:
    """Return the preset for a level, or for a named network, with its lanes and SEB as asked.

    Raises UsageError for a level outside 1 to 9, a name that is not in NETWORKS, or lanes below 1.
    """
    if network is not None:
        if network not in NETWORKS:
            raise UsageError(f"unknown network {network!r}: choose one of {', '.join(sorted(NETWORKS))}")
        preset = NETWORKS[network][semantics]
    else:
        level = DEFAULT_LEVEL if level is None else level
        if level not in LEVELS:
            raise UsageError(f"level {level} is not one of {min(LEVELS)} to {max(LEVELS)}")
        preset = LEVELS[level]
        if not semantics and preset.model.semantics:
            model = replace(preset.model, semantics=False, context=preset.model.patch, patch=0, stride=0)
            preset = replace(preset, model=model)
    if lanes is not None:
        if not 1 <= lanes <= MOST_LANES:
            raise UsageError(f"lanes must be from 1 to {MOST_LANES}, not {lanes}")
        preset = replace(preset, lanes=lanes)
    return preset
