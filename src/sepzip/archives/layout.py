"""A segment's content as several contents, each of one kind: what members of archives are sorted into.

The layout says how the content is put together of them: by regions, each of so many bytes of one of them, or
a run of members of a tar archive, whose headers are of one and whose data of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import CorruptError
from ..wire import ByteSource, Takers, varint
from .tar import BLOCK, data_size, find_runs, padding

__all__ = ["MOST_CONTENTS", "Layout", "Span", "find_layout"]

MOST_CONTENTS = 16
"""The contents of a layout at most."""

_BYTES, _MEMBERS = 0, 1
_LEAST = 1 << 16
"""Fewer bytes of one kind stay with the rest."""

_REST = 0
_TOLD_BY = 1 << 20
"""Bytes of a member by which its kind is told."""

Kind = tuple[str, int] | None


class Span(NamedTuple):
    """A part of the content that is part of another content, whose number is `place`."""

    start: int
    size: int
    place: int


class _Region(NamedTuple):
    """`size` bytes of one content, or members: their headers are of it, their data of those in `members`."""

    place: int
    size: int
    members: list[int] | None = None


@dataclass
class Layout:
    """How a content is put together of `contents` others."""

    contents: int
    spans: list[Span] = field(default_factory=list)
    """What each of these has of the content, in the content's order; between them are a tar's zeros alone."""
    regions: list[_Region] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the layout as varints; how many contents there are is not part of it."""
        numbers = [len(self.regions)]
        for region in self.regions:
            if region.members is None:
                numbers += [_BYTES, region.place, region.size]
            else:
                numbers += [_MEMBERS, region.place, len(region.members), *region.members]
        return b"".join(map(varint, numbers))

    @classmethod
    def read(cls, source: ByteSource, contents: int, most: int) -> Layout:
        """Return the layout that comes next, of a content of `most` bytes; CorruptError if none does."""
        layout, last = cls(contents), contents - 1
        for _ in range(source.varint("a layout's regions", 1, most)):
            kind = source.varint("a region's kind", _BYTES, _MEMBERS)
            place = source.varint("a region's content", 0, last)
            if kind == _BYTES:
                layout.regions.append(_Region(place, source.varint("a region's size", 1, most)))
                continue
            count = source.varint("a region's members", 1, most // BLOCK)
            members = [source.varint("a member's content", 0, last) for _ in range(count)]
            layout.regions.append(_Region(place, 0, members))
        return layout

    def join(self, contents: list[bytearray], size: int) -> bytearray:
        """Return the `size` bytes that are put together of these contents; CorruptError if they are not."""
        takers, joined = Takers(contents, "a layout's contents"), bytearray()

        def put(place: int, count: int) -> memoryview:
            if len(joined) + count > size:
                raise CorruptError("a layout makes more than its content's bytes: the file is damaged")
            taken = takers.take(place, count)
            joined.extend(taken)
            return taken

        for region in self.regions:
            if region.members is None:
                put(region.place, region.size)
                continue
            for place in region.members:
                count = data_size(bytes(put(region.place, BLOCK)))
                if count is None:
                    raise CorruptError("a layout has a member without a header: the file is damaged")
                put(place, count)
                joined.extend(bytes(padding(count)))
        if not takers.are_used_up or len(joined) != size:
            raise CorruptError("a layout leaves bytes of its contents over: the file is damaged")
        return joined


def find_layout(
    content: memoryview, kinds_of: Callable[[Sequence[memoryview]], Sequence[Kind]]
) -> Layout | None:
    """Return how content, bytes, is sorted by what its tar archives' members are; None if it stays as it is.

    `kinds_of` returns the kind of each piece that it is given, None for what stays where it is, with all
    headers: in the first content, in its order.
    """
    pieces = list(_pieces(content))
    kinds = kinds_of([content[piece.data : piece.data + min(piece.size, _TOLD_BY)] for piece in pieces])
    sizes = Counter[Kind]()
    for piece, kind in zip(pieces, kinds, strict=True):
        if kind is not None:
            sizes[kind] += piece.size
    own = [kind for kind, size in sizes.most_common(MOST_CONTENTS - 1) if size >= _LEAST]
    if not own:
        return None
    places = {kind: place for place, kind in enumerate(own, start=_REST + 1)}
    layout = Layout(1 + len(own))
    for piece, kind in zip(pieces, kinds, strict=True):
        place = places.get(kind, _REST)
        if not piece.is_member:
            layout.spans.append(Span(piece.start, piece.size, place))
            layout.regions.append(_Region(place, piece.size))
            continue
        layout.spans.append(Span(piece.start, BLOCK, _REST))
        if piece.size:
            layout.spans.append(Span(piece.data, piece.size, place))
        members = layout.regions[-1].members if layout.regions else None
        if members is None:
            members = []
            layout.regions.append(_Region(_REST, 0, members))
        members.append(place)
    return layout


class _Piece(NamedTuple):
    """A member, from its header on, or what stands between members; `size` is that of its data."""

    start: int
    size: int
    is_member: bool

    @property
    def data(self) -> int:
        """Where its data begin."""
        return self.start + BLOCK * self.is_member


def _pieces(content: memoryview) -> Iterator[_Piece]:
    """Yield the pieces of content that has tar archives in it, and nothing of any other."""
    at = 0
    for run in find_runs(content):
        if run.start > at:
            yield _Piece(at, run.start - at, False)
        at = run.start
        for size in run.sizes:
            yield _Piece(at, size, True)
            at += BLOCK + size + padding(size)
    if 0 < at < len(content):
        yield _Piece(at, len(content) - at, False)
