"""Adblock syntax for names: `||name^`, `@@`, wildcards, `/regular expressions/`, and the modifiers that mean something
in DNS (AdGuard's knowledge base, "DNS filtering rules syntax"). A rule with any other modifier is ignored, as there:
lists written for browsers would block far too much.
"""

from __future__ import annotations

from typing import Any

from warren.dnsfilter.core.building import Builder, is_pattern
from warren.dnsfilter.core.records import RCODES, address_type, rdata_of, type_of
from warren.dnsfilter.core.rules import LIFT_ALL, Clients, Klass, Rewrite, Rule, Scope
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError
from warren.fabric.core.selectors import Networks


class _Ignored(Exception):
    """A modifier that is not for us."""


def add(text: str, builder: Builder, list_index: int, base: Klass) -> int | None:
    """Add one rule. 1: done; 0: not for us; None: not understood."""
    body = text.removeprefix("@@")
    exception = body is not text and text.startswith("@@")
    pattern, options = _split(body)
    try:
        fields = _options(options, exception)
    except _Ignored:
        return 0
    except (ValueError, ConfigError):
        return None
    important = fields.pop("important", False)
    bad = fields.pop("badfilter", False)
    klass = _klass(base, exception, important)
    name, scope, expression = _target(pattern)
    if (name is None and expression is None) or (pattern in ("", "||", "|") and not fields):
        return None
    if bad:
        others = ",".join(option for option in options if option != "badfilter")
        plain = (name, klass) if name is not None and scope is Scope.TREE and not fields else None
        builder.bad(text[: len(text) - len(body)] + pattern + (f"${others}" if others else ""), plain)
        return 1
    if name is not None and not fields:
        builder.plain(name, list_index, scope, klass)
        return 1
    rule = Rule(list=list_index, klass=klass, text=text, scope=scope, **fields)
    if name is not None:
        return 1 if builder.special(name, rule) else None
    return 1 if expression is not None and is_pattern(expression) and builder.pattern(expression, rule) else None


def _klass(base: Klass, exception: bool, important: bool) -> Klass:
    if base is Klass.TRUSTED:
        return Klass.TRUSTED
    if exception:
        return Klass.SPARED if important else Klass.ALLOW
    return Klass.IMPORTANT if important else Klass.BLOCK


def _split(body: str) -> tuple[str, list[str]]:
    """Pattern and modifiers. A regular expression ends at the last slash that is followed by `$` or by nothing."""
    if body.startswith("/") and len(body) > 1:
        if body.endswith("/"):
            return body, []
        end = body.rfind("/$")
        if end > 0:
            return body[: end + 1], _split_escaped(body[end + 2 :], ",")
    pattern, dollar, options = body.partition("$")
    return pattern, _split_escaped(options, ",") if dollar else []


def _split_escaped(text: str, separator: str) -> list[str]:
    """Split at separators that are neither escaped by a backslash nor within quotes."""
    parts, part, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            part += text[at : at + 2]
            at += 2
            continue
        if char in "'\"":
            quote = "" if quote == char else quote or char
        if char == separator and not quote:
            parts.append(part)
            part = ""
        else:
            part += char
        at += 1
    return [*parts, part]


def _target(pattern: str) -> tuple[bytes | None, Scope, str | None]:
    """(wire name, its scope, None), or (None, _, expression); three times nothing if it is neither."""
    if len(pattern) > 2 and pattern[0] == pattern[-1] == "/":
        return None, Scope.TREE, pattern[1:-1]
    if pattern in ("", "||", "*", "||*^", "||*", "*^", "|*^", "|*"):
        return b"\x00", Scope.TREE, None  # everything
    if pattern.startswith("||") and pattern.endswith(("^", "|")):
        name = _name(pattern[2:].rstrip("^|"))
        if name is not None:
            return name, Scope.TREE, None
    elif pattern.startswith("|") and pattern.endswith(("^", "|")):
        name = _name(pattern[1:].rstrip("^|"))
        if name is not None:
            return name, Scope.SELF, None
    return None, Scope.TREE, _expression(pattern)


def _name(text: str) -> bytes | None:
    if not text or "*" in text or "/" in text or ":" in text or "^" in text or "|" in text:
        return None
    try:
        return wire.name_wire(text)
    except ValueError:
        return None


def _expression(pattern: str) -> str | None:
    """A pattern with `*`, anchors or loose ends, as a regular expression over the name."""
    start, end = "", ""
    if pattern.startswith("||"):
        start, pattern = r"(?:^|\.)", pattern[2:]
    elif pattern.startswith("|"):
        start, pattern = "^", pattern[1:]
    stripped = pattern.rstrip("^|")
    if stripped != pattern:
        end = "$"
    if not stripped or any(char in stripped for char in "^|/:?=&") or any(char.isspace() for char in stripped):
        return None
    if not stripped.isascii():
        return None
    literal = "".join(".*" if char == "*" else "\\." if char == "." else char for char in stripped.lower())
    return start + literal + end if all(char.isalnum() or char in "-_.*\\" for char in literal) else None


def _options(options: list[str], exception: bool) -> dict[str, Any]:
    """Fields of a `Rule`, with "important" and "badfilter" beside them."""
    fields: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if key in ("important", "badfilter") and not equals:
            fields[key] = True
        elif key == "dnstype":
            fields |= _types(value)
        elif key == "denyallow":
            fields["denyallow"] = frozenset(wire.name_wire(name) for name in value.split("|") if _no_tilde(name))
        elif key == "client":
            fields |= _clients(value)
        elif key == "ctag":
            tags = value.split("|")
            fields["tags"] = frozenset(tag for tag in tags if tag[:1] != "~")
            fields["not_tags"] = frozenset(tag[1:] for tag in tags if tag[:1] == "~")
        elif key == "dnsrewrite":
            fields["lifts" if exception else "rewrite"] = _rewrite(value, exception)
        else:
            raise _Ignored
    return fields


def _no_tilde(name: str) -> bool:
    if not name or name[0] == "~":
        raise ValueError("denyallow takes names only")
    return True


def _types(value: str) -> dict[str, frozenset[int]]:
    wanted: set[int] = set()
    unwanted: set[int] = set()
    for text in value.split("|"):
        kind = type_of(text.removeprefix("~"))
        if kind is None:
            raise ValueError(f"{text} is no type")
        (unwanted if text[:1] == "~" else wanted).add(kind)
    return {"types": frozenset(wanted), "not_types": frozenset(unwanted)}


def _clients(value: str) -> dict[str, Clients]:
    wanted: list[str] = []
    unwanted: list[str] = []
    for part in _split_escaped(value, "|"):
        target = unwanted if part[:1] == "~" else wanted
        plain = part.removeprefix("~")
        if len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "'\"":
            plain = plain[1:-1]
        for escaped in "\\'", '\\"', "\\,", "\\|":
            plain = plain.replace(escaped, escaped[1])
        if not plain:
            raise ValueError("a client without a name")
        target.append(plain)
    fields = {}
    if wanted:
        fields["clients"] = _client_set(wanted)
    if unwanted:
        fields["not_clients"] = _client_set(unwanted)
    return fields


def _client_set(values: list[str]) -> Clients:
    names, networks = [], []
    for value in values:
        try:
            Networks([value])
            networks.append(value)
        except ConfigError:
            names.append(value)
    return Clients(frozenset(names), Networks(networks) if networks else None)


def _rewrite(value: str, exception: bool) -> Rewrite:
    if not value:
        if exception:
            return LIFT_ALL
        raise ValueError("dnsrewrite without a value")
    if value in RCODES:
        return Rewrite(rcode=RCODES[value])
    if ";" not in value:
        try:
            kind, rdata = address_type(value)
        except ValueError:
            return Rewrite(cname=wire.name_wire(value))
        return Rewrite(type=kind, rdata=rdata)
    rcode, kind_text, data = value.split(";", 2)
    if rcode not in RCODES:
        raise ValueError(f"{rcode} is no response code")
    if RCODES[rcode] or not kind_text:
        return Rewrite(rcode=RCODES[rcode])
    kind_number = type_of(kind_text)
    if kind_number is None:
        raise ValueError(f"{kind_text} is no type")
    if kind_number == wire.CNAME:
        return Rewrite(cname=wire.name_wire(data))
    return Rewrite(type=kind_number, rdata=rdata_of(kind_number, data))
