"""The base networks, one a file; importing this registers them (base.py)."""

from __future__ import annotations

from . import lstm, oreo, pac, patchtst, trace

__all__ = ["lstm", "oreo", "pac", "patchtst", "trace"]
