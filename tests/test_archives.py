"""Members of archives inside a segment: found, sorted by their kinds, and put together to the same bytes."""

from __future__ import annotations

import io
import math
import random
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sepzip
from conftest import TINY
from sepzip.archives import layout
from sepzip.archives.layout import Layout, find_layout
from sepzip.archives.tar import BLOCK, data_size, find_runs, padding
from sepzip.errors import CorruptError
from sepzip.frame import read_summary
from sepzip.parts import join, split
from sepzip.recall.analysis import kind_of
from sepzip.wire import ByteSource, varint
from test_parts import png

SOURCE = Path(__file__).read_bytes()
MARKUP = b"".join(b"<p class='%d'>It rained.</p>\n" % (x * x) for x in range(4000))
GENOME = bytes(random.Random(1).choices(b"ACGT", k=80_000))
_TIME = np.arange(3 << 16)
TONE = np.rint(9000 * np.sin(_TIME / 9) + 2 * np.sin(_TIME**2)).astype("<i2").tobytes()

Entry = tuple[str, bytes | None]


def tar(entries: list[Entry], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return an archive of files, and of folders where there are no bytes, which ends as all do, by zeros."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, content in entries:
            about = tarfile.TarInfo(name)
            about.mtime = 1_700_000_000 + len(name)
            if content is None:
                about.type = tarfile.DIRTYPE
            else:
                about.size = len(content)
            archive.addfile(about, io.BytesIO(content or b""))
    return sink.getvalue()


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few bytes of a kind be enough for a content of their own."""
    monkeypatch.setattr(layout, "_LEAST", 600)


def kind(content: memoryview) -> layout.Kind:
    return kind_of(np.frombuffer(content, np.uint8))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_members_are_found(form: int) -> None:
    long = "n" * (99 if form == tarfile.USTAR_FORMAT else 200)
    files = {"a": b"", "b": b"x" * BLOCK, "c": SOURCE, long: b"y"}
    data = tar([("folder", None), *files.items()], form)
    (run,) = find_runs(memoryview(data))
    assert run.start == 0 and not any(data[run.end :])
    at, contents = 0, []
    for size in run.sizes:
        assert data_size(data[at : at + BLOCK]) == size
        contents.append(data[at + BLOCK : at + BLOCK + size])
        at += BLOCK + size + padding(size)
    assert at == run.end
    # A long name is a member of its own.
    assert contents[:4] == [b"", *list(files.values())[:3]]
    assert contents[-1] == b"y" and len(contents) == 5 + (len(long) > 100)


def test_members_without_data_have_none_whatever_their_size() -> None:
    """A hard link may say how large the file is that it leads to."""
    about = tarfile.TarInfo("link")
    about.type, about.size, about.linkname = tarfile.LNKTYPE, 12345, "target"
    header = about.tobuf(tarfile.USTAR_FORMAT)
    assert data_size(header) == 0
    (run,) = find_runs(memoryview(header + tar([("after", b"data")])))
    assert run.sizes == [0, 4]


def test_what_is_no_header() -> None:
    header = tarfile.TarInfo("name").tobuf()
    assert data_size(header) == 0
    for place in (0, 130, 150, 300):
        changed = bytearray(header)
        changed[place] ^= 1
        assert data_size(bytes(changed)) is None
    for wrong in (b"", header[:-1], header + b"\0", bytes(BLOCK), b"ustar" * 100 + bytes(12)):
        assert data_size(wrong) is None
    # Sizes from 8 GiB on are not written as digits.
    about = tarfile.TarInfo("large")
    about.size = 1 << 34
    assert data_size(about.tobuf(tarfile.GNU_FORMAT)) is None


@pytest.mark.parametrize("before", [b"", b"x", b"ustar" * 60, tar([("cut", SOURCE)])[:-3000]])
def test_runs_are_found_wherever_they_begin(before: bytes) -> None:
    """A segment's begin is anywhere in its archive, and its end too: what is cut there is no member."""
    entries: list[Entry] = [("one", SOURCE[:700]), ("two", TONE[:900])]
    archive = tar(entries)
    data = memoryview(before + archive[: -len(archive) % BLOCK + 2 * BLOCK + BLOCK + 1024 + 100])
    run = list(find_runs(data))[-1]
    assert (run.start, run.sizes[0]) == (len(before), 700)
    full = list(find_runs(memoryview(before + archive)))[-1]
    assert (full.start, full.sizes) == (len(before), [700, 900])


def test_a_member_behind_which_there_are_no_zeros_is_left(low_limits: None) -> None:
    archive = bytearray(tar([("one", SOURCE[:700]), ("two", TONE[:900])]))
    archive[BLOCK + 800] = 1
    (run,) = find_runs(memoryview(archive))
    assert (run.start, run.sizes) == (BLOCK + 1024, [900])


FLOATS = struct.pack("<40000d", *(1000 + 3 * math.sin(x / 50) + x / 700 for x in range(40000)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (GENOME, "genome"),
        (TONE, "wide samples"),
        (FLOATS, "floats"),
        (MARKUP, None),
        (SOURCE, None),
        (b"It was a dark and stormy night. The rain fell; nobody saw it. " * 99, None),
        (b"".join(b"%d %d\n" % (x, x * x) for x in range(9000)), None),
        (TONE[:5000], None),
        (bytes(1 << 19), None),
        (random.Random(2).randbytes(1 << 15), "dense"),
        (random.Random(2).randbytes((1 << 15) - 1), None),
        (b"\0", None),
    ],
)
def test_kinds(content: bytes, expected: str | None) -> None:
    assert (kind_of(np.frombuffer(content, np.uint8)) or [None])[0] == expected


def test_programs_are_of_a_kind() -> None:
    content = Path(sys.executable).resolve().read_bytes()
    if len(content) < 1 << 20 or content[18] != 0x3E:
        pytest.skip("this Python is a small program that loads its library, or is not for x86")
    assert kind_of(np.frombuffer(content, np.uint8)) == ("program", 0)


def mixed(times: int = 40) -> bytes:
    """An archive of texts, of noise, of genomes and of sound in turn."""
    noise = random.Random(3).randbytes(1 << 16)
    entries: list[Entry] = [("folder", None)]
    for number in range(times):
        entries += [
            (f"{number}.htm", MARKUP[97 * number :][:3000]),
            (f"{number}.fa", GENOME[1999 * number :][:1999]),
            (f"{number}.bin", noise[number * 999 :][:999]),
        ]
    entries.append(("tone", TONE))
    return tar(entries)


def test_members_of_a_kind_stand_together(low_limits: None) -> None:
    data = mixed()
    recipe, rest, tone, genomes = (bytes(part.content) for part in split(data, sorts=True))
    assert join([recipe, rest, tone, genomes], len(data)) == data
    assert tone == TONE and genomes == GENOME[: 40 * 1999]
    # All the others as they stood, with the headers of those.
    assert rest.startswith(b"folder/") and rest.index(b"0.fa\0") < rest.index(b"0.bin\0")
    assert MARKUP[97:3097] in rest
    (run,) = find_runs(memoryview(data))
    assert len(rest) + len(tone) + len(genomes) + sum(map(padding, run.sizes)) == len(data)
    assert len(recipe) < 300


def test_few_bytes_of_a_kind_stay_with_the_rest() -> None:
    assert len(split(mixed(20), sorts=True)) == 1 + 2
    assert len(split(tar([("a", SOURCE), ("b", GENOME[:60000])]), sorts=True)) == 1
    # Texts of whatever kind have words in common.
    assert len(split(tar([("a", MARKUP), ("b", SOURCE * 20)]), sorts=True)) == 1


def test_networks_have_all_in_one_part(text: bytes) -> None:
    data = mixed()
    assert [bytes(part.content) for part in split(data, sorts=False)] == [data]
    packed = sepzip.compress(data[:3000] + data[-3000:], network="pac-small", lanes=100, device="cpu")
    assert read_summary(io.BytesIO(packed)).frames[0].segments[0].parts == ()


def test_a_sorted_archive_is_smaller_and_comes_back() -> None:
    data = mixed()
    packed = sepzip.compress(data, level=1, device="cpu")
    as_it_is = sepzip.compress(data, level=1, device="cpu", unpack=False)
    assert len(packed) < 0.96 * len(as_it_is)
    assert sepzip.decompress(packed, device="cpu") == data
    (segment,) = read_summary(io.BytesIO(packed)).frames[0].segments
    assert segment.method == "unpacked" and len(segment.parts) == 4


def test_streams_in_members_are_unpacked_too(low_limits: None) -> None:
    picture = png(300, 250, lambda x, y: (x * x + y) // 99)
    squeezed = zlib.compress(SOURCE, 6)
    entries: list[Entry] = [
        ("a", SOURCE),
        ("p.png", picture),
        ("tone", TONE),
        ("z", squeezed),
        ("p2.png", picture),
    ]
    data = tar(entries) + squeezed + tar(entries[1:])
    parts = split(data, sorts=True)
    # Pixels of all members and contents stand together.
    assert [part.row for part in parts][-1] == 301
    assert len(parts[-1].content) == 4 * 250 * 301
    assert join([part.content for part in parts], len(data)) == data
    assert any(bytes(part.content).count(SOURCE) > 1 for part in parts)


def test_an_image_over_two_members_comes_back(low_limits: None) -> None:
    """Its chunks alone would leave a content without a byte of its own."""
    picture = png(300, 250, lambda x, y: (x * x + y) // 99)
    start = picture.index(b"IDAT") - 4
    end = picture.rindex(b"IEND") - 4
    chunks = picture[start:end]
    before = picture[:start].rjust(BLOCK, b"x")
    data = before + tar([("chunks", chunks), ("text", SOURCE)])
    for content in (data, tar([("before", before), ("chunks", chunks), ("genome", GENOME)])):
        assert join([part.content for part in split(content, sorts=True)], len(content)) == content


members = st.lists(
    st.tuples(
        st.text("ab/é", min_size=1, max_size=120),
        st.one_of(
            st.none(),
            st.binary(max_size=1100),
            st.integers(0, 3000).map(lambda count: SOURCE[count : 2 * count]),
            st.integers(0, 9000).map(lambda count: GENOME[:count]),
            st.integers(0, 9000).map(lambda count: zlib.compress(SOURCE[:count])),
        ),
    ),
    max_size=6,
)
archives = st.builds(
    lambda entries, form, first, last: tar(entries, form)[first : -last or None],
    members,
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([0, 0, 0, 1, 300, 512]),
    st.sampled_from([0, 0, 1, 700, 5000, 9000]),
)
spliced = st.lists(st.one_of(st.binary(max_size=600), archives), max_size=4).map(b"".join)


@settings(deadline=None)
@given(data=spliced, flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=3))
def test_whatever_is_spliced_comes_back(data: bytes, flips: list[tuple[int, int]]) -> None:
    changed = bytearray(data)
    for place, bits in flips:
        if changed:
            changed[place % len(changed)] ^= bits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_LEAST", 300)
        parts = split(bytes(changed), sorts=True) if changed else []
    if len(parts) > 1:
        assert join([part.content for part in parts], len(changed)) == changed


@settings(deadline=None)
@given(choice=st.randoms(use_true_random=False))
def test_damaged_parts_are_corrupt_or_another_content(choice: random.Random) -> None:
    data = SOURCE[:900] + tar(
        [("a", SOURCE[:2000]), ("g", GENOME[:3000]), ("z", zlib.compress(SOURCE[:4000]))]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_LEAST", 600)
        parts = [bytearray(part.content) for part in split(data, sorts=True)]
    assert len(parts) > 2
    which = choice.randrange(len(parts)) if choice.random() < 0.5 else 0
    if choice.random() < 0.3:
        del parts[which][choice.randrange(len(parts[which])) :]
    else:
        parts[which][choice.randrange(len(parts[which]))] ^= 1 << choice.randrange(8)
    try:
        content = join(parts, len(data))
    except CorruptError:
        return
    assert len(content) == len(data)


HEADER = tar([("name", b"data")])[:BLOCK]
BEGINNING = varint(0) + varint(2) + varint(0) + varint(0)


def regions(*numbers: int) -> bytes:
    return BEGINNING + b"".join(map(varint, numbers))


@pytest.mark.parametrize(
    ("recipe", "contents", "size"),
    [
        (b"\0", [b"main", b"more"], 8),
        (regions(), [b"main", b"more"], 8),
        (regions(0), [b"main", b"more"], 8),
        (regions(1, 0, 0, 4), [b"main", b"more"], 8),
        (regions(2, 0, 0, 4, 0, 1, 5), [b"main", b"more"], 9),
        (regions(2, 0, 0, 4, 0, 2, 4), [b"main", b"more"], 8),
        (regions(2, 0, 0, 4, 2, 1, 4), [b"main", b"more"], 8),
        (regions(2, 0, 0, 4, 0, 1, 4, 7), [b"main", b"more"], 8),
        (regions(2, 0, 0, 4, 0, 1, 4), [b"main", b"more", b"left"], 8),
        (regions(2, 0, 0, 4, 0, 1, 4), [b"main", b"more"], 7),
        (regions(2, 0, 0, 4, 0, 1, 4), [b"main", b"more"], 9),
        (regions(2, 0, 0, 4, 0, 1, 4), [b"main"], 8),
        # A header that is none, one with more data than there are, and one with too many members.
        (regions(1, 1, 0, 1, 1), [b"x" * BLOCK, b"data"], 1024),
        (regions(1, 1, 0, 1, 1), [HEADER, b"dat"], 1024),
        (regions(1, 1, 0, 1, 1), [HEADER, b"data"], 1023),
        (regions(1, 1, 0, 2, 1, 1), [HEADER, b"data"], 1536),
        (regions(1, 1, 0, 0), [HEADER, b"data"], 1024),
        (regions(1, 1, 0, 1, 2), [HEADER, b"data"], 1024),
        (varint(0) + varint(1) + varint(0) + varint(1) + b"\0\0\4", [b"main", b"more"], 4),
        (varint(0) + varint(17) + varint(0) * 17 + varint(1) + b"\0\0\4", [b"main"] * 17, 68),
    ],
)
def test_impossible_layouts_are_corrupt(recipe: bytes, contents: list[bytes], size: int) -> None:
    with pytest.raises(CorruptError, match="damaged"):
        join([recipe, *contents], size)


def test_possible_layouts() -> None:
    assert join([regions(2, 0, 1, 4, 0, 0, 4), b"main", b"more"], 8) == b"moremain"
    assert join([regions(1, 1, 0, 1, 1), HEADER, b"data"], 1024) == HEADER + b"data" + bytes(508)


@pytest.mark.parametrize("write", [tar, lambda entries: tar(entries) + b"ustar" * 300])
def test_a_layout_reads_as_it_was_written(write: Callable[[list[Entry]], bytes], low_limits: None) -> None:
    data = write([("a", SOURCE[:2000]), ("f", None), ("g", GENOME[:3000])])
    found = find_layout(memoryview(data), lambda pieces: list(map(kind, pieces)))
    assert found is not None
    encoded = found.encode()
    source = ByteSource(io.BytesIO(encoded))
    assert Layout.read(source, found.contents, len(data)).regions == found.regions
    assert source.position == len(encoded)
    assert TINY.contexts == 0
