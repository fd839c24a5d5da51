"""Networks that other packages bring, as entry points of the group `sepzip.networks` (docs/networks.md).

The entry point's name is the network's, in headers and as settings. What it names is an OutsideNetwork,
which is imported only when a model of it is chosen or built: its name is enough to read a header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .errors import UnsupportedError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from .presets import ModelSettings, Preset

__all__ = ["GROUP", "OutsideNetwork", "is_installed", "load", "names"]

GROUP = "sepzip.networks"


@dataclass(frozen=True)
class OutsideNetwork:
    """A network of another package: how it is built, its settings, and what it takes.

    `build` gets the settings, the lanes, the Parameters to add its weights to and the Initialiser for their
    first values, and returns a networks.base.Network. `presets` are the named settings of the network alone
    (False) and, if the SEB can stand in front of it, with the SEB (True). `parameters` returns the weights of
    settings and lanes, `activations` the bytes that a step takes for each lane, roughly.
    """

    build: Callable[[ModelSettings, int, Any, Any], Any]
    presets: Mapping[bool, Preset]
    parameters: Callable[[ModelSettings, int], int]
    activations: Callable[[ModelSettings], int]


def names() -> list[str]:
    """Return the names of the networks that installed packages bring."""
    return sorted({point.name for point in _points()})


def is_installed(name: str) -> bool:
    """Return whether an installed package brings a network of this name; nothing of it is imported."""
    return name in names()


@cache
def load(name: str) -> OutsideNetwork:
    """Return the network of this name, importing its package.

    Raises UnsupportedError where no package brings it or several do, or where it is not what it should be.
    """
    points = [point for point in _points() if point.name == name]
    if not points:
        raise UnsupportedError(
            f"unknown network {name!r}: install a newer sepzip, or the package that has it"
        )
    if len(points) > 1:
        raise UnsupportedError(f"several packages bring the network {name!r}: uninstall all but one")
    try:
        network = points[0].load()
    except (ImportError, AttributeError) as error:
        raise UnsupportedError(
            f"the network {name!r}, {points[0].value}, cannot be imported ({error}): install its package anew"
        ) from error
    if not isinstance(network, OutsideNetwork) or not _fits(network, name):
        raise UnsupportedError(
            f"{points[0].value} is not an OutsideNetwork whose presets, False among them, are of the network "
            f"{name!r}: ask its author"
        )
    return network


def _points() -> list[EntryPoint]:
    """Return the entry points whose names a header can hold."""
    # Imported here, for a small file is coded in little more time than the import takes.
    from importlib.metadata import entry_points

    return [
        point
        for point in entry_points(group=GROUP)
        if len(point.name) <= 255 and all("!" <= character <= "~" for character in point.name)
    ]


def _fits(network: OutsideNetwork, name: str) -> bool:
    return False in network.presets and all(
        preset.model.network == name and preset.model.semantics is semantics
        for semantics, preset in network.presets.items()
    )
