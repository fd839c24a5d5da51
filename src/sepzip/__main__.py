"""The command `sep` as `python -m sepzip`."""

from .cli import sep_main

if __name__ == "__main__":
    sep_main()
