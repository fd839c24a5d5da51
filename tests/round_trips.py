"""Segments coded and decoded again, on each device."""

from __future__ import annotations

from sepzip.engine import decode_segment, encode_segment
from sepzip.presets import ModelSettings
from sepzip.segment import CodedBlock

__all__ = ["comes_back"]


def comes_back(data: bytes, model: ModelSettings, lanes: int, device: str = "cpu") -> list[CodedBlock]:
    """Assert that the device makes the blocks that a CPU makes and decodes them; return them.

    On a CPU they are made once: its decoder works all steps again, and ends with the same fingerprint.
    """
    blocks = list(encode_segment(data, model, lanes, "cpu"))
    if device != "cpu":
        assert list(encode_segment(data, model, lanes, device)) == blocks
    assert decode_segment(blocks, len(data), model, lanes, device) == data
    return blocks
