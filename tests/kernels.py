"""Where the kernels' tests run: on a GPU if there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

__all__ = ["DEVICE"]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    # Triton reads this when a kernel is defined.
    os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton")


def _let_numbers_be_bounds() -> None:
    """Let the interpreter take a kernel's arguments as the bounds of a loop.

    It keeps numbers as arrays of one element, which NumPy 2.4 no longer turns into integers.
    """
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor

    def patch(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch


def _spare_the_interpreter() -> None:
    """Keep the interpreter from work that comes to nothing, which takes half of its time.

    It replaces the functions of Triton's language anew at every call of a function within a kernel. And it
    works out where whole numbers overflow, which it only ever says in its debug mode.
    """
    from triton.runtime import interpreter

    original = interpreter._patch_lang
    seen: set[Any] = set()

    def patch(function: Any) -> Any:
        if function not in seen:
            original(function)
            seen.add(function)
        # Nothing to restore: whatever runs in this process is interpreted.
        return interpreter._LangPatchScope()

    interpreter._patch_lang = patch
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)


def _make_types_once() -> None:
    """Keep what follows from a type, which the interpreter works out anew for every value it makes.

    Types and shapes are never changed, so that all tensors of a type can share them.
    """
    from triton.language import core
    from triton.runtime import interpreter

    block_type, tensor = core.block_type.__init__, core.tensor.__init__
    of_block: dict[Any, dict[str, Any]] = {}
    of_tensor: dict[str, dict[str, Any]] = {}
    of_numpy: dict[str, Any] = {}
    numpy_dtype = interpreter._get_np_dtype

    def make_block_type(self: Any, element_ty: Any, shape: Any) -> None:
        key = element_ty.name, *(getattr(size, "value", size) for size in shape)
        if key not in of_block:
            block_type(self, element_ty, shape)
            of_block[key] = dict(vars(self))
        vars(self).update(of_block[key])

    def make_tensor(self: Any, handle: Any, type: Any) -> None:
        if type.name not in of_tensor:
            tensor(self, handle, type)
            of_tensor[type.name] = {name: value for name, value in vars(self).items() if name != "handle"}
        vars(self).update(of_tensor[type.name], handle=handle)

    def get_np_dtype(type: Any) -> Any:
        if type.name not in of_numpy:
            of_numpy[type.name] = numpy_dtype(type)
        return of_numpy[type.name]

    core.block_type.__init__, core.tensor.__init__ = make_block_type, make_tensor
    interpreter._get_np_dtype = get_np_dtype


def _let_masks_be_numbers() -> None:
    """Let the interpreter take masks that were made of single numbers, as a GPU does.

    Newer ones spread such a truth value as an integer over a vector, and refuse that as a mask.
    """
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    for name, place in (("masked_load", 1), ("masked_store", 2), ("atomic_rmw", 3)):
        original = getattr(builder, f"create_{name}")

        def call(self: Any, *arguments: Any, original: Any = original, place: int = place) -> Any:
            mask = arguments[place]
            mask.data = np.asarray(mask.data, bool)
            return original(self, *arguments)

        setattr(builder, f"create_{name}", call)


if DEVICE.type == "cpu":
    _let_masks_be_numbers()
    _let_numbers_be_bounds()
    _spare_the_interpreter()
    _make_types_once()
