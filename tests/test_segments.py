"""Networks that keep a state of their own from step to step, over several segments: each begins afresh."""

from __future__ import annotations

import io
import itertools

import pytest
import torch

import sepzip
from sepzip.engine import encode_segment
from sepzip.frame import read_summary
from sepzip.presets import Semantics, resolve

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
NETWORKS = ["nncp-small", "lstm", "decmac-small"]
SEGMENT, LANES = 1500, 24


@pytest.mark.parametrize("semantics", [True, False, "drop", "ngrams"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("encode", "decode"), list(itertools.product(DEVICES, DEVICES)))
def test_five_segments(text: bytes, network: str, semantics: Semantics, encode: str, decode: str) -> None:
    # A stream is cut evenly; 54 steps of the last segment fill no update of nncp's.
    data = text[3000 : 3000 + 4 * SEGMENT + 401]
    settings = {"network": network, "semantics": semantics, "lanes": LANES, "segment_size": SEGMENT}
    frame = sepzip.compress(data, device=encode, **settings)  # type: ignore[arg-type]
    (summary,) = read_summary(io.BytesIO(frame)).frames
    assert [segment.content_size for segment in summary.segments] == [1281] * 4 + [1277]
    assert all(segment.lanes == LANES for segment in summary.segments)
    assert sepzip.decompress(frame, device=decode) == data
    if encode != decode:
        assert sepzip.compress(data, device=decode, **settings) == frame  # type: ignore[arg-type]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_segment_knows_nothing_of_those_before(text: bytes, network: str) -> None:
    """Equal segments have equal blocks, and the fourth is read without the others."""
    part = text[9000 : 9000 + SEGMENT]
    frame = sepzip.compress(part * 4, network=network, lanes=LANES, segment_size=SEGMENT, device="cpu")
    (block,) = encode_segment(part, resolve(network=network).model, LANES, "cpu")
    assert frame.count(block.payload) == 4
    with sepzip.open(io.BytesIO(frame), "rb", device="cpu") as file:
        file.seek(3 * SEGMENT + 7)
        assert file.read(100) == part[7:107]
