"""Frames written by hand, right in every checksum and wrong where a test wants them wrong."""

from __future__ import annotations

import io

from sepzip.header import MAGIC, encode_header
from sepzip.presets import ModelSettings
from sepzip.wire import ByteSink, varint

STORED, CODED, BLOCK, SEGMENT_END, FRAME_END, UNPACKED = 1, 2, 3, 4, 5, 6


def header(body: bytes, numerics: int = 1, version: int = 1, length: int | None = None) -> bytes:
    """Return a header with this body and a right checksum; `length` claims another length for the body."""
    claimed = varint(len(body) if length is None else length)
    return checked(MAGIC + bytes([version, numerics]) + claimed + body)


def settings_body(model: ModelSettings) -> bytes:
    """Return the body that a right header for `model` has."""
    start = encode_header(model)
    return start[start.index(bytes([len(model.network)]) + model.network.encode()) :]


def checked(*pieces: bytes) -> bytes:
    """Return the pieces joined, each with its check behind it."""
    file = io.BytesIO()
    sink = ByteSink(file)
    for piece in pieces:
        sink.write(piece)
        sink.write_check()
    return file.getvalue()


def stored_start(size: int) -> bytes:
    """Return a stored segment up to its first block."""
    return bytes([STORED]) + varint(size)


def coded_start(size: int, lanes: int) -> bytes:
    """Return a coded segment up to its first block."""
    return bytes([CODED]) + varint(size) + varint(lanes)


def stored_block(payload: bytes, length: int | None = None) -> bytes:
    """Return a block of a stored segment, up to its check; `length` claims another length."""
    return bytes([BLOCK]) + varint(len(payload) if length is None else length) + payload


def coded_block(steps: int, payload: bytes, length: int | None = None) -> bytes:
    """Return a block of a coded segment, up to its check; `length` claims another length."""
    return (
        bytes([BLOCK])
        + varint(steps)
        + bytes(4)
        + varint(len(payload) if length is None else length)
        + payload
    )
