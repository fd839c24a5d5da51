"""The memory of contexts as Triton kernels, three a step: the twin of memory.c.

Within a launch programs run in any order and see nothing of each other, so what one launch writes for others
is read by the next only. Predicting also adds up, in tables of sums that it does not read, what is learnt.
"""
