"""Levels and model settings: everything about a model that a frame's header stores.

Imports without torch, so that listing a file needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from . import outside
from .errors import UsageError

__all__ = [
    "DEFAULT_LEVEL",
    "LEVELS",
    "MOST_LANES",
    "MOST_LANES_OF_MEMORY",
    "MOST_SEGMENT",
    "NETWORKS",
    "NUMERICS_VERSION",
    "ModelSettings",
    "Preset",
    "Semantics",
    "resolve",
    "with_drop",
    "with_ngrams",
]

Semantics = bool | Literal["drop", "ngrams", "both"]
"""What is put to a network: the SEB or nothing; the SEB, which drops patches; n-grams beside it; or both."""

NUMERICS_VERSION = 1
"""The set of exact operations (docs/numerics.md) that new frames are made with."""

MOST_LANES = 1 << 16

MOST_LANES_OF_MEMORY = 2048
"""Lanes that a memory of contexts can serve: what they meet in is counted in 16 bits."""

MOST_SEGMENT = 1 << 30
"""The most bytes of content that a segment can have."""


@dataclass(frozen=True)
class ModelSettings:
    """All that decides what a model computes; equal settings and equal bytes give equal predictions.

    `context` is in bytes. With the SEB (`semantics`), `patch` is the bytes of a patch and every
    `stride`-th patch is kept by the mask; without it both are 0. `embedding` is the values per byte,
    `hidden` the width between the two products of the feed-forward layer. The learning rate, in
    millionths, falls from `learning_rate` to `learning_rate_last`; the gap shrinks by
    1/`learning_rate_steps` a step. `lanes_per_coder` lanes share one entropy coder.

    PAC alone has `lane_widths`, the widths of the per-lane layers. TRACE and PatchTST have `positions`, the
    values behind each byte's embedding that say where it stands, and `heads`, the parts of their attention.
    Without the SEB they take `token` bytes as a token; with it, `tokens` fused patches, and `mixing` is the
    width of the layer that mixes them in the end.

    OREO has `layers` feed-forward layers. An LSTM (`lstm`, `decmac`) has `layers` layers of `hidden` cells
    each, and is learnt through `context` bytes, with the SEB through `patch` places; `beta1` and `beta2`, in
    millionths, are what a step of Adam keeps of the two moments. A network that does not use one of these
    three has its default.

    The Transformer of NNCP attends to `context` bytes before those of its update, and updates its weights
    once in `update_steps` steps.

    With the SEB, once `drop_step` steps are learned, the patches older than the oldest that has weight are
    dropped: one has, if a masked weight of it is at least `drop_below` thousandths of the largest. With 0,
    in both, none is.

    `ngrams` are the contexts beside the network: bit i of each says whether the byte i places before the
    newest is part of it. Each has 2^`ngram_bits` rows of `ngram_size` values, which learn with the rate
    `ngram_rate`, in millionths. With `ngram_own` 1 the network learns by its own loss while they gain little,
    with 0 by that of both alone. Without them all of these are 0.

    `recall` is a memory of contexts: `contexts` of them at most, each with a table of at most 2^`table_bits`
    slots. With `recurrent` 1 a recurrent network stands beside them. It has none of the settings before, and
    others do not have these.
    """

    network: str = "pac"
    semantics: bool = True
    context: int = 48
    patch: int = 16
    stride: int = 8
    embedding: int = 16
    lane_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    hidden: int = 4096
    positions: int = 0
    token: int = 0
    heads: int = 0
    tokens: int = 0
    mixing: int = 0
    learning_rate: int = 1000
    learning_rate_last: int = 1000
    learning_rate_steps: int = 1
    seed: int = 0
    lanes_per_coder: int = 8
    layers: int = 0
    update_steps: int = 1
    beta1: int = 900_000
    beta2: int = 999_000
    contexts: int = 0
    table_bits: int = 0
    recurrent: int = 0
    ngrams: tuple[int, ...] = ()
    ngram_bits: int = 0
    ngram_size: int = 0
    ngram_rate: int = 0
    ngram_own: int = 0
    drop_step: int = 0
    drop_below: int = 0

    @property
    def width(self) -> int:
        """The number of values that a base network takes from each lane, or as one of its tokens."""
        joined = self.patch if self.semantics else self.token or self.context
        return joined * (self.embedding + self.positions)

    @property
    def seen(self) -> int:
        """The newest bytes of a lane that a prediction depends on directly."""
        return max(self.context, *(number.bit_length() for number in self.ngrams), 0)

    @property
    def most_lanes(self) -> int:
        """The number of lanes that the model can have at most."""
        return MOST_LANES_OF_MEMORY if self.contexts else MOST_LANES


@dataclass(frozen=True)
class Preset:
    """A level: the model, how many lanes at most, and how many bytes make a segment.

    Below `bytes_per_lane` bytes a lane is not worth having: its start costs more size than working in
    parallel saves time. Lanes that a user asks for are taken at their word, with 1. `unpacks` says that what
    is packed already is unpacked first, and what archives hold is sorted.
    """

    model: ModelSettings
    lanes: int
    segment_size: int = 1 << 26
    bytes_per_lane: int = 2048
    unpacks: bool = True

    def lanes_for(self, size: int) -> int:
        """Return how many lanes a segment of `size` bytes gets, at least 1."""
        return max(1, min(self.lanes, size // self.bytes_per_lane))


_PAC_SEMANTIC = ModelSettings()
_PAC_PLAIN = replace(
    _PAC_SEMANTIC, semantics=False, context=16, patch=0, stride=0, lane_widths=(16, 32, 64, 128)
)
_SMALL = ModelSettings(
    context=24,
    patch=12,
    stride=4,
    embedding=8,
    lane_widths=(16,),
    hidden=256,
    learning_rate=6000,
    learning_rate_last=1500,
    learning_rate_steps=1000,
)

_TRACE_PLAIN = ModelSettings(
    network="trace",
    semantics=False,
    context=64,
    patch=0,
    stride=0,
    embedding=32,
    lane_widths=(),
    hidden=4096,
    positions=32,
    token=4,
    heads=8,
)
_TRACE_SMALL_PLAIN = replace(
    _TRACE_PLAIN,
    context=32,
    embedding=8,
    hidden=256,
    positions=8,
    heads=4,
    learning_rate=8000,
    learning_rate_last=1500,
    learning_rate_steps=1000,
)
_TRACE_SEMANTIC = replace(_TRACE_PLAIN, semantics=True, patch=4, stride=4, token=0, tokens=4, mixing=128)
_TRACE_SMALL = replace(_TRACE_SMALL_PLAIN, semantics=True, patch=4, stride=4, token=0, tokens=4, mixing=16)

_PATCHTST_PLAIN = replace(_TRACE_PLAIN, network="patchtst")
_PATCHTST_SEMANTIC = replace(
    _TRACE_SEMANTIC, network="patchtst", embedding=64, positions=0, tokens=8, mixing=128
)
_PATCHTST_SMALL_PLAIN = replace(_TRACE_SMALL_PLAIN, network="patchtst")
_PATCHTST_SMALL = replace(_TRACE_SMALL, network="patchtst", embedding=16, positions=0, tokens=4, mixing=16)

_OREO_SEMANTIC = replace(_PAC_SEMANTIC, network="oreo", lane_widths=(), layers=2)
_OREO_SMALL = replace(_SMALL, network="oreo", lane_widths=(), layers=1)


def _without_semantics(model: ModelSettings) -> ModelSettings:
    """Return the model with its SEB left off: the base network takes the newest patch alone."""
    return replace(model, semantics=False, context=model.patch, patch=0, stride=0)


_LSTM = ModelSettings(
    network="lstm",
    semantics=False,
    context=4,
    patch=0,
    stride=0,
    embedding=32,
    lane_widths=(),
    hidden=128,
    layers=2,
    learning_rate=8000,
    learning_rate_last=1000,
    learning_rate_steps=1000,
    beta1=0,
    beta2=999_900,
)
_LSTM_LARGE = replace(
    _LSTM,
    context=15,
    embedding=1024,
    hidden=4000,
    layers=8,
    learning_rate=500,
    learning_rate_last=200,
    learning_rate_steps=10_000,
)

_LSTM_SEMANTIC = replace(_LSTM, semantics=True, context=12, patch=4, stride=4)
_LSTM_LARGE_SEMANTIC = replace(_LSTM_LARGE, semantics=True, context=45, patch=15, stride=15)
_DECMAC = replace(_LSTM, network="decmac", hidden=512, layers=1)
_DECMAC_SEMANTIC = replace(_LSTM_SEMANTIC, network="decmac", hidden=512, layers=1)

_NNCP = replace(
    _LSTM,
    network="nncp",
    context=32,
    embedding=256,
    heads=8,
    hidden=512,
    layers=4,
    update_steps=32,
    learning_rate=300,
    learning_rate_last=100,
    learning_rate_steps=10_000,
)
_NNCP_SMALL = replace(
    _NNCP,
    context=16,
    embedding=64,
    heads=4,
    hidden=256,
    layers=2,
    update_steps=4,
    learning_rate=6000,
    learning_rate_last=1000,
    learning_rate_steps=1000,
)

_RECALL = ModelSettings(network="recall", semantics=False, patch=0, stride=0, lane_widths=())


def _memory_of_contexts(lanes: int, contexts: int, table_bits: int, recurrent: int = 0) -> Preset:
    """Return a preset of `recall`."""
    return Preset(
        replace(_RECALL, contexts=contexts, table_bits=table_bits, recurrent=recurrent),
        lanes=lanes,
        bytes_per_lane=1 << 14,
    )


_NGRAMS = (0b1, 0b11, 0b111, 0b1111, 0b11111, 0b10, 0b1000, 0b1010, 0b1000_0000)
"""The newest 1 to 5 bytes, and for records and samples bytes that are 2, 4 and 8 places back."""


def with_ngrams(model: ModelSettings) -> ModelSettings:
    """Return the model with n-grams beside it, of as many rows as suit its size."""
    bits = 16 if model.hidden > 512 else 14
    return replace(model, ngrams=_NGRAMS, ngram_bits=bits, ngram_size=16, ngram_rate=100_000, ngram_own=1)


_DROP_STEP = 512
_DROP_BELOW, _DROP_BELOW_OF_TOKENS = 60, 250


def with_drop(model: ModelSettings) -> ModelSettings:
    """Return the model, which has the SEB, so that patches of no weight are dropped in time."""
    step = -(-_DROP_STEP // model.update_steps) * model.update_steps
    # The weights of tokens start spread out, and stay so.
    below = _DROP_BELOW_OF_TOKENS if model.tokens else _DROP_BELOW
    return replace(model, drop_step=step, drop_below=below)


NETWORKS: dict[str, dict[bool, Preset]] = {
    "oreo": {
        True: Preset(_OREO_SEMANTIC, lanes=512),
        False: Preset(_without_semantics(_OREO_SEMANTIC), lanes=512),
    },
    "oreo-small": {
        True: Preset(_OREO_SMALL, lanes=256),
        False: Preset(_without_semantics(_OREO_SMALL), lanes=256),
    },
    "pac": {
        True: Preset(_PAC_SEMANTIC, lanes=512),
        False: Preset(_PAC_PLAIN, lanes=512),
    },
    "pac-small": {
        True: Preset(_SMALL, lanes=256),
        False: Preset(_without_semantics(_SMALL), lanes=256),
    },
    "lstm": {
        True: Preset(_LSTM_SEMANTIC, lanes=128),
        False: Preset(_LSTM, lanes=128),
    },
    "lstm-large": {
        True: Preset(_LSTM_LARGE_SEMANTIC, lanes=128),
        False: Preset(_LSTM_LARGE, lanes=128),
    },
    "nncp": {
        True: Preset(replace(_NNCP, semantics=True, patch=1, stride=8), lanes=32),
        False: Preset(_NNCP, lanes=32),
    },
    "nncp-small": {
        True: Preset(replace(_NNCP_SMALL, semantics=True, patch=1, stride=4), lanes=64),
        False: Preset(_NNCP_SMALL, lanes=64),
    },
    "decmac": {
        True: Preset(_DECMAC_SEMANTIC, lanes=128),
        False: Preset(_DECMAC, lanes=128),
    },
    "decmac-small": {
        True: Preset(replace(_DECMAC_SEMANTIC, hidden=128), lanes=128),
        False: Preset(replace(_DECMAC, hidden=128), lanes=128),
    },
    "recall": {False: _memory_of_contexts(128, 26, 22)},
    "trace": {
        True: Preset(_TRACE_SEMANTIC, lanes=512),
        False: Preset(_TRACE_PLAIN, lanes=512),
    },
    "trace-small": {
        True: Preset(_TRACE_SMALL, lanes=256),
        False: Preset(_TRACE_SMALL_PLAIN, lanes=256),
    },
    "patchtst": {
        True: Preset(_PATCHTST_SEMANTIC, lanes=512),
        False: Preset(_PATCHTST_PLAIN, lanes=512),
    },
    "patchtst-small": {
        True: Preset(_PATCHTST_SMALL, lanes=256),
        False: Preset(_PATCHTST_SMALL_PLAIN, lanes=256),
    },
}
"""Named settings: the network alone (False) and, where that exists, with the SEB in front of it (True)."""

LEVELS: dict[int, Preset] = {
    level: _memory_of_contexts(lanes, contexts, table_bits, recurrent)
    for level, lanes, contexts, table_bits, recurrent in (
        (1, 1024, 6, 20, 0),
        (2, 512, 10, 20, 0),
        (3, 512, 10, 22, 0),
        (4, 256, 16, 22, 0),
        (5, 128, 26, 22, 0),
        (6, 64, 26, 24, 0),
        (7, 32, 26, 24, 0),
        (8, 8, 26, 24, 1),
        (9, 2, 26, 24, 1),
    )
}
"""Memories of contexts: more lanes are faster on a GPU, fewer of them and more contexts smaller.

A recurrent network beside them makes them smaller still, in half as much time again on a CPU.
"""

DEFAULT_LEVEL = 5


def resolve(
    level: int | None = None,
    network: str | None = None,
    semantics: Semantics = True,
    lanes: int | None = None,
    segment_size: int | None = None,
    unpack: bool = True,
) -> Preset:
    """Return the preset for a level, or for a named network, with its lanes, segments and SEB as asked.

    A network that the SEB cannot stand in front of comes without it. With "drop" the SEB drops patches of no
    weight. With "ngrams" n-grams stand beside the network alone, with "both" beside the one with the SEB. A
    name that is not in NETWORKS can be that of a network of another package (outside.py). Without `unpack`
    streams that are packed already, and members of archives, stay as they are.

    Raises UsageError for a level outside 1 to 9, an unknown name, "drop" where there is no SEB, n-grams
    beside a memory of contexts, or lanes or a segment size that the format does not have; UnsupportedError
    for a network of another package that does not load.
    """
    if network is not None:
        if network in NETWORKS:
            presets: Mapping[bool, Preset] = NETWORKS[network]
        elif outside.is_installed(network):
            presets = outside.load(network).presets
        else:
            known = ", ".join(sorted({*NETWORKS, *outside.names()}))
            raise UsageError(f"unknown network {network!r}: choose one of {known}")
        preset = presets[semantics in (True, "drop", "both") and True in presets]
    else:
        level = DEFAULT_LEVEL if level is None else level
        if level not in LEVELS:
            raise UsageError(f"level {level} is not one of {min(LEVELS)} to {max(LEVELS)}")
        preset = LEVELS[level]
    if semantics == "drop":
        if not preset.model.semantics:
            raise UsageError("patches are those of the SEB: name a network that has it with --network")
        preset = replace(preset, model=with_drop(preset.model))
    elif isinstance(semantics, str):
        if semantics not in ("ngrams", "both"):
            raise UsageError(f"semantics must be True, False, 'drop', 'ngrams' or 'both', not {semantics!r}")
        preset = replace(preset, model=_beside_ngrams(preset.model))
    if lanes is not None:
        most = preset.model.most_lanes
        if not 1 <= lanes <= most:
            raise UsageError(f"lanes must be from 1 to {most}, not {lanes}")
        preset = replace(preset, lanes=lanes, bytes_per_lane=1)
    if segment_size is not None:
        if not 1 <= segment_size <= MOST_SEGMENT:
            raise UsageError(f"the segment size must be from 1 to {MOST_SEGMENT} bytes, not {segment_size}")
        preset = replace(preset, segment_size=segment_size)
    return preset if unpack else replace(preset, unpacks=False)


def _beside_ngrams(model: ModelSettings) -> ModelSettings:
    if model.contexts:
        raise UsageError("n-grams go with a network that learns by gradients: name one with --network")
    return with_ngrams(model)
