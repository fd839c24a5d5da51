"""The base networks, one a file; importing this registers them (base.py)."""

from __future__ import annotations

from . import pac, trace

__all__ = ["pac", "trace"]
