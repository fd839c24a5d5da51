"""The base networks, one a file; importing this registers them (base.py)."""

from __future__ import annotations

from . import decmac, lstm, nncp, oreo, pac, patchtst, trace

__all__ = ["decmac", "lstm", "nncp", "oreo", "pac", "patchtst", "trace"]
