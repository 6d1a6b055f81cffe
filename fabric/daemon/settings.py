"""A daemon's settings: one YAML file and the flags, in which the flags win. Typed, frozen, unknown keys refused.

The types are the daemon's own (`AgentConfig`, `ConnectorConfig`, `EdgeConfig`): msgspec structs whose keys may be
nested once or more (`log.level`). A type that msgspec does not know is made by its classmethod `parse`, which raises
ValueError or ConfigError, or by being called (Path). Secrets are never in the file, only the names of their files.
"""

from __future__ import annotations

import io
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from warren.fabric.core.errors import ConfigError

DIRECTORY = Path("/etc/warren")
FILE_LIMIT = 1 << 20
"""Bytes of a file of settings: a page of text and then some."""

T = TypeVar("T", bound=msgspec.Struct)


ODD_SCALARS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What the YAML library raises, beside its own errors, for scalars such as "+_" and for what is no text."""


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log of a daemon."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file: Path | None = None
    """None: standard error. Opened anew on SIGHUP."""
    format: Literal["text", "json"] = "text"


class Endpoint:
    """An IP address and a TCP port to listen on: 127.0.0.1:9310, [::1]:9310."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    @classmethod
    def parse(cls, text: object) -> Endpoint:
        """Raises ValueError."""
        import ipaddress

        host, _, port = str(text).rpartition(":")
        try:
            ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            if not port.isascii() or not 1 <= int(port) <= 65_535:
                raise ValueError
        except ValueError:
            raise ValueError(f"{text!r} is no ADDRESS:PORT, such as 127.0.0.1:9310 or [::1]:9310") from None
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    __repr__ = __str__


def read(kind: type[T], role: str, file: Path | None, flags: Mapping[str, object] | None = None) -> T:
    """The settings of the daemon `role`.

    `file`: None for /etc/warren/ROLE.yaml, if it is there. `flags`: value by key ("log.level"); None: not given.
    Raises ConfigError, which names the key in the file, or the flag.
    """
    document: dict[str, Any] = {}
    path = DIRECTORY / f"{role}.yaml" if file is None else file
    if file is not None or _is_there(path):
        document = _load(path)
        _convert(document, kind, str(path))
    for key, value in (flags or {}).items():
        if value is not None:
            _check_flag(kind, key, value)
            _put(document, key, value)
    return _convert(document, kind, str(path))


def flag(key: str) -> str:
    """The flag of a key: log.level → --log-level."""
    return "--" + key.replace(".", "-").replace("_", "-")


def plain(settings: msgspec.Struct) -> Any:
    """As JSON has it."""
    return msgspec.to_builtins(settings, enc_hook=_encode)


def _check_flag(kind: type[msgspec.Struct], key: str, value: object) -> None:
    """Of a flag that is repeated, each value alone, so that the error says which."""
    for item in value if isinstance(value, list) else [value]:
        _convert(_nested(key, [item] if isinstance(value, list) else item), kind, f"{flag(key)} {item}")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise ConfigError(f"{path.parent} can't be looked into: chmod 755 {path.parent}, or use sudo") from None


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as opened:
            text = opened.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}; --config names another file") from None
    if len(text) > FILE_LIMIT:
        raise ConfigError(f"{path} is longer than {FILE_LIMIT} bytes: it is no file of settings")
    try:
        document: Any = YAML(typ="safe", pure=True).load(io.BytesIO(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{at}: {getattr(error, 'problem', None) or 'this is no YAML'}") from None
    except ODD_SCALARS:
        raise ConfigError(f"{path}: this is no YAML") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a mapping is wanted, lines such as `log: {{level: debug}}`")
    return document


def _convert(document: dict[str, Any], kind: type[T], where: str) -> T:
    _refuse_unknown(document, kind, where, "")
    try:
        return msgspec.convert(document, kind, strict=True, dec_hook=_decode)
    except msgspec.ValidationError as error:
        text, _, at = str(error).partition(" - at `$")
        key = at.rstrip("`").removeprefix(".")
        choices = _choices(kind, key)
        said = f"use one of {', '.join(choices)}" if choices else text.replace("`", "")
        said = said.removeprefix(f"{where.partition(' ')[2]}: ")
        prefix = where if where.startswith("--") or not key else f"{where}: {key}"
        raise ConfigError(f"{prefix}: {said}") from None


def _refuse_unknown(document: dict[Any, Any], kind: type[Any], where: str, above: str) -> None:
    """msgspec refuses them too, but does not say what is allowed."""
    known = _fields(kind)
    for key, value in document.items():
        if key not in known:
            raise ConfigError(f"{where}: {above}{key}: there is no such key; there are {', '.join(known)}")
        inner = known[key]
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            _refuse_unknown(value, inner, where, f"{above}{key}.")


def _fields(kind: type[Any]) -> dict[str, Any]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


def _choices(kind: Any, key: str) -> tuple[str, ...]:
    for word in key.split(".") if key else ():
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return ()
        kind = _fields(kind).get(word.partition("[")[0])
    return tuple(map(str, typing.get_args(kind))) if typing.get_origin(kind) is Literal else ()


def _decode(kind: type[Any], value: object) -> Any:
    try:
        if hasattr(kind, "parse"):
            return kind.parse(value)
        if not isinstance(value, str | Path):
            raise ValueError(f"Expected a string, got {type(value).__name__}")
        return kind(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _encode(value: object) -> Any:
    return str(value)


def _nested(key: str, value: object) -> dict[str, Any]:
    document: dict[str, Any] = {}
    _put(document, key, value)
    return document


def _put(document: dict[str, Any], key: str, value: object) -> None:
    *above, last = key.split(".")
    for word in above:
        document = document.setdefault(word, {})
    document[last] = value
