"""The operations of `exact/` as Triton kernels for CUDA, fused; equal to their plain twins in every bit.

Every launch passes EXACT, or CHAINED, which has it: a multiplication and an addition must never become one
fused operation, which rounds once where the plain twins round twice.
"""
