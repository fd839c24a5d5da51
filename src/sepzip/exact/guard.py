"""The guard that lets only exact operations through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["ExactOnly", "InexactOperationError"]

# Rounded alike everywhere, element by element, on float32 and float64; integers are exact anyway.
_ELEMENTWISE = """
    abs add add_ bitwise_and bitwise_and_ clamp clamp_ eq floor floor_ le lt mul mul_ neg neg_
    reciprocal reciprocal_ round round_ rsub sub sub_ where __and__ __lshift__ __rshift__ __xor__
"""
# Moves, converts or compares elements; amax is a choice among them, whatever the order.
_LAYOUT = """
    alias all amax arange cat clone contiguous copy_ detach_ empty equal expand fill_ full full_like gather
    index_copy_ index_select is_nonzero lift_fresh new_zeros ones permute repeat reshape scatter scatter_
    select slice split split_with_sizes squeeze stack t to transpose unsqueeze view zero_ zeros zeros_like
    _local_scalar_dense _to_copy _unsafe_view
"""

_Arguments = tuple[Any, ...]


class InexactOperationError(RuntimeError):
    """An operation was called whose result may differ from device to device."""


class ExactOnly(TorchDispatchMode):
    """Within it, an operation that is not known to be exact raises InexactOperationError, by name.

    Sums and products of floats are let through only when every operand holds whole numbers small
    enough for every partial sum to be exact, which is checked on the operands themselves: the guard is
    for tests.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: _Arguments = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation if it is exact."""
        check = _CHECKS.get(func.overloadpacket.__name__)
        if check is None:
            raise InexactOperationError(f"{func} is not on the list of exact operations")
        if not check(args):
            raise InexactOperationError(f"{func} is exact for other operands only")
        return func(*args, **(kwargs or {}))


def _always(args: _Arguments) -> bool:
    return True


def _integers(args: _Arguments) -> bool:
    return all(not a.is_floating_point() for a in args if isinstance(a, torch.Tensor))


def _tensor_divisor(args: _Arguments) -> bool:
    """A number as divisor is made a reciprocal on CUDA; a tensor is divided by."""
    return isinstance(args[1], torch.Tensor)


def _whole_sum(args: _Arguments) -> bool:
    x = args[0]
    return not x.is_floating_point() or (_is_whole(x) and float(x.double().abs().sum()) < _limit(x))


def _whole_product(args: _Arguments) -> bool:
    a, b = args[0], args[1]
    if not (_is_whole(a) and _is_whole(b)):
        return False
    return float((a.double().abs() @ b.double().abs()).amax()) < _limit(a)


def _is_whole(x: torch.Tensor) -> bool:
    return bool((x == x.round()).all())


def _limit(x: torch.Tensor) -> float:
    return {torch.float32: 2.0**24, torch.float64: 2.0**53}[x.dtype]


_CHECKS: dict[str, Callable[[_Arguments], bool]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _always),
    **dict.fromkeys(_LAYOUT.split(), _always),
    "_int_mm": _always,
    "bmm": _whole_product,
    "cumsum": _integers,
    "div": _tensor_divisor,
    "floor_divide": _integers,
    "index_add_": _integers,
    "matmul": _whole_product,
    "mm": _whole_product,
    "remainder": _integers,
    "sum": _whole_sum,
}
