"""The command line: what is read from it, and what is refused with one line and status 2."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sepzip import __version__
from sepzip.cli.options import Mode, Options, read_arguments
from sepzip.cli.run import USAGE, main
from sepzip.devices import Resources
from sepzip.memory import Share
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
    assert options.resources == Resources("auto", None, None)
    assert options.profile is None


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
    assert options.to_stdout and options.force and options.verbosity == 1 and options.recursive
    assert read("--test", "a").mode is Mode.TEST
    assert read("--list", "a").mode is Mode.LIST
    assert read("--quiet", "--output", "b", "a").output == "b"


def test_network_seb_lanes_and_device() -> None:
    options = read("--network", "pac", "--no-seb", "--lanes", "7", "--device", "cuda:1", "a")
    assert options.preset.model == NETWORKS["pac"][False].model
    assert options.preset.lanes == 7
    assert options.resources.device == "cuda:1"


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("1", 1),
        ("65536", 1 << 16),
        ("64K", 1 << 16),
        ("64KiB", 1 << 16),
        ("64kb", 1 << 16),
        ("4MiB", 1 << 22),
        ("4M", 1 << 22),
        ("1g", 1 << 30),
        ("1GiB", 1 << 30),
    ],
)
def test_sizes(given: str, size: int) -> None:
    options = read("--segment", given, "-M", given, "a")
    assert options.preset == replace(LEVELS[DEFAULT_LEVEL], segment_size=size)
    assert options.resources.memory_limit == size


def test_streams_memory_and_profile() -> None:
    options = read(
        "--streams", "3", "--memory", "50%", "--device", "cuda:0,2", "--profile", "p", "-vv", "-d", "a"
    )
    assert options.resources == Resources("cuda:0,2", 3, Share(50))
    assert options.profile == "p"
    assert options.verbosity == 2
    assert read("-v", "-v", "a").verbosity == 2


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
        "--device cuda:1, a",
        "--streams 0 a",
        "--streams many a",
        "--segment 0 a",
        "--segment 2GiB a",
        "--segment 1.5M a",
        "--segment 50% a",
        "--segment 4M -d a.sep",
        "-M 0 a",
        "-M 0% a",
        "-M 101% a",
        "-M lots a",
        "--profile p -l a.sep",
        "--profile - a",
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
    long = ["--rm", "--verify", "--network", "--no-seb", "--lanes", "--segment", "--device"]
    long += ["--streams", "-M, --memory", "--profile", "--json"]
    assert [option for option in [*short, *long] if f" {option}" not in out] == []
    assert "-2" not in out


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main("sep", ["-V"]) == 0
    assert capfd.readouterr().out == f"sep {__version__}\n"
