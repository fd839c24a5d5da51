"""The work on one segment: its parts are coded, or decoded and packed again, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .memory import memory_needed
from .presets import ModelSettings, Preset
from .profile import Profile, timed
from .recompression.parts import Part, join
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
        coded: list[CodedPart] = []
        before = 0
        with _preparing(parts, model) as preparations:
            for part, prepared in zip(parts, preparations, strict=True):
                # A part that does not shrink is stored, all of a segment by whoever asked.
                most = worth if len(parts) == 1 else len(part.content)
                coded.append(_encoded(part, prepared, preset, device, job, before, most, advance, profile))
                before += coded_size(coded[-1])
                if before >= worth or (len(parts) == 1 and coded[0].blocks is None):
                    return None
        return coded

    sizes = [len(part.content) for part in parts]
    return Job(encode, *_largest(model, [(preset.lanes_for(size), size) for size in sizes]))


@contextmanager
def _preparing(
    parts: Sequence[Part], model: ModelSettings
) -> Iterator[Sequence[Future[Prepared] | None]]:
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
    for block in encode_segment(part.content, preset.model, lanes, device, count, profile, part.row, known):
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
            contents.append(
                decode_segment(part.blocks, part.size, part.model, part.lanes, device, advance, profile)
            )
        if not segment.parts:
            return contents[0]
        for part, content in zip(parts, contents, strict=True):
            part.accept(content)
        with timed(profile, "pack"):
            return join(contents, segment.size)

    return Job(decode, *_largest(model, [(part.lanes, part.size) for part in parts if part.lanes]))


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
