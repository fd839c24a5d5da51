"""Packed streams, unpacked so that a model sees into them, and packed again to the same bytes.

Its meaning is `deflate.c` and `lzw.c`: how a stream is packed again is part of the format.
"""
