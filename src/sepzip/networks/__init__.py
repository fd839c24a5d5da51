"""The base networks, one a file, and their registry (base.py)."""
