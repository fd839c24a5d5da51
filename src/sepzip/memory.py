"""What a model needs of memory, what is free, and what the segments in flight have been promised of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import outside
from .errors import OutOfMemoryError
from .presets import ModelSettings
from .recall.sizes import PRIMER_SIZE, TABLE_BITS_LEAST, table_bits

if TYPE_CHECKING:
    import torch

__all__ = [
    "LARGE_MODEL",
    "Ledger",
    "Promise",
    "Share",
    "advice",
    "available",
    "installed",
    "limit_in_bytes",
    "memory_needed",
    "parameter_count",
    "within_limit",
    "workspace_needed",
    "workspaces_for",
]

LARGE_MODEL = 1 << 23
"""Models of at least so many weights keep a device's memory busy by their updates alone."""

_MIB = 1 << 20


@dataclass(frozen=True)
class Share:
    """A limit that is a part of each device's memory, in percent."""

    percent: int


def parameter_count(model: ModelSettings, lanes: int) -> int:
    """Return how many weights the model has, those of the lanes included."""
    return _network(model.network).parameters(model, lanes) + _ngram_rows(model) + _ngram_layer(model)


def memory_needed(model: ModelSettings, lanes: int, size: int) -> int:
    """Return an estimate, in bytes, of what coding a segment of `size` bytes takes.

    Four float32 numbers a weight are kept and up to three more are in work at a time. Of rows the values and
    room for their sums, in 64 bits, are kept.
    """
    network = _network(model.network)
    weights = 28 * (network.parameters(model, lanes) + _ngram_layer(model)) + 12 * _ngram_rows(model)
    weights += 4 * (len(model.ngrams) << model.ngram_bits)
    return weights + workspace_needed(model, lanes) + network.work(model, size) + 4 * size + 32 * _MIB


def workspace_needed(model: ModelSettings, lanes: int) -> int:
    """Return the part of `memory_needed` that only lives within a step, so that segments can share it."""
    return lanes * (_network(model.network).activations(model) + _ngram_activations(model) + 4 * 256 * 16)


def workspaces_for(model: ModelSettings, lanes: int) -> int | None:
    """Return how many workspaces segments in flight share where memory allows more, None for one each.

    Two steps of a large model, one of which is in its updates while the other is not, leave little to gain.
    """
    return 2 if parameter_count(model, lanes) >= LARGE_MODEL else None


def _pac_parameters(model: ModelSettings, lanes: int) -> int:
    width, hidden = model.width, model.hidden
    lane = sum(size * size + size for size in model.lane_widths) * lanes
    shared = len(model.lane_widths) * (2 * width * hidden + hidden + 5 * width)
    return lane + shared + 257 * 256 + width * 256 + 256 * model.embedding + 2 * model.context


def _pac_activations(model: ModelSettings) -> int:
    """A lane has about twelve live numbers for every hidden value, the SEB two float64 a byte's value."""
    values = 12 * model.hidden + 40 * model.width * len(model.lane_widths)
    return 4 * values + model.context * model.embedding * 24


def _oreo_parameters(model: ModelSettings, lanes: int) -> int:
    width, hidden = model.width, model.hidden
    shared = model.layers * (2 * width * hidden + hidden + 5 * width)
    order = width // model.embedding
    table = 256 * model.embedding
    return shared + order + _fusing_parameters(model) + 256 * (width + 1) + table


def _oreo_activations(model: ModelSettings) -> int:
    values = model.layers * (9 * model.hidden + 30 * model.width) + 3 * model.hidden
    return 4 * values + model.context * model.embedding * 24


def _trace_parameters(model: ModelSettings, lanes: int) -> int:
    return _token_parameters(model, 3)


def _token_parameters(model: ModelSettings, projections: int) -> int:
    """Two normalisations, an attention of so many square matrices, a feed-forward layer, and the front."""
    width, hidden = model.width, model.hidden
    attention = projections * (width * width + width)
    feed_forward = 2 * width * hidden + hidden + width
    shared = 256 * model.embedding + 4 * width + attention + feed_forward + 256 * (width + 1)
    if not model.semantics:
        return shared
    patches = model.context - model.patch + 1
    fusing = (patches + 1) * model.tokens + patches * width
    return shared + fusing + (model.tokens + 2) * model.mixing + 1


def _trace_activations(model: ModelSettings) -> int:
    """Per lane: what attention holds of every token, and the layers of those that attend."""
    width = model.width
    tokens = model.tokens if model.semantics else model.context // model.token
    attending = model.tokens if model.semantics else 1
    values = 36 * tokens * width + 16 * attending * model.hidden + 12 * width * model.mixing
    return 4 * values + model.context * (model.embedding + model.positions) * 40


def _trace_work(model: ModelSettings, size: int) -> int:
    """The SEB's banded matrices and its weights, masked, in several copies."""
    return 40 * (model.context + model.patch) * model.tokens * model.width


def _patchtst_parameters(model: ModelSettings, lanes: int) -> int:
    return _token_parameters(model, 4)


def _patchtst_activations(model: ModelSettings) -> int:
    """Per lane: what the layers hold of every token, since all attend, and of every pair of tokens."""
    width = model.width
    tokens = model.tokens if model.semantics else model.context // model.token
    pairs = 16 * model.heads * tokens * tokens
    values = tokens * (60 * width + 14 * model.hidden) + pairs + 12 * width * model.mixing
    return 4 * values + model.context * (model.embedding + model.positions) * 40


def _lstm_parameters(model: ModelSettings, lanes: int) -> int:
    layers, hidden, embedding = model.layers, model.hidden, model.embedding
    inputs = layers * (embedding + hidden) + (layers - 1) * hidden
    output = 256 * (layers * hidden + 1)
    return 4 * hidden * (inputs + layers) + 256 * embedding + output + _fusing_parameters(model)


def _lstm_activations(model: ModelSettings) -> int:
    """Numbers for every byte of a lane's context and every cell of every layer, and more in one layer."""
    layers, hidden = model.layers, model.hidden
    places = model.patch if model.semantics else model.context
    fusing = model.context * model.embedding * 24 if model.semantics else 0
    return places * 4 * (layers * (26 * hidden + 3 * model.embedding) + 40 * hidden) + fusing


def _lstm_work(model: ModelSettings, size: int) -> int:
    """Products that are computed in float64 take the largest matrix in once more, and give as much out."""
    return 16 * 4 * model.hidden * (model.embedding + model.hidden)


def _decmac_parameters(model: ModelSettings, lanes: int) -> int:
    layers, hidden, embedding = model.layers, model.hidden, model.embedding
    inputs = embedding + (2 * layers - 1) * hidden
    output = 256 * (hidden + 1)
    return 4 * hidden * (inputs + layers) + 256 * embedding + output + _fusing_parameters(model)


def _nncp_parameters(model: ModelSettings, lanes: int) -> int:
    width, hidden = model.embedding, model.hidden
    attention = 4 * (width * width + width) + (model.context + model.update_steps) * width
    layer = attention + 2 * width * hidden + hidden + width + 4 * width
    output = 2 * width + 256 * (width + 1)
    return model.layers * layer + 256 * width + output + _fusing_parameters(model)


def _nncp_activations(model: ModelSettings) -> int:
    """Per lane: what an update's layers hold of its bytes, of what they see, and of each pair of the two."""
    width, steps = model.embedding, model.update_steps
    tokens = model.context + steps
    pairs = 10 * model.heads * steps * tokens
    a_layer = steps * (20 * width + 6 * model.hidden) + 16 * tokens * width + pairs
    fusing = tokens * width * 24 if model.semantics else 0
    return 4 * (model.layers * a_layer + steps * 4 * 256 * 10) + fusing


def _fusing_parameters(model: ModelSettings) -> int:
    """Return the weights with which the SEB makes one patch, but for its table: 0 without the SEB."""
    return 2 * (model.context - model.patch + 1) + 1 if model.semantics else 0


def _ngram_rows(model: ModelSettings) -> int:
    """Return the numbers in the rows of all n-grams."""
    return (len(model.ngrams) << model.ngram_bits) * model.ngram_size


def _ngram_layer(model: ModelSettings) -> int:
    """Return the weights from the rows to the logits, and the gates of 32 classes of rows."""
    count = len(model.ngrams)
    return count * (256 * model.ngram_size + 32) + 256 if count else 0


def _ngram_activations(model: ModelSettings) -> int:
    """Per lane, and for each step of an update: rows in several copies, some of them in 64 bits."""
    rows = len(model.ngrams) * (20 * model.ngram_size + 40)
    # Its own exponentials, in 64 bits, and gradients.
    own = 256 * 12 * model.ngram_own
    return 4 * model.update_steps * (rows + own)


@dataclass(frozen=True)
class _Network:
    """How much a network takes: weights, bytes a lane in a step, and bytes by the segment's size."""

    parameters: Callable[[ModelSettings, int], int]
    activations: Callable[[ModelSettings], int]
    work: Callable[[ModelSettings, int], int]


def _recall_work(model: ModelSettings, size: int) -> int:
    """Tables of contexts and of matches, and corrections with their counts; the primer may be read first."""
    return 4 * (model.contexts << table_bits(model, size + PRIMER_SIZE)) + 80 * _MIB


def _no_work(model: ModelSettings, size: int) -> int:
    return 0


_networks = {
    "decmac": _Network(_decmac_parameters, _lstm_activations, _lstm_work),
    "lstm": _Network(_lstm_parameters, _lstm_activations, _lstm_work),
    "nncp": _Network(_nncp_parameters, _nncp_activations, _no_work),
    "oreo": _Network(_oreo_parameters, _oreo_activations, _no_work),
    "pac": _Network(_pac_parameters, _pac_activations, _no_work),
    "patchtst": _Network(_patchtst_parameters, _patchtst_activations, _trace_work),
    "recall": _Network(lambda model, lanes: 0, lambda model: 8192 + 75_000 * model.recurrent, _recall_work),
    "trace": _Network(_trace_parameters, _trace_activations, _trace_work),
}


def _network(name: str) -> _Network:
    """Return what the network of this name takes, where another package brings it, by that package."""
    if name in _networks:
        return _networks[name]
    network = outside.load(name)
    return _Network(network.parameters, network.activations, _no_work)


def available(device: str) -> int | None:
    """Return the bytes that are free on the device, or None where the system does not tell."""
    if device != "cpu":
        import torch

        # What torch has reserved and not given out is as good as free.
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    return _system_memory("MemAvailable:", "SC_AVPHYS_PAGES")


def installed(device: str) -> int | None:
    """Return the bytes of memory that the device has, or None where the system does not tell."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(device)[1]
    return _system_memory("MemTotal:", "SC_PHYS_PAGES")


def _system_memory(field: str, pages: str) -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


@dataclass(eq=False)
class Promise:
    """What one segment has been promised: `needed` bytes, of which it takes `shared` from another's."""

    kind: tuple[ModelSettings, int] | None
    needed: int
    shared: int = 0


class Ledger:
    """What the segments in flight on one device have been promised of its memory.

    A segment is admitted before it starts, if it fits next to those in flight into the limit and into what
    was free before the first of them, and also into what is free now: they may not have taken all of their
    own yet, and other programs may have taken some meanwhile. Where it does not fit, it may do by sharing the
    workspace of one of its kind.
    """

    def __init__(self, device: str, limit: int | Share | None) -> None:
        self._device = device
        self._limit = limit_in_bytes(limit, device)
        self._free_before: int | None = None
        self._promised: list[Promise] = []

    @property
    def in_flight(self) -> int:
        """The number of segments that were admitted and not released."""
        return len(self._promised)

    @property
    def room(self) -> int | None:
        """The bytes that all segments together may take, None where nobody knows."""
        known = [size for size in (self._free_before, self._limit) if size is not None]
        return min(known, default=None)

    def admit(
        self, needed: int, kind: tuple[ModelSettings, int] | None = None, shared: int = 0
    ) -> Promise | None:
        """Promise `needed` bytes to one more segment, or return None where they do not fit now.

        With `shared` it has so many of them from another segment of its kind, a model and lanes; None where
        no other has them.
        """
        free = available(self._device)
        if not self._promised:
            self._free_before = free
        if shared and self._owner(kind) is None:
            return None
        room = self.room
        promised = sum(promise.needed - promise.shared for promise in self._promised)
        fits_beside = room is None or promised + needed - shared <= room
        fits_now = free is None or needed - shared <= free
        if not fits_beside or not fits_now:
            return None
        promise = Promise(kind, needed, shared)
        self._promised.append(promise)
        return promise

    def _owner(self, kind: tuple[ModelSettings, int] | None) -> Promise | None:
        return next((one for one in self._promised if one.kind == kind and not one.shared), None)

    def release(self, promise: Promise) -> None:
        """Take back what was promised to one segment; what others share of it becomes one of theirs."""
        self._promised.remove(promise)
        if not promise.shared:
            heir = next((one for one in self._promised if one.kind == promise.kind and one.shared), None)
            if heir is not None:
                heir.shared = 0

    def refusal(self, model: ModelSettings, lanes: int, size: int) -> OutOfMemoryError:
        """Return the error for a segment that does not fit alone, which says what would help."""
        needed, room = memory_needed(model, lanes, size), self.room or 0
        fitting = lanes
        while fitting > 1 and memory_needed(model, fitting, size) > room:
            fitting //= 2
        fits = memory_needed(model, fitting, size) <= room
        hint = f"{fitting} would fit" if fits else "though even 1 is too many"
        if room == self._limit:
            allowed, larger = f"the limit is {room // _MIB} MiB of", f" -M {-(-needed // _MIB)}MiB or"
        else:
            allowed, larger = f"{room // _MIB} MiB are free on", ""
        return OutOfMemoryError(
            f"this model with --lanes {lanes} needs about {-(-needed // _MIB)} MiB "
            f"and {allowed} {self._device}: "
            f"pass{larger} another --device, or when compressing fewer --lanes ({hint}) or a lower level"
        )


def within_limit(model: ModelSettings, lanes: int, size: int, limit: int | None) -> ModelSettings:
    """Return the model, its tables halved until it fits into the limit, where it has any and they matter."""
    while (
        limit is not None
        and model.contexts
        and model.table_bits > TABLE_BITS_LEAST
        and memory_needed(model, lanes, size) > limit
    ):
        model = replace(model, table_bits=table_bits(model, size + PRIMER_SIZE) - 1)
    return model


def limit_in_bytes(limit: int | Share | None, device: str) -> int | None:
    """Return a limit in bytes: a share is one of the device's memory."""
    if not isinstance(limit, Share):
        return limit
    total = installed(device)
    return None if total is None else total * limit.percent // 100


def advice(device: str | torch.device) -> str:
    """Return the line for memory that ran out in the middle of the work."""
    return (
        f"memory ran out on {device}: free some, use another --device, fewer --streams or a smaller -M, or "
        "compress with fewer --lanes or a lower level"
    )
