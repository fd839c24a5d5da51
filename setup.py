"""The compiled parts: plain shared libraries, loaded by ctypes, that any Python can use."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "sepzip.recall._memory",
            ["src/sepzip/recall/memory.c", "src/sepzip/recall/recurrent.c"],
            depends=["src/sepzip/recall/recurrent.h"],
            # Integers wrap around and are shifted with their sign, and no product and sum of floats become
            # one operation, as in the kernels.
            extra_compile_args=[
                "-O3",
                "-fwrapv",
                "-ffp-contract=off",
                "-fvisibility=hidden",
                "-Wno-parentheses",
            ],
            extra_link_args=["-pthread"],
            py_limited_api=True,
        ),
        Extension(
            "sepzip.recompression._recompression",
            ["src/sepzip/recompression/deflate.c", "src/sepzip/recompression/lzw.c"],
            extra_compile_args=["-O3", "-fwrapv", "-fvisibility=hidden", "-Wno-parentheses"],
            py_limited_api=True,
        ),
    ]
)
