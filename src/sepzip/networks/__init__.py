"""The base networks, one a file; importing this registers them (base.py)."""

from __future__ import annotations

from . import lstm, pac, patchtst, trace

__all__ = ["lstm", "pac", "patchtst", "trace"]
