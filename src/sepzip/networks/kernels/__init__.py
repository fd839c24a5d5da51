"""Networks as fused kernels, one a file, equal in every bit to their plain twins in `networks/`."""
