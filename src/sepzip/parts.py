"""A segment's content as parts: packed streams are taken out of it, and what was packed in them is put there.

The first part is the recipe: how many streams there are, and for each how many bytes stand between it and the
one before, how many raw bytes it has, in which part they are (0: where the stream stood), and how they are
packed. The second is the content without the streams; each further one is the raw bytes of streams of pixels
whose rows are of one length, one after the other.

NumPy is loaded when there is something to split or to join.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import CorruptError, TruncatedError
from ..presets import MOST_SEGMENT
from ..segment import MOST_PARTS
from ..wire import ByteSource, varint

__all__ = ["MOST_TIMES", "Content", "Part", "join", "split"]

MOST_TIMES = 5
"""A segment's parts have at most so many times its bytes."""

_LEAST_PIXELS = 1 << 16
"""Bytes of pixels with rows of one length that are worth a part of their own."""

Content = bytes | bytearray | memoryview


class Part(NamedTuple):
    """What is coded of a segment's content; `row` is the bytes of a row of pixels, 0 if there are none."""

    content: Content
    row: int = 0


def split(content: Content) -> list[Part]:
    """Return the parts of a segment's content, of which `join` makes it; one if nothing in it is packed."""
    from .streams import find

    streams = find(memoryview(content), min((MOST_TIMES - 1) * len(content), MOST_SEGMENT - len(content)))
    if not streams:
        return [Part(content)]
    rows = Counter[int]()
    for stream in streams:
        rows[stream.row] += len(stream.raw)
    own = [row for row, size in rows.most_common() if row and size >= _LEAST_PIXELS][: MOST_PARTS - 2]
    places = {row: place for place, row in enumerate(own, start=1)}
    recipe = bytearray(varint(len(streams)))
    main = bytearray()
    pixels = [bytearray() for _ in own]
    view = memoryview(content)
    at = 0
    for stream in streams:
        place = places.get(stream.row, 0)
        recipe += varint(stream.start - at) + varint(len(stream.raw)) + varint(place)
        recipe += stream.method.encode()
        main += view[at : stream.start]
        (pixels[place - 1] if place else main).extend(stream.raw)
        at = stream.start + stream.size
    main += view[at:]
    return [Part(recipe), Part(main), *map(Part, pixels, own)]


def join(parts: Sequence[Content], size: int) -> bytearray:
    """Return the `size` bytes of content that `split` made the parts of.

    Raises CorruptError for parts that it cannot have made.
    """
    from .streams import Method, pack

    recipe = ByteSource(io.BytesIO(parts[0]))
    raws = [memoryview(part) for part in parts[1:]]
    begun = [0] * len(raws)
    content = bytearray()

    def take(place: int, count: int) -> memoryview:
        start = begun[place]
        begun[place] += count
        if begun[place] > len(raws[place]):
            raise CorruptError("an unpacked segment's parts have less than its recipe says: it is damaged")
        return raws[place][start : begun[place]]

    try:
        for _ in range(recipe.varint("a recipe's streams", 1, len(parts[0]))):
            gap = recipe.varint("a recipe's gap", 0, len(raws[0]))
            count = recipe.varint("a packed stream's size", 0, MOST_SEGMENT)
            place = recipe.varint("a packed stream's part", 0, len(raws) - 1)
            method = Method.read(recipe)
            content += take(0, gap)
            content += pack(bytes(take(place, count)), method)
            if len(content) > size:
                break
    except TruncatedError:
        raise CorruptError("an unpacked segment's recipe ends too early: it is damaged") from None
    if recipe.position != len(parts[0]) or any(
        start != len(raw) for start, raw in zip(begun[1:], raws[1:], strict=True)
    ):
        raise CorruptError("an unpacked segment's recipe leaves bytes of its parts over: it is damaged")
    content += raws[0][begun[0] :]
    if len(content) != size:
        raise CorruptError(
            f"an unpacked segment packs again to {len(content)} bytes, not {size}: it is damaged"
        )
    return content
