"""The kernels of batch normalisation against the plain one, to the last bit, over steps of the same rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import DEVICE
from sepzip.exact.adam import adam
from sepzip.exact.batch_norm import FEW_ROWS, BatchStatistics, batch_norm
from sepzip.exact.kernels.batch_norm import FusedBatchNorm
from sepzip.exact.kernels.column_sums import norm_columns
from sepzip.exact.kernels.columns import Columns
from sepzip.exact.kernels.parameters import Learner, Parameter
from sepzip.exact.kernels.residual import add_newest
from sepzip.exact.product import split_digits
from sepzip.exact.quantise import INT8_MOST, INT16_MOST, quantise
from sepzip.exact.tape import Node, Tape
from sepzip.exact.workspace import Workspace

EPSILON = 2.5e-9
STEPS = 2


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu().view(torch.int32), b.cpu().view(torch.int32))


def _parameter(start: Tensor, device: torch.device) -> Parameter:
    return Parameter(*(part.clone().to(device) for part in (start, 0 * start, 0 * start)))


@pytest.mark.parametrize(
    ("lanes", "tokens", "width", "factor"),
    [
        (1, 1, 1, 1.0),
        (7, 3, 70, 1e3),
        (FEW_ROWS // 2, 2, 5, 1.0),
        (70, 5, 20, 1e-25),
        (2, 2, 3, 0.0),
    ],
)
def test_batch_norm(lanes: int, tokens: int, width: int, factor: float) -> None:
    """All rows first, and only the newest of each lane in the last step."""
    rows, cpu = lanes * tokens, torch.device("cpu")
    generator = torch.Generator().manual_seed(rows)
    starts = [torch.randn(width, generator=generator) for _ in range(2)]
    plain = [_parameter(start, cpu) for start in starts]
    fused = [_parameter(start, DEVICE) for start in starts]
    kept, fused_kept = (BatchStatistics.of_nothing(width, device) for device in (cpu, DEVICE))
    size = torch.full((1,), 0.01)
    workspace, columns = Workspace(DEVICE), Columns()
    norm = FusedBatchNorm("norm", fused[0], fused[1], fused_kept, rows, columns, workspace)
    columns.seal(workspace)
    for step in range(STEPS):
        newest_only = step == STEPS - 1
        data = torch.randn((rows, width), generator=generator) * factor
        gradient = torch.randn((rows, width), generator=generator)
        newest = torch.randn((lanes, width), generator=generator)
        scale_weight = torch.rand(width, generator=generator)
        of_all = (0.0 * gradient if newest_only else gradient).view(lanes, tokens, width)
        behind = torch.zeros((lanes, tokens, width))
        behind[:, -1] = newest
        total = of_all + behind
        tape, x, gain, offset = Tape(), Node(data), Node(plain[0].weight), Node(plain[1].weight)
        out = batch_norm(tape, x, gain, offset, kept)
        result = out.data.clone()
        out.add_gradient(total.view(rows, width))
        tape.run_backward()
        assert x.grad is not None and gain.grad is not None and offset.grad is not None

        columns.clear()
        norm.normal.copy_(data)
        norm.largest.copy_(data.abs().amax(0).view(torch.int32))
        count = lanes if newest_only else rows
        expected = result.view(lanes, tokens, width)[:, -1] if newest_only else result
        fused_result = torch.full((rows, width), 9.0, device=DEVICE)
        whole = torch.full((count, width), 9, dtype=torch.int8, device=DEVICE)
        scale = torch.full((count,), 9.0, device=DEVICE)
        zeros = torch.full((rows,), 9, dtype=torch.int32, device=DEVICE)
        normal = torch.full((lanes, width), 9.0, device=DEVICE)
        norm.forward(fused_result, whole, scale, zeros, normal if newest_only else None)
        assert _same(fused_result, result) and not zeros.any()
        expected_whole, expected_scale = quantise(expected, 1, INT8_MOST)
        assert torch.equal(whole.cpu().to(torch.float32), expected_whole)
        assert _same(scale, expected_scale.squeeze(1))
        assert _same(fused_kept.mean, kept.mean) and _same(fused_kept.variance, kept.variance)

        by_result = newest.to(DEVICE)
        if newest_only:
            norm_columns(by_result, normal, norm.columns)
        else:
            by_result = torch.full((rows, width), 9.0, device=DEVICE)
            add_newest(gradient.to(DEVICE), newest.to(DEVICE), by_result, norm.columns.largest)
            assert _same(by_result, total.view(rows, width))
            norm_columns(by_result, norm.normal, norm.columns, found=True)
        by_x = torch.full((rows, width), 9.0, device=DEVICE)
        digits = [torch.full((rows, width), 9, dtype=torch.int8, device=DEVICE) for _ in range(2)]
        digit_scale = torch.full((rows,), 9.0, device=DEVICE)
        norm.backward(by_result, by_x, scale_weight.to(DEVICE), (digits[0], digits[1]), digit_scale)
        assert _same(by_x, x.grad)
        whole_rows, expected_scale = quantise(x.grad * scale_weight, 1, INT16_MOST)
        for digit, expected_digit in zip(digits, split_digits(whole_rows), strict=True):
            assert torch.equal(digit.cpu().to(torch.float32), expected_digit)
        assert _same(digit_scale, expected_scale.squeeze(1))
        columns.run(Learner(size.to(DEVICE), EPSILON))
        for parameter, node in zip(plain, (gain, offset), strict=True):
            assert node.grad is not None
            adam(*parameter, node.grad, size, EPSILON)
        for a, b in zip(plain, fused, strict=True):
            assert all(_same(one, other) for one, other in zip(a, b, strict=True))
