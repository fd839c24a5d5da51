"""Integer frequencies."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepzip.frequencies import SYMBOLS, TOTAL_BITS, Frequencies


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e3, 1e30]), st.integers(1, 20))
def test_every_symbol_has_its_interval(seed: int, spread: float, lanes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frequencies = Frequencies(torch.randn((lanes, SYMBOLS), generator=generator) * spread)
    starts = frequencies.starts()
    ends = torch.cat([starts[:, 1:], torch.full((lanes, 1), 1 << TOTAL_BITS)], 1)
    assert bool((starts[:, 0] == 0).all())
    assert bool((ends - starts >= 1).all())
    symbols = torch.randint(0, SYMBOLS, (lanes,), generator=generator)
    start, frequency = frequencies.intervals(symbols)
    rows = torch.arange(lanes)
    assert torch.equal(start, starts[rows, symbols])
    assert torch.equal(frequency, (ends - starts)[rows, symbols])


def test_frequencies_are_near_the_softmax() -> None:
    logits = torch.randn((50, SYMBOLS), generator=torch.Generator().manual_seed(1)) * 3
    starts = Frequencies(logits).starts()
    ends = torch.cat([starts[:, 1:], torch.full((50, 1), 1 << TOTAL_BITS)], 1)
    ours = (ends - starts).double() / (1 << TOTAL_BITS)
    assert float((ours - logits.double().softmax(1)).abs().max()) < 1e-4


def test_gradient_is_probability_less_one_at_the_true_symbol() -> None:
    logits = torch.randn((9, SYMBOLS), generator=torch.Generator().manual_seed(1))
    symbols = torch.arange(9) * 20
    gradient = Frequencies(logits).loss_gradient(symbols)
    expected = logits.double().softmax(1)
    expected[torch.arange(9), symbols] -= 1
    assert float((gradient - expected).abs().max()) < 1e-4
