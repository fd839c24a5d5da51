"""Whether kernels run on a GPU of this machine: found out by running one.

Triton comes with torch on Linux. When it is first used it compiles a little C, which takes a compiler and
Python's headers, and it keeps what it makes in a folder that must be writable: where torch works, any of
these may be missing.
"""

from __future__ import annotations

import subprocess
import threading
import warnings

from .errors import DeviceWarning

__all__ = ["kernels_run"]

_LEAST_CAPABILITY = (8, 0)
"""Of a GPU for kernels of networks: below, Triton has no products of int8."""

_lock = threading.Lock()
_found: dict[tuple[str, bool], bool] = {}


def kernels_run(device: str, *, of_networks: bool) -> bool:
    """Return whether kernels run on a device of `pick_devices`, those of networks or of a memory of contexts.

    They do on no CPU. Where they do not on a GPU, the process warns of it once, by a DeviceWarning.
    """
    if device == "cpu":
        return False
    key = device, of_networks
    with _lock:
        if key not in _found:
            trouble = _trouble(device, of_networks)
            _found[key] = trouble is None
            if trouble is not None:
                work = "each operation of a network is PyTorch's" if of_networks else "CPUs do the work"
                warnings.warn(f"{device}: {trouble}; {work}, which takes longer", DeviceWarning, stacklevel=2)
        return _found[key]


def _trouble(device: str, of_networks: bool) -> str | None:
    """Return why kernels do not run there, None if they do."""
    import torch

    try:
        if of_networks and (capability := torch.cuda.get_device_capability(device)) < _LEAST_CAPABILITY:
            has, least = (".".join(map(str, version)) for version in (capability, _LEAST_CAPABILITY))
            return f"compute capability {has}, and kernels of networks need {least}"
        from .exact.kernels.probe import works

        with torch.cuda.device(device):
            return None if works(torch.device(device)) else "a kernel gave a wrong result"
    except torch.OutOfMemoryError:
        raise
    except ImportError:
        return "kernels need Triton, which is not installed"
    # Compilers, caches, drivers: whatever keeps a kernel from running keeps all from it.
    except Exception as error:
        return _explained(error)


def _explained(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return "no kernel runs, for Triton's C compiler failed: it needs Python's headers (python3-dev) too"
    if "C compiler" in str(error):
        return "no kernel runs, for Triton finds no C compiler: install one, such as gcc"
    first = (str(error).splitlines() or [""])[0]
    return f"no kernel runs ({type(error).__name__}: {first})"
