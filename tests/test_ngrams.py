"""N-grams beside a network: hashes, rows, and round trips with every network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import sepzip
from conftest import TINY, TINY_LSTM, TRACE_TINY
from round_trips import comes_back
from sepzip import memory
from sepzip.cli.options import read_arguments
from sepzip.engine import encode_segment
from sepzip.errors import UsageError
from sepzip.exact.adagrad import Slowing
from sepzip.exact.contexts import Contexts
from sepzip.exact.gates import gated
from sepzip.exact.guard import ExactOnly
from sepzip.exact.rows import EXPERIENCES, Rows
from sepzip.exact.tape import Tape
from sepzip.model import Model
from sepzip.networks import base
from sepzip.presets import NETWORKS, ModelSettings, resolve, with_ngrams
from test_exact import gradients, random, relative_error
from test_frame import refused_both_ways
from test_nncp import SETTINGS as TINY_NNCP

CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


def beside(model: ModelSettings) -> ModelSettings:
    return replace(model, ngrams=(3, 6, 0b1000_0001), ngram_bits=8, ngram_size=3, ngram_rate=100_000)


TINY_PAC = replace(TINY, semantics=False, patch=0, stride=0)
TINY_OREO = replace(TINY_PAC, network="oreo", lane_widths=(), layers=1)
TINY_PATCHTST = replace(TRACE_TINY, network="patchtst")
TINY_DECMAC = replace(TINY_LSTM, network="decmac")
MODELS = [
    beside(model)
    for model in (TINY, TINY_PAC, TINY_OREO, TRACE_TINY, TINY_PATCHTST, TINY_LSTM, TINY_DECMAC, TINY_NNCP)
]
OWN = [replace(beside(model), ngram_own=1) for model in (TINY_PAC, TINY_NNCP)]


def hashed(context: list[int], number: int, bits: int) -> int:
    """Return a context's slot as the docstring tells it; the newest byte comes last."""
    total = sum(
        (byte + 1) * pow(0x9E3779B1, place + 1, 2**32)
        for place, byte in enumerate(reversed(context))
        if number >> place & 1
    )
    x = total % 2**32
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    return x >> (32 - bits)


def test_slots_are_hashes_of_the_chosen_bytes() -> None:
    numbers, bits = (1, 6, 0xFFFF, 0b1010), 12
    contexts = Contexts(numbers, bits, CPU)
    assert contexts.depth == 16
    context = torch.randint(0, 256, (20, 30), generator=torch.Generator().manual_seed(3))
    slots = contexts.slots(context)
    for lane in range(30):
        for which, number in enumerate(numbers):
            want = (which << bits) + hashed(context[:, lane].tolist(), number, bits)
            assert slots[which, lane] == want


def test_contexts_spread_over_their_slots() -> None:
    pairs = torch.cartesian_prod(torch.arange(64, 96), torch.arange(256)).t()
    slots = Contexts((3,), 14, CPU).slots(pairs)
    # Of 8192 balls in 16384 boxes 6447 are expected to have one.
    assert 6200 < len(slots.unique()) < 8193


def test_rows_learn_by_adagrad_the_sum_of_their_gradients() -> None:
    rows = Rows(50, 4, 0.1, CPU)
    table, squares = torch.zeros(50, 4, dtype=torch.float64), torch.zeros(50, 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    for step in range(20):
        slots, pull = torch.randint(0, 30, (40,), generator=generator), random(40, 4, seed=step)
        tape = Tape()
        out = rows.look_up(tape, slots)
        assert torch.equal(out.data, rows.data[slots])
        out.add_gradient(pull)
        tape.run_backward()
        sums = torch.zeros(50, 4, dtype=torch.float64).index_add_(0, slots, pull.double())
        squares += (sums * sums).mean(1, keepdim=True)
        table -= 0.1 * sums / (squares + 1e-6).sqrt()
    assert relative_error(rows.data, table) < 1e-3
    assert not rows.data[30:].any() and not rows.squares[30:].any()


def test_rows_are_classed_by_what_they_have_learned() -> None:
    rows = Rows(5, 2, 0.1, CPU)
    rows.squares.copy_(torch.tensor([[0.0], [2.0**-21], [2.0**-19], [1.5], [2.0**20]]))
    assert rows.experience(torch.tensor([4, 0, 1, 2, 3])).tolist() == [EXPERIENCES - 1, 0, 0, 1, 20]


def test_gates() -> None:
    which = torch.tensor([0, 2, 2, 1, 0, 2])
    pairs = gradients(
        lambda tape, n: gated(tape, n[0], which, n[1]),
        lambda wide: wide[1][which].unsqueeze(1) * wide[0],
        random(6, 3),
        random(4, seed=2),
    )
    assert relative_error(*pairs[0]) < 1e-6
    assert relative_error(*pairs[2]) < 1e-5
    # The rows learn as if all gates were open.
    assert torch.equal(pairs[1][0], random(6, 3, seed=7))


def test_weights_that_learn_ever_more_slowly() -> None:
    start, pulls = random(3, 4), [random(3, 4, seed=seed) for seed in range(2, 6)]
    learned, expected, squares = Slowing(start.clone(), 0.1), start.double(), torch.zeros(3, 4)
    for pull in pulls:
        tape = Tape()
        learned.on(tape).add_gradient(pull)
        tape.run_backward()
        squares += pull * pull
        expected = expected - 0.1 * pull / (squares.double() + 1e-6).sqrt()
    assert relative_error(learned.node.data, expected) < 1e-5
    assert torch.equal(learned.squares, squares)


def test_the_order_of_lanes_changes_no_bit_of_a_row() -> None:
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    slots, pull = torch.arange(60) % 7, random(60, 5)
    tables = []
    for choice in (slice(None), order):
        rows, tape = Rows(7, 5, 0.05, CPU), Tape()
        rows.look_up(tape, slots[choice]).add_gradient(pull[choice])
        tape.run_backward()
        tables.append(rows.data)
    assert torch.equal(*tables)


@pytest.mark.parametrize("model", MODELS)
def test_the_first_prediction_is_the_one_of_the_network_alone(model: ModelSettings) -> None:
    alone = replace(model, ngrams=(), ngram_bits=0, ngram_size=0, ngram_rate=0)
    with torch.inference_mode():
        starts = [Model(settings, 4, CPU).predict().starts() for settings in (model, alone)]
    assert torch.equal(*starts)


@pytest.mark.parametrize("model", [*MODELS, *OWN])
def test_its_steps_are_exact(model: ModelSettings) -> None:
    with torch.inference_mode(), ExactOnly():
        run = Model(model, 5, CPU)
        for _ in range(2 * model.update_steps + 1):
            run.predict().starts()
            run.learn(torch.arange(5))
        run.fingerprint()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lanes", [5])
@pytest.mark.parametrize("model", [*MODELS, *OWN])
def test_all_sizes_come_back(text: bytes, model: ModelSettings, lanes: int, device: str) -> None:
    data = text[: 12 * lanes - lanes // 2]
    comes_back(data, model, lanes, device)


@pytest.mark.parametrize("model", MODELS[2:3])
def test_it_learns_more_than_the_network_alone(text: bytes, model: ModelSettings) -> None:
    def coded(settings: ModelSettings) -> int:
        settings = replace(settings, learning_rate=5000, learning_rate_last=5000)
        return sum(len(block.payload) for block in encode_segment(text[:6_000], settings, 40, "cpu"))

    larger = replace(model, ngrams=(3, 7, 15), ngram_bits=12, ngram_size=8)
    alone = replace(model, ngrams=(), ngram_bits=0, ngram_size=0, ngram_rate=0)
    assert coded(larger) < 0.95 * coded(alone)


def test_the_network_learns_by_its_own_loss_where_little_is_gained() -> None:
    """Of noise the n-grams know nothing: beside them the network then learns what it would learn alone."""
    noise = random(3000, 1, seed=5).view(-1).mul(40).round().clamp(-100, 100).to(torch.int64) & 255
    losses = {}
    for own in (0, 1):
        run = Model(replace(beside(TINY_OREO), ngram_own=own), 30, CPU)
        alone = Model(replace(TINY_OREO), 30, CPU)
        with torch.inference_mode():
            for step in noise.view(100, 30):
                for model in (run, alone):
                    model.predict()
                    model.learn(step)
        weights, single = (model._network.parameters.nodes[1].data for model in (run, alone))
        losses[own] = float((weights - single).abs().amax())
    assert losses[1] == 0.0 < losses[0]


def test_the_fingerprint_depends_on_rows() -> None:
    with torch.inference_mode():
        run = Model(OWN[0], 4, CPU)
        assert len(run._network.parameters.tables) == 7
        before = run.fingerprint()
        for table in run._network.parameters.tables:
            table[-1] += 1
            after = run.fingerprint()
            assert after != before
            before = after


@pytest.mark.parametrize("model", MODELS[2:])
def test_its_weights_are_counted(model: ModelSettings) -> None:
    parameters = base.build(model, 3, CPU).parameters
    count = sum(node.data.numel() for node in parameters.nodes) + sum(
        table.numel() for table in parameters.tables[::2]
    )
    assert memory.parameter_count(model, 3) == count


def test_its_tables_are_part_of_the_memory_needed() -> None:
    model = resolve(network="pac", semantics="ngrams").model
    large = replace(model, ngram_bits=model.ngram_bits + 4)
    more = memory.memory_needed(large, 512, 1) - memory.memory_needed(model, 512, 1)
    assert more == 15 * (12 * model.ngram_size + 4) * (len(model.ngrams) << model.ngram_bits)


def test_which_have_kernels() -> None:
    """Those of networks that have kernels, as long as the layer's inputs are whole columns of a program."""
    for semantics in ("ngrams", "both"):
        preset = resolve(network="pac", semantics=semantics)
        assert base.has_kernels(preset.model, preset.lanes)
    many = replace(beside(TINY_PAC), ngrams=(1,) * 4, ngram_size=64)
    assert base.has_kernels(many, 4)
    assert not base.has_kernels(replace(many, ngrams=(1,) * 5), 4)
    assert not base.has_kernels(beside(TINY_OREO), 4)


WRONG: list[dict[str, Any]] = [
    {"ngrams": (0,)},
    {"ngrams": (65536,)},
    {"ngrams": (1,) * 65},
    {"ngrams": ()},
    {"ngram_bits": 7},
    {"ngram_bits": 25},
    {"ngram_size": 0},
    {"ngram_rate": 0},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_settings_that_the_format_cannot_hold_are_refused(changes: dict[str, Any]) -> None:
    from sepzip.header import encode_header

    with pytest.raises(UsageError):
        encode_header(replace(beside(TINY_PAC), **changes))


def test_settings_that_do_not_go_together_are_refused_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    refused_both_ways(replace(beside(TINY_PAC), ngram_bits=25), False, monkeypatch)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "recall"])
def test_every_network_goes_with_it(name: str) -> None:
    model = resolve(network=name, semantics="ngrams").model
    assert model == with_ngrams(NETWORKS[name][False].model)
    assert model.seen == max(model.context, max(model.ngrams).bit_length())


def test_a_memory_of_contexts_does_not(text: bytes) -> None:
    for network in (None, "recall"):
        with pytest.raises(UsageError, match="name one with --network"):
            sepzip.compress(text[:100], network=network, semantics="ngrams", device="cpu")


def test_the_command_has_it() -> None:
    options = read_arguments("sep", ["--network", "oreo", "--seb", "ngrams", "a"])
    assert options is not None and options.preset == resolve(network="oreo", semantics="ngrams")
    options = read_arguments("sep", ["--network", "oreo", "--seb", "patches", "a"])
    assert options is not None and options.preset == resolve(network="oreo")
    options = read_arguments("sep", ["--network", "oreo", "--seb", "both", "a"])
    assert options is not None and options.preset.model == with_ngrams(NETWORKS["oreo"][True].model)
    for wrong in (["--seb", "ngrams", "--no-seb"], ["--seb", "nosuch"], ["-d", "--seb", "ngrams"]):
        with pytest.raises(UsageError):
            read_arguments("sep", ["--network", "oreo", *wrong, "a"])
