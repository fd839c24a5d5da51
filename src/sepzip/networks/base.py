"""What a network is, and how one is built from a frame's settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .. import outside
from ..errors import UnsupportedError
from ..exact.initialise import Initialiser
from ..exact.tape import Node, Parameters, Tape
from ..ngrams import ReviewingWithNGrams, WithNGrams, fit_kernels
from ..presets import ModelSettings

__all__ = ["Front", "Kernels", "Network", "Reviewing", "build", "has_kernels", "kernels_of", "register"]


class Front(Protocol):
    """What turns a context into the values that a base network takes."""

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return what the network takes, often [lanes, width]; context int64 [bytes, lanes], oldest first."""


class Network(Protocol):
    """A network with all its weights in `parameters`."""

    parameters: Parameters

    def start(self, context: Tensor) -> None:
        """Fill what is kept from step to step as if `context`, int64 [bytes, lanes], had been seen."""

    def forward(self, tape: Tape, context: Tensor) -> Node:
        """Return logits [lanes, 256] of the next byte; called once a step, in order."""


@runtime_checkable
class Reviewing(Network, Protocol):
    """A network that learns `update_steps` steps at once; `forward` then records nothing on its tape."""

    def review(self, tape: Tape, symbols: Tensor) -> Node:
        """Return logits [lanes * steps, 256] of the bytes of an update, afresh, when its steps have passed.

        symbols, int64 [context + steps - 1, lanes], are all that `forward` saw in these steps.
        """


Builder = Callable[[ModelSettings, int, Parameters, Initialiser], Network]


@dataclass(frozen=True)
class Kernels:
    """The twin of a network that is made of kernels.

    `module` has the functions `fuse_front`, which makes the front's kernels of what was built, and `fuse`,
    which makes a FusedNetwork behind such a front; it is imported only where kernels can run. `fits` says of
    settings and a number of lanes whether the kernels hold them: in their registers, and in the integers of
    their sums.
    """

    module: str
    fits: Callable[[ModelSettings, int], bool]


_builders: dict[str, Builder] = {}
_kernels: dict[str, Kernels] = {}


def register(name: str, builder: Builder, kernels: Kernels | None = None) -> None:
    """Let settings whose network is `name` be built by `builder`, and its steps run by `kernels`."""
    _builders[name] = builder
    if kernels is not None:
        _kernels[name] = kernels


def has_kernels(settings: ModelSettings, lanes: int) -> bool:
    """Return whether the network of these settings, and n-grams beside it, have kernels for so many lanes."""
    kernels = _kernels.get(settings.network)
    return kernels is not None and kernels.fits(settings, lanes) and fit_kernels(settings)


def kernels_of(name: str) -> Any:
    """Return the module of the network's kernels."""
    return importlib.import_module(_kernels[name].module)


def build(settings: ModelSettings, lanes: int, device: torch.device) -> Network:
    """Return the network of these settings with its first weights.

    Raises UnsupportedError for an unknown name, or where the SEB cannot stand in front of the network.
    """
    parameters = Parameters(device)
    initialiser = Initialiser(settings.seed, device)
    network = _builder(settings)(settings, lanes, parameters, initialiser)
    if isinstance(network, Reviewing) and settings.ngrams:
        network = ReviewingWithNGrams(network, settings, parameters, initialiser)
    elif settings.ngrams:
        network = WithNGrams(network, settings, parameters, initialiser)
    parameters.seal()
    return network


def _builder(settings: ModelSettings) -> Builder:
    if settings.network in _builders:
        return _builders[settings.network]
    network = outside.load(settings.network)
    if settings.semantics not in network.presets:
        raise UnsupportedError(f"the SEB does not go with the network {settings.network!r}: pass --no-seb")
    return network.build
