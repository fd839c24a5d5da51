"""How kernels are launched: what a kernel must do for its launch's options, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sepzip

SOURCES = sorted(Path(sepzip.__file__).parent.rglob("*.py"))


def _kernels(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """Return the functions at a module's level that Triton compiles."""
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator).startswith("triton.jit") for decorator in node.decorator_list)
    }


def _launches(tree: ast.Module) -> list[tuple[str, str]]:
    """Return the names of kernels that are launched, `kernel[grid](...)`, and of their options."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
            options = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg is None]
            found.append((ast.unparse(node.func.value), ",".join(options)))
    return found


def _follows(kernel: ast.FunctionDef) -> bool:
    """Return whether the kernel does nothing before it calls `follow`."""
    body = kernel.body[1:] if ast.get_docstring(kernel) is not None else kernel.body
    return ast.unparse(body[0]) == "follow()"


def _all() -> tuple[dict[str, list[bool]], list[tuple[str, str]]]:
    """Return of every kernel, by name, whether it follows, and all launches."""
    kernels: dict[str, list[bool]] = {}
    launches = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        launches += _launches(tree)
        for name, kernel in _kernels(tree).items():
            kernels.setdefault(name, []).append(_follows(kernel))
    return kernels, launches


def test_what_is_launched_chained_follows() -> None:
    """It begins while the kernel before it may still run, and must wait before it reads what that writes."""
    kernels, launches = _all()
    chained = {name for name, options in launches if options == "CHAINED"}
    assert len(chained) > 60
    for name in chained:
        # Of kernels of the same name in several modules, each.
        assert all(kernels[name]), name


def test_every_launch_is_exact() -> None:
    """Chained or not; and a kernel that follows is launched chained everywhere, never called."""
    kernels, launches = _all()
    options = {name: {used for other, used in launches if other == name} for name, _ in launches}
    launched = {name for name in options if name in kernels}
    assert all(options[name] in ({"CHAINED"}, {"EXACT"}) for name in launched)
    followers = {name for name, follows in kernels.items() if any(follows)}
    assert followers == {name for name in launched if options[name] == {"CHAINED"}}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('@triton.jit\ndef kernel(x):\n    """Do."""\n    follow()\n    y(x)', True),
        ("@triton.jit\ndef kernel(x):\n    follow()", True),
        ("@triton.jit\ndef kernel(x):\n    y(x)\n    follow()", False),
        ('@triton.jit(do_not_specialize=["x"])\ndef kernel(x):\n    """Do."""\n    y(x)', False),
    ],
)
def test_what_counts_as_following(source: str, expected: bool) -> None:
    assert [_follows(kernel) for kernel in _kernels(ast.parse(source)).values()] == [expected]
