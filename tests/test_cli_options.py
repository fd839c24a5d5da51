"""The command line: what is read from it, and what is refused with one line and status 2."""

from __future__ import annotations

import pytest

from sepzip import __version__
from sepzip.cli.options import Mode, Options, read_arguments
from sepzip.cli.run import USAGE, main
from sepzip.presets import DEFAULT_LEVEL, LEVELS, NETWORKS


def read(*arguments: str) -> Options:
    options = read_arguments("sep", arguments)
    assert options is not None
    return options


@pytest.mark.parametrize(
    ("flag", "mode"), [("-d", Mode.DECOMPRESS), ("-t", Mode.TEST), ("-l", Mode.LIST), ("-k", Mode.COMPRESS)]
)
def test_mode(flag: str, mode: Mode) -> None:
    assert read(flag, "a.sep").mode is mode


def test_default_is_to_keep_and_to_compress_at_the_default_level() -> None:
    options = read("a")
    assert options.mode is Mode.COMPRESS
    assert options.preset == LEVELS[DEFAULT_LEVEL]
    assert not (options.remove or options.force or options.to_stdout)
    assert options.device == "auto"


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_every_level_is_a_flag(level: int) -> None:
    assert read(f"-{level}", "a").preset == LEVELS[level]


def test_the_last_level_counts() -> None:
    assert read("-9", "-1", "a").preset == LEVELS[1]
    assert read("-1", "-9", "a").preset == LEVELS[9]


def test_short_flags_can_be_combined() -> None:
    options = read("-kf9", "a", "b")
    assert options.force
    assert options.preset == LEVELS[9]
    assert options.files == ("a", "b")
    assert read("-dc", "a").to_stdout


def test_long_forms() -> None:
    options = read("--decompress", "--keep", "--stdout", "--force", "--verbose", "--recursive", "a.sep")
    assert options.mode is Mode.DECOMPRESS
    assert options.to_stdout and options.force and options.verbose and options.recursive
    assert read("--test", "a").mode is Mode.TEST
    assert read("--list", "a").mode is Mode.LIST
    assert read("--quiet", "--output", "b", "a").output == "b"


def test_network_seb_lanes_and_device() -> None:
    options = read("--network", "pac", "--no-seb", "--lanes", "7", "--device", "cuda:1", "a")
    assert options.preset.model == NETWORKS["pac"][False].model
    assert options.preset.lanes == 7
    assert options.device == "cuda:1"


def test_a_dash_after_o_is_standard_output() -> None:
    options = read("-o", "-", "a")
    assert options.output is None
    assert options.to_stdout


def test_what_follows_two_dashes_is_a_file() -> None:
    assert read("--", "-d").files == ("-d",)


@pytest.mark.parametrize(
    "arguments",
    [
        "--no-such-option a",
        "-x a",
        "-o",
        "--lanes many a",
        "--lanes 0 a",
        "--network none a",
        "--network pac -3 a",
        "--device tpu a",
        "--device cuda:x a",
        "-l -t a.sep",
        "-q -v a",
        "-k --rm a",
        "-c -o b a",
        "-o c a b",
        "-o b -r a",
        "-o b -t a.sep",
        "--rm -c a",
        "--rm -t a.sep",
        "--json a",
        "--json -d a.sep",
        "--verify -c a",
        "--verify",
        "--verify -d a.sep",
        "--network pac -d a.sep",
        "--no-seb -t a.sep",
        "--lanes 4 -l a.sep",
        "-l",
        "-l -",
    ],
)
def test_contradictions_are_refused_in_one_line(arguments: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main("sep", arguments.split()) == USAGE
    out, error = capfd.readouterr()
    assert out == ""
    assert error.startswith("sep: ")
    assert error.endswith("; sep -h lists the options\n")
    assert error.count("\n") == 1


def test_help_names_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    assert main("sep", ["-h"]) == 0
    out, error = capfd.readouterr()
    assert error == ""
    short = ["-d", "-t", "-l", "-1 ... -9", "-o", "-c", "-k", "-f", "-r", "-q", "-v", "-V", "-h"]
    long = ["--rm", "--verify", "--network", "--no-seb", "--lanes", "--device", "--json"]
    assert [option for option in [*short, *long] if f" {option}" not in out] == []
    assert "-2" not in out


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main("sep", ["-V"]) == 0
    assert capfd.readouterr().out == f"sep {__version__}\n"
