"""A segment's content as parts: what is packed in it is unpacked, and members of archives are sorted.

The first part is the recipe. Where nothing is sorted it says of each packed stream how many bytes stand
between it and the one before, how many raw bytes it has, in which part they are, and how they are packed. The
second part is the content without the streams; each further one is the raw bytes of streams of pixels whose
rows are of one length, one after the other. Where members of archives are sorted by their kinds there are
several contents instead, each with its streams, and the recipe ends by the layout that puts them together.

NumPy is loaded when there is something to split or to join.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .errors import CorruptError, TruncatedError
from .presets import MOST_SEGMENT, Preset
from .segment import MOST_PARTS
from .wire import ByteSource, Takers, varint

if TYPE_CHECKING:
    from .archives.layout import Kind, Span
    from .recompression.streams import Packed

__all__ = ["MOST_TIMES", "Content", "Part", "join", "parts_for", "split"]

MOST_TIMES = 5
"""A segment's parts have at most so many times its bytes."""

_LEAST_PIXELS = 1 << 16
"""Bytes of pixels with rows of one length that are worth a part of their own."""

_SORTED = 0
"""What a recipe begins with where there are several contents, in place of the number of streams."""

Content = bytes | bytearray | memoryview


class Part(NamedTuple):
    """What is coded of a segment's content; `row` is the bytes of a row of pixels, 0 if there are none."""

    content: Content
    row: int = 0


def parts_for(content: Content, preset: Preset) -> list[Part]:
    """Return the parts as which a segment's content is coded with this preset."""
    return split(content, sorts=preset.model.contexts > 0) if preset.unpacks else [Part(content)]


def split(content: Content, *, sorts: bool) -> list[Part]:
    """Return the parts of a segment's content, of which `join` makes it; one if they would be all of it.

    With `sorts` members of archives are put with others of their kind, which is for models that code each
    part in its own way.
    """
    from .archives.layout import Span, find_layout
    from .recompression.streams import find

    view = memoryview(content).cast("B")
    streams = find(view, min((MOST_TIMES - 1) * len(view), MOST_SEGMENT - len(view)))
    layout = find_layout(view, _kinds_of) if sorts else None
    if not streams and layout is None:
        return [Part(content)]
    contents = 1 if layout is None else layout.contents
    spans = [Span(0, len(view), 0)] if layout is None else layout.spans
    rows = Counter[int]()
    for stream in streams:
        rows[stream.row] += len(stream.raw)
    most = MOST_PARTS - 1 - contents
    own = [row for row, size in rows.most_common() if row and size >= _LEAST_PIXELS][:most]
    pixels = {row: bytearray() for row in own}
    recipe = bytearray()
    if layout is not None:
        recipe += varint(_SORTED) + varint(contents)
    mains = []
    for spans_of_it in _by_content(spans, streams, contents):
        of_it, main = _unpacked(view, spans_of_it, pixels)
        if not main:
            # An image's beginning in one member, its chunks in another: no part can be empty.
            return split(content, sorts=False)
        recipe += of_it
        mains.append(main)
    if layout is not None:
        recipe += layout.encode()
    return [Part(recipe), *map(Part, mains), *(Part(raw, row) for row, raw in pixels.items())]


def _kinds_of(pieces: Sequence[memoryview]) -> list[Kind]:
    """Return what kind each piece is of; they are looked at side by side."""
    if not pieces:
        return []
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from .recall.analysis import kind_of
    from .recall.placement import processors

    with ThreadPoolExecutor(processors()) as pool:
        return list(pool.map(lambda piece: kind_of(np.frombuffer(piece, np.uint8)), pieces))


def _by_content(
    spans: Sequence[Span], streams: Sequence[Packed], contents: int
) -> list[list[tuple[Span, list[Packed]]]]:
    """Return the spans of each content with the streams inside; those that lie in no span are left packed."""
    found: list[list[tuple[Span, list[Packed]]]] = [[] for _ in range(contents)]
    number = 0
    for span in spans:
        inside = []
        while number < len(streams) and streams[number].start < span.start + span.size:
            stream = streams[number]
            number += 1
            if stream.start >= span.start and stream.start + stream.size <= span.start + span.size:
                inside.append(stream)
        found[span.place].append((span, inside))
    return found


def _unpacked(
    view: memoryview, spans: Sequence[tuple[Span, Sequence[Packed]]], pixels: dict[int, bytearray]
) -> tuple[bytes, bytearray]:
    """Return what the recipe says of one content's streams, and the content without those of `pixels`.

    The raw bytes of streams whose rows of pixels have one of these lengths are put there.
    """
    places = {row: place for place, row in enumerate(pixels, start=1)}
    recipe, main, gap = bytearray(), bytearray(), 0
    for span, streams in spans:
        at = span.start
        for stream in streams:
            gap += stream.start - at
            place = places.get(stream.row, 0)
            recipe += varint(gap) + varint(len(stream.raw)) + varint(place) + stream.method.encode()
            main += view[at : stream.start]
            (pixels[stream.row] if place else main).extend(stream.raw)
            at, gap = stream.start + stream.size, 0
        main += view[at : span.start + span.size]
        gap += span.start + span.size - at
    return varint(sum(len(streams) for _, streams in spans)) + bytes(recipe), main


def join(parts: Sequence[Content], size: int) -> bytearray:
    """Return the `size` bytes of content that `split` made the parts of.

    Raises CorruptError for parts that it cannot have made.
    """
    from .archives.layout import MOST_CONTENTS, Layout

    source = ByteSource(io.BytesIO(parts[0]))
    raws = Takers(parts[1:], "an unpacked segment's parts")
    try:
        streams = source.varint("a recipe's streams", _SORTED, len(parts[0]))
        if streams != _SORTED:
            content = _content(source, raws, 0, 1, streams, size)
        else:
            count = source.varint("a recipe's contents", 2, min(MOST_CONTENTS, max(2, len(parts) - 1)))
            contents = []
            for place in range(count):
                streams = source.varint("a recipe's streams", 0, len(parts[0]))
                contents.append(_content(source, raws, place, count, streams, size))
            content = Layout.read(source, count, size).join(contents, size)
    except TruncatedError:
        raise CorruptError("an unpacked segment's recipe ends too early: it is damaged") from None
    if source.position != len(parts[0]) or not raws.are_used_up:
        raise CorruptError("an unpacked segment's recipe leaves bytes of its parts over: it is damaged")
    if len(content) != size:
        raise CorruptError(
            f"an unpacked segment packs again to {len(content)} bytes, not {size}: it is damaged"
        )
    return content


def _content(source: ByteSource, raws: Takers, own: int, contents: int, streams: int, most: int) -> bytearray:
    """Return a content whose main part is number `own` of `raws`, of `contents` that come before the pixels.

    What the recipe says of its streams comes next in `source`. CorruptError where it gets longer than `most`.
    """
    from .recompression.streams import Method, pack

    if len(raws) < contents:
        raise CorruptError("an unpacked segment has fewer parts than its recipe says: it is damaged")
    content = bytearray()
    for _ in range(streams):
        gap = source.varint("a recipe's gap", 0, raws.size(own))
        count = source.varint("a packed stream's size", 0, MOST_SEGMENT)
        place = source.varint("a packed stream's part", 0, len(raws) - contents)
        method = Method.read(source)
        content += raws.take(own, gap)
        content += pack(bytes(raws.take(contents - 1 + place if place else own, count)), method)
        if len(content) > most:
            raise CorruptError("an unpacked segment packs again to more than its size: it is damaged")
    return content + raws.take_rest(own)
