"""Where the kernels' tests run: on a GPU if there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

__all__ = ["DEVICE"]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    # Triton reads this when a kernel is defined.
    os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton")
