"""Sizes as they are written on the command line: bytes, with a suffix if need be, or a share in percent."""

from __future__ import annotations

import re

import click

from ..memory import Share

__all__ = ["read_limit", "read_size"]

_SIZE = re.compile(r"(\d+)(?:([KMGT])(?:iB|B)?)?", re.ASCII | re.IGNORECASE)
_PERCENT = re.compile(r"(\d{1,3})%", re.ASCII)


def read_size(text: str) -> int:
    """Return a number of bytes; K, KiB and KB are 1024 of them as in xz, and M, G and T the powers of that.

    Raises click.BadParameter for what is no size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no size: give bytes, or a whole number with K, M or G")
    number, suffix = match.groups()
    return int(number) << (10 * (1 + "KMGT".index(suffix.upper())) if suffix else 0)


def read_limit(text: str) -> int | Share:
    """Return a number of bytes, or a percentage of what there is; raises click.BadParameter for neither."""
    match = _PERCENT.fullmatch(text)
    if match is None:
        return read_size(text)
    percent = int(match[1])
    if not 1 <= percent <= 100:
        raise click.BadParameter(f"{text} is not from 1% to 100%")
    return Share(percent)
