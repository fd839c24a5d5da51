"""Damaged and lying frames by the thousand: each must end in an error, with little memory.

    python bench/hostile.py FILE [--bytes 60000] [--segments 1] [--seed 1]

Compresses the file's first bytes in several segments, with small blocks, and then decompresses: the
frame cut at every byte within 8 of a block's edge and at 500 other places; with each of 2,000 single
bits flipped; and 1,000 frames whose header is random, half of them with right checksums. Prints one JSON
line; exit status 1 if any of them passed or raised anything but a SepError.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sepzip import SepError, presets
from sepzip.coder import plain
from sepzip.frame import FrameReader
from sepzip.header import FORMAT_VERSION, MAGIC, encode_header
from sepzip.pipeline import compress_stream, decompress_stream
from sepzip.presets import NUMERICS_VERSION
from sepzip.wire import varint


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--bytes", type=int, default=60_000)
    parser.add_argument("--segments", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    content = options.file.read_bytes()[: options.bytes]
    preset = presets.resolve(1, lanes=16)
    preset = replace(preset, segment_size=-(-len(content) // options.segments))
    vars(plain)["BLOCK_WORDS"] = 1000
    file = io.BytesIO()
    compress_stream(io.BytesIO(content), file, preset, "cpu")
    frame = file.getvalue()
    back = io.BytesIO()
    decompress_stream(io.BytesIO(frame), back, "cpu")
    if back.getvalue() != content:
        raise SystemExit("the whole frame does not give its content")
    memory_whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    edges = block_edges(frame)
    cuts = {place + shift for place in edges for shift in range(-8, 9)} & set(range(len(frame)))
    others = chance.sample(sorted(set(range(len(frame))) - cuts), 500)
    bits = chance.sample(range(8 * len(frame)), 2000)
    result: dict[str, Any] = {
        "frame": len(frame),
        "block_edges": len(edges),
        "cut_at_edges": outcomes(frame[:place] for place in cuts),
        "cut_elsewhere": outcomes(frame[:place] for place in others),
        "bits_flipped": outcomes(flipped(frame, bit) for bit in bits),
        "random_headers": outcomes(random_header(frame, chance, index % 2 == 0) for index in range(1000)),
        "memory_whole_mib": memory_whole >> 10,
        "memory_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }
    print(json.dumps(result))
    kinds = ("cut_at_edges", "cut_elsewhere", "bits_flipped", "random_headers")
    return 1 if any("passed" in result[kind] or "other" in result[kind] for kind in kinds) else 0


def block_edges(frame: bytes) -> list[int]:
    """Return where a segment or one of its blocks ends in the frame."""
    edges = []
    source = io.BytesIO(frame)
    reader = FrameReader(source)
    while reader.next_frame() is not None:
        edges.append(reader.position)
        while (segment := reader.next_segment()) is not None:
            edges.append(reader.position)
            for block in segment.blocks:
                edges.append(frame.index(block.payload) + len(block.payload) + 4)
    return edges


def flipped(frame: bytes, bit: int) -> bytes:
    """Return the frame with one bit flipped."""
    damaged = bytearray(frame)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def random_header(frame: bytes, chance: random.Random, checked: bool) -> bytes:
    """Return the frame behind a header of random settings, or of random bytes; `checked` gives it a CRC."""
    if chance.random() < 0.5:
        settings = presets.NETWORKS["pac-small"][True].model
        names = ["context", "patch", "stride", "embedding", "hidden", "lanes_per_coder", "seed"]
        numbers = [0, 1, 7, 64, 1000, 4096, 65536, 1 << 31]
        changes: dict[str, Any] = {name: chance.choice(numbers) for name in names}
        try:
            start = encode_header(replace(settings, **changes))
        except SepError:
            body = b"\3pac" + chance.randbytes(chance.randrange(60))
            start = MAGIC + bytes([FORMAT_VERSION, NUMERICS_VERSION]) + varint(len(body)) + body
    else:
        start = MAGIC + chance.randbytes(chance.randrange(2, 80))
    check = zlib.crc32(start).to_bytes(4, "little") if checked else chance.randbytes(4)
    rest = frame[frame.index(b"\0", 20) :] if chance.random() < 0.5 else frame[-chance.randrange(1, 3000) :]
    return start + check + rest


def outcomes(frames: Iterable[bytes]) -> dict[str, int]:
    """Return how many frames ended in which error; 'passed' if one gave content without an error."""
    counts: Counter[str] = Counter()
    for frame in frames:
        counts[outcome(partial(decompress_stream, io.BytesIO(frame), io.BytesIO(), "cpu"))] += 1
    return dict(counts)


def outcome(call: Callable[[], object]) -> str:
    """Return the name of the SepError that the call raised, 'passed', or 'other'."""
    try:
        call()
    except SepError as error:
        return type(error).__name__
    except Exception:
        return "other"
    return "passed"


if __name__ == "__main__":
    sys.exit(main())
