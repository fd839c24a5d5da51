"""A memory of contexts, shared by all lanes: integers only, so that it is the same on every device.

For each bit of a byte every context gives a probability from what followed it before; a mixer whose weights
learn joins them. Its meaning is `memory.c`, which CPUs run; `kernels` is the twin for GPUs.
"""
