"""What an encoder has found out about a segment: how its memory looks at the bytes."""

from __future__ import annotations

import io
from typing import NamedTuple

from ..errors import CorruptError, TruncatedError
from ..presets import ModelSettings
from ..wire import ByteSource, varint
from .profiles import PROFILES
from .sizes import PRIMER_SIZE, table_bits

__all__ = ["MOST_RECORD", "Plan", "Settings", "encode_plan", "read_plan", "settings_of", "uses_of"]

_COLUMNS_MOST = 1024
"""Records of fewer bytes have weights of the mixer for each of their columns."""

MOST_RECORD = 1 << 16

_SAMPLE, _BIG_ENDIAN, _CALLS, _PRIMER, _WIDE = 3, 4, 8, 16, 32


class Plan(NamedTuple):
    """How a segment's memory looks at its bytes; stored before the payload of the segment's first block.

    `record` is the bytes of a record or of an image's row, 0 without; `sample` those of a sample, 0 without,
    most significant first if `big_endian`. `calls` says that targets of x86 calls were made absolute, and if
    it is 2 also what code of 64 bits addresses relative to its place. `primer` says that the memory reads the
    primer before the segment.
    """

    profile: int
    record: int = 0
    sample: int = 0
    big_endian: int = 0
    calls: int = 0
    primer: int = 0


class Settings(NamedTuple):
    """What compiled code takes of a plan and of the model's settings.

    `contexts` is how many of the profile's are taken; a context's table has 2^`table_bits` slots. `recurrent`
    says whether a recurrent network stands beside them.
    """

    contexts: int
    table_bits: int
    record: int
    columns: int
    sample: int
    big_endian: int
    recurrent: int


def settings_of(plan: Plan, model: ModelSettings, size: int) -> Settings:
    """Return the settings of a segment of `size` bytes under this plan."""
    contexts = min(model.contexts, len(PROFILES[plan.profile].contexts))
    columns = plan.record if plan.record < _COLUMNS_MOST else 0
    # What is read before takes its slots as well.
    bits = table_bits(model, size + PRIMER_SIZE if plan.primer else size)
    return Settings(contexts, bits, plan.record, columns, plan.sample, plan.big_endian, model.recurrent)


def uses_of(plan: Plan) -> tuple[bool, ...]:
    """Return what the profile needs: text, records, samples, floats, instructions, markup, tables."""
    profile = PROFILES[plan.profile]
    return (
        profile.uses_text,
        profile.uses_record,
        profile.uses_samples,
        profile.uses_floats,
        profile.uses_instructions,
        profile.uses_markup,
        profile.uses_table,
    )


def encode_plan(plan: Plan) -> bytes:
    """Return the plan as it stands before the payload of a segment's first block."""
    flags = plan.sample | plan.big_endian * _BIG_ENDIAN | plan.primer * _PRIMER
    flags |= (0, _CALLS, _CALLS | _WIDE)[plan.calls]
    return bytes([plan.profile, flags]) + varint(plan.record)


def read_plan(payload: bytes) -> tuple[Plan, bytes]:
    """Return the plan that a payload begins with, and the rest; CorruptError if there is none."""
    source = ByteSource(io.BytesIO(payload))
    try:
        profile, flags = source.exactly(2, "a segment's plan")
        record = source.varint("a segment's plan", 0, MOST_RECORD)
    except TruncatedError:
        raise CorruptError("a segment's plan is cut off; the file is damaged") from None
    big_endian, calls, primer, wide = (flags // bit & 1 for bit in (_BIG_ENDIAN, _CALLS, _PRIMER, _WIDE))
    plan = Plan(profile, record, flags & _SAMPLE, big_endian, calls + wide, primer)
    known = PROFILES.get(profile)
    if (
        known is None
        or flags > _SAMPLE + _BIG_ENDIAN + _CALLS + _PRIMER + _WIDE
        or wide > calls
        or plan.sample > 2
        or known.uses_samples != (plan.sample > 0)
        or plan.big_endian > (plan.sample == 2)
        or plan.primer > known.uses_text
        # What stands above a sample was seen in whole.
        or 0 < record < (plan.sample + 2 if plan.sample else 1)
    ):
        raise CorruptError("a segment's plan is impossible; the file is damaged")
    return plan, payload[source.position :]
