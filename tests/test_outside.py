"""A network of another package, which is there through an entry point, and goes when the package goes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sepzip
from sepzip import header, memory, outside
from sepzip.errors import UnsupportedError, UsageError
from sepzip.exact.guard import ExactOnly
from sepzip.frame import FrameReader, FrameWriter
from sepzip.model import Model
from sepzip.networks import base
from sepzip.outside import GROUP, OutsideNetwork
from sepzip.presets import ModelSettings, Preset, resolve

EXAMPLE = Path(__file__).parents[1] / "examples" / "network"
NAME = "perceptron-1"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make it look as if a package with these entry points were installed."""

    def make(package: str = "one", **points: str) -> None:
        folder = tmp_path / package / f"{package}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
        monkeypatch.syspath_prepend(tmp_path / package)

    monkeypatch.syspath_prepend(EXAMPLE)
    outside.load.cache_clear()
    yield make
    outside.load.cache_clear()
    sys.modules.pop("sepzip_perceptron", None)


@pytest.fixture
def example(install: Install) -> OutsideNetwork:
    """The network of the example, as installed."""
    install(**{NAME: "sepzip_perceptron:network"})
    return outside.load(NAME)


def test_the_example_names_its_network_in_its_project_file() -> None:
    project = (EXAMPLE / "pyproject.toml").read_text()
    assert f'[project.entry-points."{GROUP}"]\n{NAME} = "sepzip_perceptron:network"\n' in project
    assert len((EXAMPLE / "sepzip_perceptron.py").read_text().splitlines()) < 60


def test_it_codes_and_comes_back(example: OutsideNetwork, text: bytes) -> None:
    data = text[:6000]
    packed = sepzip.compress(data, network=NAME, lanes=8, device="cpu")
    assert len(packed) < 0.75 * len(data)
    assert sepzip.decompress(packed, device="cpu") == data
    frame = FrameReader(io.BytesIO(packed)).next_frame()
    assert frame is not None and frame.model == example.presets[False].model


def test_its_steps_are_exact_and_its_weights_counted(example: OutsideNetwork) -> None:
    model = example.presets[False].model
    with torch.inference_mode(), ExactOnly():
        run = Model(model, 5, torch.device("cpu"))
        for _ in range(3):
            run.predict().starts()
            run.learn(torch.arange(5))
    nodes = base.build(model, 5, torch.device("cpu")).parameters.nodes
    assert memory.parameter_count(model, 5) == sum(node.data.numel() for node in nodes)
    assert not base.has_kernels(model, 5)


def test_it_is_one_of_the_networks(example: OutsideNetwork) -> None:
    assert resolve(network=NAME).model == example.presets[False].model
    with pytest.raises(UsageError, match=rf"choose one of .*pac, .*{NAME}"):
        resolve(network="oracle")


def test_a_header_is_read_without_the_package_being_imported(install: Install) -> None:
    install(acme="nowhere:network")
    model = ModelSettings("acme", lane_widths=())
    packed = io.BytesIO()
    FrameWriter(packed, model)
    packed.seek(0)
    frame = FrameReader(packed).next_frame()
    assert frame is not None and frame.model == model
    for use in (lambda: resolve(network="acme"), lambda: memory.memory_needed(model, 1, 1)):
        with pytest.raises(UnsupportedError, match="cannot be imported"):
            use()


@pytest.mark.parametrize("changes", [{"layers": 2}, {"lane_widths": (4,)}, {"heads": 4}])
def test_it_has_the_settings_alone_that_all_networks_have(
    example: OutsideNetwork, changes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=f"which {NAME} does not have"):
        FrameWriter(io.BytesIO(), replace(example.presets[False].model, **changes))


def test_without_its_package_the_frame_is_refused_by_name(
    example: OutsideNetwork, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = sepzip.compress(text[:500], network=NAME, lanes=4, device="cpu")
    monkeypatch.setattr(outside, "_points", list)
    outside.load.cache_clear()
    with pytest.raises(UnsupportedError, match=f"made with network '{NAME}'.* or the package that has it"):
        sepzip.decompress(packed, device="cpu")
    with pytest.raises(UnsupportedError, match=f"unknown network '{NAME}'"):
        base.build(example.presets[False].model, 1, torch.device("cpu"))


def test_the_seb_goes_with_it_only_where_it_says_so(example: OutsideNetwork) -> None:
    model = replace(example.presets[False].model, semantics=True, patch=4, stride=2)
    with pytest.raises(UnsupportedError, match="the SEB does not go with"):
        base.build(model, 1, torch.device("cpu"))


def test_ngrams_go_with_it(example: OutsideNetwork, text: bytes) -> None:
    packed = sepzip.compress(text[:500], network=NAME, semantics="ngrams", lanes=4, device="cpu")
    assert sepzip.decompress(packed, device="cpu") == text[:500]
    model = resolve(network=NAME, semantics="ngrams").model
    parameters = base.build(model, 5, torch.device("cpu")).parameters
    count = sum(node.data.numel() for node in parameters.nodes)
    # Every second table is of sums of squares; the last number is a mean, no weight.
    count += sum(table.numel() for table in parameters.tables[:-1:2])
    assert memory.parameter_count(model, 5) == count


def test_two_packages_with_one_name_are_refused(install: Install) -> None:
    install("one", **{NAME: "sepzip_perceptron:network"})
    install("two", **{NAME: "sepzip_perceptron:network"})
    with pytest.raises(UnsupportedError, match="several packages"):
        outside.load(NAME)


@pytest.mark.parametrize("value", ["sepzip_perceptron:count", "sepzip_perceptron:network"])
def test_what_is_no_network_of_that_name_is_refused(install: Install, value: str) -> None:
    install(**{"perceptron-2": value})
    with pytest.raises(UnsupportedError, match="is not an OutsideNetwork"):
        outside.load("perceptron-2")


def test_presets_say_what_they_are_for(install: Install, example: OutsideNetwork) -> None:
    presets = example.presets
    for wrong in ({}, {True: presets[False]}, {False: Preset(ModelSettings(NAME), lanes=1)}):
        object.__setattr__(example, "presets", wrong)
        outside.load.cache_clear()
        with pytest.raises(UnsupportedError, match="is not an OutsideNetwork"):
            outside.load(NAME)


def test_a_name_of_ours_stays_ours(install: Install) -> None:
    install(pac="nowhere:network")
    assert resolve(network="pac").model.network == "pac"
    assert base.build(resolve(network="pac-small").model, 1, torch.device("cpu"))


def test_names_that_no_header_holds_are_passed_over(install: Install) -> None:
    install(**{"a b": "nowhere:network", "é": "nowhere:network", "x" * 256: "nowhere:network", "fine": "a:b"})
    assert outside.names() == ["fine"]
    assert header.is_known("fine") and not header.is_known("é")
