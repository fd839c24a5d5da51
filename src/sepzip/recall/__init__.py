"""A memory of contexts, shared by all lanes: integers only, so that it is the same on every device.

For each bit of a byte every context gives a probability from what followed it before; a mixer whose weights
learn joins them. Its meaning is in `predict.py` and `learn.py`, compiled for CPUs; `kernels.py` is the twin.
"""
