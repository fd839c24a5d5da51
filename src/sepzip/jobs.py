"""The work on one segment: its parts are coded, or decoded and packed again, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .memory import memory_needed
from .parts import Part, join
from .presets import ModelSettings, Preset
from .profile import Profile, timed
from .recall.placement import is_sooner_on_cpu
from .scheduler import Job
from .segment import CodedPart, Segment, coded_block_size, coded_size

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .engine import Prepared

__all__ = ["LEAST_CODED", "decoding_job", "encoding_job"]

LEAST_CODED = 64
"""Fewer bytes than this are stored without trying: the settings in the header alone outweigh any gain."""


def encoding_job(
    parts: Sequence[Part], preset: Preset, size: int, worth: int, profile: Profile | None
) -> Job[list[CodedPart] | None]:
    """Return the job that codes the parts of a segment of `size` bytes; one part is all of it.

    Its result is None where that takes no fewer than `worth` bytes.
    """
    model = preset.model

    def encode(job: Job[list[CodedPart] | None], device: str) -> list[CodedPart] | None:
        advance = _scaled(job, size, sum(len(part.content) for part in parts))
        coded: dict[int, CodedPart] = {}
        before = 0
        # The largest first: until it is known how that is coded best, a device has nothing to do.
        order = sorted(range(len(parts)), key=lambda number: -len(parts[number].content))
        with _preparing([parts[number] for number in order], model) as preparations:
            for number, prepared in zip(order, preparations, strict=True):
                part, most, place = parts[number], worth, device
                if len(parts) > 1:
                    # A part that does not shrink is stored, all of a segment by whoever asked.
                    most = len(part.content)
                    place = _place(model, preset.lanes_for(most), most, device)
                done = _encoded(part, prepared, preset, place, job, before, most, advance, profile)
                coded[number] = done
                before += coded_size(done)
                if before >= worth or (len(parts) == 1 and done.blocks is None):
                    return None
        return [coded[number] for number in range(len(parts))]

    sizes = [len(part.content) for part in parts]
    work = Job(encode, *_largest(model, [(preset.lanes_for(size), size) for size in sizes]))
    # A workspace is for one number of lanes.
    work.may_share = len(parts) == 1
    return work


def _place(model: ModelSettings, lanes: int, size: int, device: str) -> str:
    """Return where one of several parts is coded: on CPUs if they are done before a GPU has begun it."""
    on_cpu = model.contexts and is_sooner_on_cpu(model, lanes, size, size, begun=True)
    return "cpu" if on_cpu else device


@contextmanager
def _preparing(parts: Sequence[Part], model: ModelSettings) -> Iterator[Sequence[Future[Prepared] | None]]:
    """Find out about all of several parts side by side: a device would wait for one after the other."""
    if len(parts) == 1 or not model.contexts:
        yield [None] * len(parts)
        return
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from .recall.placement import threads_for
    from .recall.segments import prepare

    with ThreadPoolExecutor(threads_for(model.most_lanes)) as pool:
        try:
            yield [
                pool.submit(prepare, np.frombuffer(part.content, np.uint8), model, part.row)
                if len(part.content) >= LEAST_CODED
                else None
                for part in parts
            ]
        finally:
            # Nobody waits for those that have not begun, where a part was not worth it or an error came.
            pool.shutdown(wait=False, cancel_futures=True)


def _encoded(
    part: Part,
    prepared: Future[Prepared] | None,
    preset: Preset,
    device: str,
    job: Job[list[CodedPart] | None],
    before: int,
    most: int,
    advance: Callable[[int], None],
    profile: Profile | None,
) -> CodedPart:
    """Return a part coded if that takes fewer than `most` bytes; `before` is what those before it took."""
    lanes = preset.lanes_for(len(part.content))
    stored = CodedPart(part.content, 0, None)
    if len(part.content) < LEAST_CODED:
        advance(len(part.content))
        return stored
    from .engine import encode_segment

    blocks = []
    written = done = 0

    def count(further: int) -> None:
        nonlocal done
        done += further
        advance(further)

    known = None if prepared is None else prepared.result()
    for block in encode_segment(
        part.content, preset.model, lanes, device, count, profile, part.row, known, job.shares
    ):
        written += coded_block_size(block)
        if written >= most:
            advance(len(part.content) - done)
            return stored
        job.written = before + written
        blocks.append(block)
    return CodedPart(part.content, lanes, blocks)


def decoding_job(segment: Segment, profile: Profile | None) -> Job[bytearray]:
    """Return the job that gives a segment's content: one that is coded or unpacked.

    Raises CorruptError, in the job, for parts that do not decode to what they were made from.
    """
    model = segment.model
    if model is None:
        raise ValueError("a stored segment needs no decoding")
    parts = segment.parts or (segment,)

    def decode(job: Job[bytearray], device: str) -> bytearray:
        from .engine import decode_segment

        advance = _scaled(job, segment.size, sum(part.size for part in parts))
        contents = []
        for part in parts:
            if part.model is None:
                contents.append(part.content)
                advance(part.size)
                continue
            place = _place(part.model, part.lanes, part.size, device) if segment.parts else device
            contents.append(
                decode_segment(
                    part.blocks, part.size, part.model, part.lanes, place, advance, profile, job.shares
                )
            )
        if not segment.parts:
            return contents[0]
        for part, content in zip(parts, contents, strict=True):
            part.accept(content)
        with timed(profile, "pack"):
            return join(contents, segment.size)

    work = Job(decode, *_largest(model, [(part.lanes, part.size) for part in parts if part.lanes]))
    work.may_share = len(parts) == 1
    return work


def _largest(model: ModelSettings, parts: Sequence[tuple[int, int]]) -> tuple[ModelSettings, int, int]:
    """Return the model with the lanes and bytes of the part that takes most memory."""
    lanes, size = max(parts, key=lambda part: memory_needed(model, *part))
    return model, lanes, size


def _scaled(job: Job[Any], size: int, total: int) -> Callable[[int], None]:
    """Return what counts bytes of the parts, `total` in all, as bytes of a segment of `size`."""
    done = 0

    def advance(further: int) -> None:
        nonlocal done
        before, done = done, done + further
        job.advance(done * size // total - before * size // total)

    return advance
