"""What the user asked for: the command line, read into one frozen record."""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from .. import __version__
from ..devices import Resources
from ..errors import UsageError
from ..memory import Share
from ..presets import DEFAULT_LEVEL, LEVELS, NETWORKS, Preset, Semantics, resolve
from .messages import is_terminal
from .sizes import read_limit, read_size

__all__ = ["STANDARD_STREAM", "Mode", "Options", "read_arguments"]

STANDARD_STREAM = "-"
"""The name of standard input among the files, and of standard output after -o."""

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+(,\d+)*)?", re.ASCII)


class Mode(enum.Enum):
    """What is done with each file."""

    COMPRESS = "compress"
    DECOMPRESS = "decompress"
    TEST = "test"
    LIST = "list"


@dataclass(frozen=True)
class Options:
    """All that one call of the command was told, free of contradictions."""

    files: tuple[str, ...]
    mode: Mode
    preset: Preset
    resources: Resources
    to_stdout: bool
    output: str | None
    force: bool
    remove: bool
    recursive: bool
    verify: bool
    quiet: bool
    verbosity: int
    json: bool
    profile: str | None

    @property
    def writes_stdout(self) -> bool:
        """Whether any output goes to standard output."""
        return self.output is None and (self.to_stdout or STANDARD_STREAM in self.files)


def read_arguments(program: str, arguments: Sequence[str]) -> Options | None:
    """Return the options of a command line, or None where it asked for the help or the version.

    The help or the version is then printed already. Raises UsageError, its message fit for one
    line, where the arguments are unknown or contradict each other.
    """
    try:
        options = _command.main(list(arguments), prog_name=program, standalone_mode=False)
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.NoSuchOption as error:
        raise UsageError(f"there is no option {error.option_name}") from error
    except click.UsageError as error:
        raise UsageError(error.format_message().rstrip(".")) from error
    return options if isinstance(options, Options) else None


class _LevelOption(click.Option):
    """One of the level flags; in the help the first stands for all of them."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        lowest, highest = min(LEVELS), max(LEVELS)
        if self.opts != [f"-{lowest}"]:
            return None
        return (
            f"-{lowest} ... -{highest}",
            f"Level: fastest to smallest.  [default: {DEFAULT_LEVEL}]",
        )


def _keep_level(context: click.Context, option: click.Parameter, given: bool) -> None:
    # Called in the order of the command line, so that the last level given is the one that counts.
    if given:
        context.params["level"] = int(option.opts[0].removeprefix("-"))


def _levels(function: Callable[..., Options]) -> Callable[..., Options]:
    for level in sorted(LEVELS, reverse=True):
        function = click.option(
            f"-{level}",
            f"level_{level}",
            cls=_LevelOption,
            is_flag=True,
            expose_value=False,
            callback=_keep_level,
        )(function)
    return function


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, options_metavar="[OPTIONS]")
@click.argument("files", metavar="[FILE | -]...", nargs=-1, type=click.Path(allow_dash=True))
@click.option("-d", "--decompress", is_flag=True, help="Decompress.")
@click.option("-t", "--test", is_flag=True, help="Decompress and check, writing nothing.")
@click.option("-l", "--list", "listing", is_flag=True, help="Say what is in .sep files, decoding nothing.")
@_levels
@click.option("-o", "--output", metavar="FILE", help="Write to FILE; - is standard output.")
@click.option("-c", "--stdout", "to_stdout", is_flag=True, help="Write to standard output.")
@click.option("-k", "--keep", is_flag=True, help="Keep the source files.  [default]")
@click.option("--rm", "remove", is_flag=True, help="Remove each source once its output is safe.")
@click.option("-f", "--force", is_flag=True, help="Overwrite; compress .sep files; write to a terminal.")
@click.option("-r", "--recursive", is_flag=True, help="Take the files in directories, without symlinks.")
@click.option("--verify", is_flag=True, help="Decompress what was written and compare it with the source.")
@click.option(
    "--network",
    metavar="NAME",
    help=f"Instead of a level: {', '.join(sorted(NETWORKS))}, or one of another package.",
)
@click.option("--no-seb", is_flag=True, help="Leave out the semantics enhancement block.")
@click.option(
    "--seb",
    "block",
    type=click.Choice(["patches", "drop", "ngrams", "both"]),
    help="What is put to the network: the published block, the same dropping patches of no weight, n-grams, "
    "or the first and n-grams.  [default: patches]",
)
@click.option("--lanes", type=int, metavar="N", help="Most lanes: more are faster, fewer are smaller.")
@click.option("--segment", metavar="SIZE", type=read_size, help="Most bytes of a segment, such as 4MiB.")
@click.option("--no-unpack", is_flag=True, help="Leave what is packed, and members of tar, as they are.")
@click.option("--device", metavar="DEVICE", default="auto", help="auto, cpu, cuda, cuda:N or cuda:N,M.")
@click.option("--streams", type=int, metavar="N", help="Segments in flight on each device.")
@click.option(
    "-M",
    "--memory",
    "memory_limit",
    metavar="SIZE",
    type=read_limit,
    help="Most memory to take of each device, such as 2GiB or 50%.",
)
@click.option("--profile", metavar="FILE", help="Write where the time went to FILE, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="With -l and -t: print one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", count=True, help="Print a line a file; twice, where its time went too.")
@click.version_option(__version__, "-V", "--version", prog_name="sep", message="%(prog)s %(version)s")
def _command(
    files: tuple[str, ...],
    decompress: bool,
    test: bool,
    listing: bool,
    output: str | None,
    to_stdout: bool,
    keep: bool,
    remove: bool,
    force: bool,
    recursive: bool,
    verify: bool,
    network: str | None,
    no_seb: bool,
    block: str | None,
    lanes: int | None,
    segment: int | None,
    no_unpack: bool,
    device: str,
    streams: int | None,
    memory_limit: int | Share | None,
    profile: str | None,
    as_json: bool,
    quiet: bool,
    verbose: int,
    level: int | None = None,
) -> Options:
    """Compress or decompress files with a model that learns while it codes.

    FILE becomes FILE.sep, and FILE.sep becomes FILE with -d; the source is kept. With no FILE, or
    where FILE is -, standard input is read and standard output is written. `unsep` is `sep -d`,
    and `sepcat` is `sep -dc`.
    """
    if output == STANDARD_STREAM:
        output, to_stdout = None, True
    mode = Mode.LIST if listing else Mode.TEST if test else Mode.DECOMPRESS if decompress else Mode.COMPRESS
    how_to_code = {
        "--network": network is not None,
        "--no-seb": no_seb,
        "--seb": block is not None,
        "--lanes": lanes is not None,
        "--segment": segment is not None,
        "--no-unpack": no_unpack,
        "--verify": verify,
    }
    writes = mode in (Mode.COMPRESS, Mode.DECOMPRESS)
    from_stdin = not files or STANDARD_STREAM in files
    refusals = {
        "give a file, or pipe data in": not files and is_terminal(sys.stdin),
        "-l and -t exclude each other": listing and test,
        "-q and -v exclude each other": quiet and verbose > 0,
        "-k and --rm exclude each other": keep and remove,
        "-o and -c exclude each other": output is not None and to_stdout,
        "-o names one output: give it one file": output is not None and (len(files) > 1 or recursive),
        "-o is for compressing and decompressing": output is not None and not writes,
        "--rm is for compressing and decompressing": remove and not writes,
        "--rm needs an output that is a file: leave out -c": remove and to_stdout,
        "--json goes with -l or -t": as_json and writes,
        "--network names a level of its own: leave out the number": network is not None and level is not None,
        "--seb and --no-seb exclude each other": block is not None and no_seb,
        "--verify reads the output back: give it a file with -o": (
            verify and (to_stdout or (from_stdin and output is None))
        ),
        "-l reads no standard input: name a file": listing and from_stdin,
        "--profile is for what takes time: leave out -l": profile is not None and listing,
        "--profile names a file": profile == STANDARD_STREAM,
        f"--device is auto, cpu, cuda, cuda:N or cuda:N,M, not {device!r}": not _DEVICE.fullmatch(device),
    }
    for name, given in how_to_code.items():
        refusals[f"{name} is for compressing"] = given and mode is not Mode.COMPRESS
    for refusal, applies in refusals.items():
        if applies:
            raise UsageError(refusal)
    return Options(
        files=files or (STANDARD_STREAM,),
        mode=mode,
        preset=resolve(level, network, _semantics(block, no_seb), lanes, segment, not no_unpack),
        resources=Resources(device, streams, memory_limit),
        to_stdout=to_stdout,
        output=output,
        force=force,
        remove=remove,
        recursive=recursive,
        verify=verify,
        quiet=quiet,
        verbosity=verbose,
        json=as_json,
        profile=profile,
    )


def _semantics(block: str | None, no_seb: bool) -> Semantics:
    blocks: dict[str | None, Semantics] = {"drop": "drop", "ngrams": "ngrams", "both": "both"}
    return blocks.get(block, not no_seb)
