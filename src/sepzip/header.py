"""A frame's header: magic, versions and the settings of the model (docs/format.md)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from . import outside
from .errors import CorruptError, NotSepError, TrailingDataError, TruncatedError, UnsupportedError, UsageError
from .presets import NETWORKS, NUMERICS_VERSION, ModelSettings
from .wire import ByteSource, varint

__all__ = ["FORMAT_VERSION", "FrameHeader", "encode_header", "read_header"]

MAGIC = b"\x89SEP"
FORMAT_VERSION = 1

_MOST_BODY = 4096
_MOST_LANE_WIDTHS = 64
_MOST_WIDTH = 65536
_PRIOR = 11


@dataclass(frozen=True)
class FrameHeader:
    """What a frame's header says; `model` is None where every segment is stored. `length` is in bytes."""

    format_version: int
    numerics_version: int
    model: ModelSettings | None
    length: int


@dataclass(frozen=True)
class _Setting:
    """How one field of ModelSettings is written: the range of its number, or of each number of its list.

    Where `networks` names some, the others' headers leave it out, and their models have `absent`. Without, it
    belongs to all that learn by gradients. Where the model's field `needs` is 0 or empty, those that need it
    are left out.
    """

    field: str
    least: int
    most: int
    is_list: bool = False
    networks: frozenset[str] | None = None
    needs: str = ""

    @property
    def absent(self) -> int | tuple[int, ...]:
        """The value in a model whose network does not have the setting."""
        value: int = 0 if self.is_list else getattr(_DEFAULTS, self.field)
        return () if self.is_list else value

    def belongs_to(self, network: str) -> bool:
        """Return whether a header that names this network can have the setting."""
        return network in self.networks if self.networks is not None else network not in _MEMORY

    def is_needed(self, model: ModelSettings) -> bool:
        """Return whether the header of this model has the setting, which belongs to its network."""
        return not self.needs or bool(getattr(model, self.needs))


_BETAS = frozenset({"decmac", "lstm", "nncp"})
_LAYERED = frozenset({"decmac", "lstm", "nncp", "oreo"})
_NNCP = frozenset({"nncp"})
_MEMORY = frozenset({"recall"})
_PAC = frozenset({"pac"})
_OF_TOKENS = frozenset({"patchtst", "trace"})

_SETTINGS = {
    1: _Setting("semantics", 0, 1),
    2: _Setting("context", 1, 4096),
    3: _Setting("patch", 0, 4096),
    4: _Setting("stride", 0, 4096),
    5: _Setting("embedding", 1, 1024),
    6: _Setting("lane_widths", 1, 1024, is_list=True, networks=_PAC),
    7: _Setting("hidden", 1, 65536),
    8: _Setting("learning_rate", 1, 1_000_000),
    9: _Setting("seed", 0, (1 << 32) - 1),
    10: _Setting("lanes_per_coder", 1, 64),
    12: _Setting("learning_rate_last", 1, 1_000_000),
    13: _Setting("learning_rate_steps", 1, 10_000),
    14: _Setting("positions", 0, 1024, networks=_OF_TOKENS),
    15: _Setting("token", 0, 4096, networks=_OF_TOKENS),
    16: _Setting("heads", 1, 1024, networks=_OF_TOKENS | _NNCP),
    17: _Setting("tokens", 0, 1024, networks=_OF_TOKENS),
    18: _Setting("mixing", 0, 65536, networks=_OF_TOKENS),
    20: _Setting("contexts", 1, 26, networks=_MEMORY),
    21: _Setting("table_bits", 12, 28, networks=_MEMORY),
    22: _Setting("recurrent", 1, 1, networks=_MEMORY, needs="recurrent"),
    30: _Setting("layers", 1, 64, networks=_LAYERED),
    31: _Setting("beta1", 0, 999_900, networks=_BETAS),
    32: _Setting("beta2", 0, 999_900, networks=_BETAS),
    40: _Setting("update_steps", 1, 1024, networks=_NNCP),
    50: _Setting("ngrams", 1, 65535, is_list=True, needs="ngrams"),
    51: _Setting("ngram_bits", 8, 24, needs="ngrams"),
    52: _Setting("ngram_size", 1, 64, needs="ngrams"),
    53: _Setting("ngram_rate", 1, 1_000_000, needs="ngrams"),
    54: _Setting("ngram_own", 1, 1, needs="ngram_own"),
    60: _Setting("drop_step", 1, 1 << 20, needs="drop_step"),
    61: _Setting("drop_below", 1, 1000, needs="drop_step"),
}

_DEFAULTS = ModelSettings(semantics=False, patch=0, stride=0)


def known_networks() -> frozenset[str]:
    """Return the names that a header's network can have, but for those of other packages."""
    return frozenset(preset.model.network for presets in NETWORKS.values() for preset in presets.values())


def is_known(network: str) -> bool:
    """Return whether a header's network can have this name, here or from another package."""
    return network in known_networks() or outside.is_installed(network)


def encode_header(model: ModelSettings | None) -> bytes:
    """Return the header of a frame with this model, or with none, up to its checksum.

    Raises UsageError for a setting that the format cannot hold.
    """
    if model is None:
        numerics, body = 0, b"\0"
    else:
        fault = _fault(model)
        if fault:
            raise UsageError(f"{fault}: choose other settings")
        name = model.network.encode("ascii")
        numerics, body = NUMERICS_VERSION, bytes([len(name)]) + name
        for identifier, setting in _SETTINGS.items():
            if not setting.belongs_to(model.network) or not setting.is_needed(model):
                continue
            value = getattr(model, setting.field)
            body += bytes([identifier])
            if setting.is_list:
                body += varint(len(value)) + b"".join(map(varint, value))
            else:
                body += varint(value)
    body += b"\0"
    return MAGIC + bytes([FORMAT_VERSION, numerics]) + varint(len(body)) + body


def read_header(source: ByteSource, first: bool) -> FrameHeader | None:
    """Return the header of the frame that begins here, or None at the end of a file that has had its first.

    Raises NotSepError or, after the first frame, TrailingDataError where no frame begins; TruncatedError
    where the header ends early; UnsupportedError for what a newer version made; CorruptError for damage.
    """
    source.start_check()
    start = source.position
    if not _begins_frame(source, first):
        return None
    format_version = source.byte("the header")
    if format_version > FORMAT_VERSION:
        raise UnsupportedError(
            f"made with format version {format_version}; this sepzip reads up to {FORMAT_VERSION}: "
            "install a newer sepzip"
        )
    if format_version < 1:
        raise CorruptError("format version 0 does not exist: the header is damaged")
    numerics_version = source.byte("the header")
    length = source.varint("the header's length", 2, _MOST_BODY)
    body = source.exactly(length, "the header")
    source.check("the header")
    model = _decode_body(body)
    if (model is None) != (numerics_version == 0):
        raise CorruptError(f"numerics version {numerics_version} does not go with the header's network")
    if numerics_version > NUMERICS_VERSION:
        raise UnsupportedError(
            f"made with numerics version {numerics_version}; this sepzip computes up to {NUMERICS_VERSION}: "
            "install a newer sepzip"
        )
    return FrameHeader(format_version, numerics_version, model, source.position - start)


def _begins_frame(source: ByteSource, first: bool) -> bool:
    start = source.position
    magic = source.up_to(len(MAGIC))
    if magic == MAGIC:
        return True
    if not magic:
        if first:
            raise TruncatedError("the input is empty: it holds no frame; get a whole copy")
        return False
    if len(magic) < len(MAGIC) and MAGIC.startswith(magic):
        raise TruncatedError(
            f"the input ends inside a frame's magic, after byte {source.position}: get a whole copy"
        )
    if first:
        raise NotSepError("not a .sep file (its first bytes are other ones): give a file that sepzip made")
    raise TrailingDataError(f"bytes that are no frame follow the last frame, from byte {start}: cut them off")


def _decode_body(body: bytes) -> ModelSettings | None:
    """Return the model that a header's body, its checksum already compared, describes."""
    try:
        return _read_model(ByteSource(io.BytesIO(body)), len(body))
    except TruncatedError:
        raise CorruptError("the header's settings go on beyond its length: it is damaged") from None


def _read_model(source: ByteSource, length: int) -> ModelSettings | None:
    name = source.exactly(source.byte("the header"), "the header")
    if not all(0x21 <= byte <= 0x7E for byte in name):
        raise CorruptError("the network's name is not printable ASCII: the header is damaged")
    network = name.decode("ascii")
    if network and not is_known(network):
        raise UnsupportedError(
            f"made with network {network!r}; this sepzip knows "
            f"{', '.join(sorted({*known_networks(), *outside.names()}))}: "
            "install a newer sepzip, or the package that has it"
        )
    fields = _read_settings(source, network)
    if source.position != length:
        raise CorruptError("the header goes on after its last setting: it is damaged")
    if not network:
        if fields:
            raise CorruptError("the header has settings but no network: it is damaged")
        return None
    needed = {setting.needs for setting in _SETTINGS.values() if setting.field in fields} | {""}
    for setting in _SETTINGS.values():
        if not setting.belongs_to(network) or setting.needs not in needed:
            fields[setting.field] = setting.absent
        elif setting.field not in fields:
            raise CorruptError(f"the header lacks the setting {setting.field}: it is damaged")
    fields["semantics"] = bool(fields["semantics"])
    model = ModelSettings(network=network, **fields)
    fault = _fault(model)
    if fault:
        raise CorruptError(f"{fault}: the header is damaged")
    return model


def _read_settings(source: ByteSource, network: str) -> dict[str, Any]:
    """Return the settings by their field's name, up to the zero byte that ends them."""
    fields: dict[str, Any] = {}
    previous = 0
    while identifier := source.byte("the header"):
        if identifier == _PRIOR:
            prior = source.exactly(32, "the prior's SHA-256").hex()
            raise UnsupportedError(
                f"made with the prior {prior}; this sepzip uses none: install a newer sepzip"
            )
        if identifier not in _SETTINGS:
            raise UnsupportedError(f"made with setting {identifier}, unknown here: install a newer sepzip")
        if identifier <= previous:
            raise CorruptError(f"setting {identifier} comes twice or out of order: the header is damaged")
        previous = identifier
        setting = _SETTINGS[identifier]
        if network and not setting.belongs_to(network):
            raise UnsupportedError(
                f"made with setting {setting.field}, which {network} does not have here: "
                "install a newer sepzip"
            )
        what = f"setting {setting.field}"
        if setting.is_list:
            count = source.varint(f"{what}'s count", 0, _MOST_LANE_WIDTHS)
            fields[setting.field] = tuple(
                source.varint(what, setting.least, setting.most) for _ in range(count)
            )
        else:
            fields[setting.field] = source.varint(what, setting.least, setting.most)
    return fields


def _fault(model: ModelSettings) -> str | None:
    """Return the first rule of the format that the settings break, in words, or None."""
    if not is_known(model.network):
        return f"network {model.network!r} is unknown"
    for setting in _SETTINGS.values():
        value = getattr(model, setting.field)
        if not setting.belongs_to(model.network):
            if value != setting.absent:
                return f"{setting.field} is {value}, which {model.network} does not have"
            continue
        if not setting.is_needed(model):
            if value != setting.absent:
                return f"{setting.field} is {value} although {setting.needs} is not set"
            continue
        if setting.is_list and len(value) > _MOST_LANE_WIDTHS:
            return f"{setting.field} has {len(value)} entries, more than {_MOST_LANE_WIDTHS}"
        for number in value if setting.is_list else (value,):
            if not setting.least <= number <= setting.most:
                return f"{setting.field} is {number}, not within {setting.least} to {setting.most}"
    if model.semantics:
        if not 1 <= model.patch <= model.context:
            return f"patch is {model.patch}, not within 1 to the context of {model.context}"
        patches = model.context - model.patch + 1
        if not 1 <= model.stride <= patches:
            return f"stride is {model.stride}, not within 1 to the {patches} patches"
        if model.drop_step % model.update_steps:
            return f"drop_step is {model.drop_step}, not a multiple of update_steps, {model.update_steps}"
    elif model.patch or model.stride or model.drop_step:
        return "patch, stride and drop_step are not 0 although the SEB is off"
    if model.ngram_own and not model.ngrams:
        return "ngram_own is 1 although ngrams is not set"
    if model.width > _MOST_WIDTH:
        return f"the width is {model.width}, above {_MOST_WIDTH}"
    if any(width > model.width for width in model.lane_widths):
        return f"lane_widths go above the width of {model.width}"
    if model.network in _NNCP:
        return _nncp_fault(model)
    return _token_fault(model) if model.network in _OF_TOKENS else None


def _nncp_fault(model: ModelSettings) -> str | None:
    """Return the first rule that settings of nncp break, in words, or None."""
    if model.semantics and model.patch != 1:
        return f"patch is {model.patch}, and in nncp patches are single bytes"
    if model.embedding % model.heads:
        return f"the embedding of {model.embedding} is not a multiple of heads, {model.heads}"
    tokens = model.context + model.update_steps
    # Within it, the sums of attention's backward pass stay below 2^53.
    if tokens * model.embedding > _MOST_WIDTH:
        return f"{tokens} tokens of {model.embedding} values are more than {_MOST_WIDTH} values"
    return None


def _token_fault(model: ModelSettings) -> str | None:
    """Return the first rule that settings of a network of tokens break, in words, or None."""
    if model.semantics:
        if model.token or not model.tokens or not model.mixing:
            return "with the SEB token must be 0, tokens and mixing at least 1"
        tokens = model.tokens
    else:
        if model.tokens or model.mixing:
            return "tokens and mixing are not 0 although the SEB is off"
        if not model.token or model.context % model.token:
            return f"the context of {model.context} is not a multiple of token, {model.token}"
        tokens = model.context // model.token
    if model.width % model.heads:
        return f"the width of {model.width} is not a multiple of heads, {model.heads}"
    # Within it, the sums of attention's backward pass stay below 2^53.
    if tokens * model.width > _MOST_WIDTH:
        return f"{tokens} tokens of {model.width} values are more than {_MOST_WIDTH} values"
    return None
