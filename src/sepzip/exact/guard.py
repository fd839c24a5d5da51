"""The guard that lets only exact operations through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["ExactOnly", "InexactOperationError"]

# Rounded alike everywhere, element by element, on float32 and float64; integers are exact anyway.
_ELEMENTWISE = frozenset(
    "abs add add_ bitwise_and bitwise_and_ bitwise_not bitwise_or bitwise_xor bitwise_right_shift "
    "__rshift__ __lshift__ clamp clamp_ eq floor floor_ ge gt le lt maximum minimum mul mul_ ne neg neg_ "
    "reciprocal reciprocal_ round round_ rsub sub sub_ where".split()
)
# Moves or converts elements without arithmetic across them, or with a maximum, which has no order.
_LAYOUT = frozenset(
    "alias amax any arange as_strided cat clone contiguous copy_ detach empty empty_like empty_strided "
    "expand fill_ full full_like gather index_copy_ index_select lift_fresh new_empty ones permute repeat "
    "reshape scatter scatter_ select slice squeeze stack t transpose unsqueeze unsafe_view view "
    "_reshape_alias _to_copy _unsafe_view zero_ zeros zeros_like".split()
)
# Exact on integers alone, or on whole numbers within a float's mantissa.
_INTEGER = frozenset("cumsum floor_divide index_add index_add_ div div_".split())
_INT8 = frozenset(["_int_mm"])


class InexactOperationError(RuntimeError):
    """An operation was called whose result may differ from device to device."""


class ExactOnly(TorchDispatchMode):
    """Within it, an operation that is not known to be exact raises InexactOperationError, by name.

    Sums and products of floats are let through only when every operand holds whole numbers small
    enough for every partial sum to be exact, which is checked on the operands themselves: the guard is
    for tests.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        check = _CHECKS.get(name)
        if check is None:
            raise InexactOperationError(f"{func} is not on the list of exact operations")
        if not check(args, kwargs):
            raise InexactOperationError(f"{func} is exact on whole numbers only, and these are not")
        return func(*args, **kwargs)


def _always(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return True


def _integers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return all(not a.is_floating_point() for a in args if isinstance(a, torch.Tensor))


def _whole_sum(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    x = args[0]
    if not x.is_floating_point():
        return True
    return _is_whole(x) and float(x.double().abs().sum()) < _limit(x)


def _whole_product(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    a, b = args[0], args[1]
    if not (_is_whole(a) and _is_whole(b)):
        return False
    return float((a.double().abs() @ b.double().abs()).amax()) < _limit(a)


def _is_whole(x: torch.Tensor) -> bool:
    return not x.is_floating_point() or bool((x == x.round()).all())


def _limit(x: torch.Tensor) -> float:
    return {torch.float32: 2.0**24, torch.float64: 2.0**53}.get(x.dtype, 2.0**63)


_CHECKS: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], bool]] = {
    **dict.fromkeys(_ELEMENTWISE | _LAYOUT | _INT8, _always),
    **dict.fromkeys(_INTEGER, _integers),
    "sum": _whole_sum,
    "mm": _whole_product,
    "bmm": _whole_product,
}
