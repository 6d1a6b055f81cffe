"""A policy as one YAML file: read, compared with the one in use, tried, put in use as a whole, and kept.

The file holds what `policy` holds in the resolver's configuration (docs/dns.md), and its expectations beside it. What
is put in use gets the next number and stays on the shelf, so that an older one can come back.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from warren.dnsfilter.core.expectations import Expectation, Outcome, check
from warren.dnsfilter.core.policy import Answer, CompiledPolicy, Policy, PolicyRule
from warren.dnsfilter.core.stages.filtering import Filter
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.settings import ODD_SCALARS

POLICY_MAX_BYTES: Final = 512 << 10
"""Of a file: some thousand rules with comments."""
RULES_MAX: Final = 10_000
KEPT: Final = 50
"""Policies on the shelf; the oldest goes when another one comes."""


class PolicyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says."""

    answer: Answer = "nxdomain"
    rules: tuple[PolicyRule, ...] = ()
    rebinding: bool = True
    rebinding_except: tuple[str, ...] = ()
    expectations: tuple[Expectation, ...] = ()

    @property
    def policy(self) -> Policy:
        return Policy(self.rules, self.answer, self.rebinding, self.rebinding_except)


class Revision(msgspec.Struct, frozen=True):
    """A policy that is or was in use."""

    number: int
    applied: int
    """Unix time in seconds."""
    text: str
    """The file, with its comments."""
    note: str = ""


class Shelf(Protocol):
    """Where policies are kept."""

    async def revisions(self) -> list[Revision]:
        """Newest first; the first one is in use."""

    async def keep(self, text: str, applied: int, note: str) -> Revision:
        """As the newest."""


class Trial(msgspec.Struct, frozen=True):
    """What a policy would change, and whether its expectations hold."""

    changes: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    filter: Filter

    @property
    def broken(self) -> list[str]:
        """Expectations that do not hold, in words."""
        return [outcome.text for outcome in self.outcomes if not outcome.holds]


class PolicyBook:
    """The policy in use, and the ones before it. `compile` checks a policy against lists and upstreams; `use` puts a
    filter in use; `current` gives the one in use, with the lists as they are now."""

    def __init__(
        self,
        shelf: Shelf,
        initial: PolicyDocument,
        compile: Callable[[Policy], CompiledPolicy],
        current: Callable[[], Filter],
        use: Callable[[Policy, Filter], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.document = initial
        self.revision: Revision | None = None
        """None: nobody has applied one."""
        self._shelf = shelf
        self._compile = compile
        self._current = current
        self._use = use
        self._now = now
        self._order = asyncio.Lock()

    async def load(self) -> PolicyDocument:
        """The newest on the shelf, as it was: its expectations are not tried. ConfigError if it fits no more."""
        newest = next(iter(await self._shelf.revisions()), None)
        if newest is not None and newest != self.revision:
            document = parse(newest.text, f"policy {newest.number}")
            self._compile(document.policy)
            self.document, self.revision = document, newest
        return self.document

    def attempt(self, document: PolicyDocument) -> Trial:
        """What it would come to. ConfigError: it names a list, upstreams or a time zone that are not there."""
        trial = Filter(self._current().rules, self._compile(document.policy))
        outcomes = check(document.expectations, trial)
        return Trial(tuple(changes(self.document, document)), tuple(outcomes), trial)

    async def apply(self, text: str, note: str = "") -> tuple[Trial, Revision]:
        """Put it in use as a whole, and keep it. ConfigError if it can't be, or an expectation does not hold."""
        async with self._order:
            document = parse(text, "policy")
            trial = self.attempt(document)
            if trial.broken:
                raise ConfigError(f"policy: {trial.broken[0]}; nothing was changed")
            revision = await self._shelf.keep(text, int(self._now()), note)
            if revision != self.revision:
                self.document, self.revision = document, revision
                self._use(document.policy, trial.filter)
            return trial, revision

    def follow(self, newest: Revision | None) -> None:
        """Puts in use what was applied elsewhere, on the same shelf; its expectations are not tried again. ConfigError
        if it does not fit here: then the one before stays."""
        if newest is not None and newest != self.revision:
            document = parse(newest.text, f"policy {newest.number}")
            compiled = self._compile(document.policy)
            self.document, self.revision = document, newest
            self._use(document.policy, Filter(self._current().rules, compiled))

    async def history(self) -> list[Revision]:
        return await self._shelf.revisions()

    async def text(self, number: int | None = None) -> str:
        """The file of that number; of the one in use by default. ConfigError if there is none."""
        if number is None:
            return self.revision.text if self.revision is not None else written(self.document)
        kept = await self._shelf.revisions()
        found = next((revision.text for revision in kept if revision.number == number), None)
        if found is None:
            there = ", ".join(str(revision.number) for revision in kept[:10]) or "none"
            raise ConfigError(f"there is no policy {number}; there are {there}")
        return found

    async def rollback(self, number: int | None = None) -> tuple[Trial, Revision]:
        """Put an older one in use again, by default the one before; it becomes the newest."""
        if number is None:
            kept = await self._shelf.revisions()
            if len(kept) < 2:
                raise ConfigError("there is no policy before this one")
            number = kept[1].number
        return await self.apply(await self.text(number), f"back to {number}")


class DirectoryShelf:
    """Policies as files of a directory, named by number; for a resolver on its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def revisions(self) -> list[Revision]:
        return await asyncio.to_thread(self._read)

    async def keep(self, text: str, applied: int, note: str) -> Revision:
        return await asyncio.to_thread(self._write, text, applied, note)

    def _read(self) -> list[Revision]:
        found = []
        for path in self._directory.glob("*.json"):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Revision))
            except (OSError, msgspec.MsgspecError):
                continue
        return sorted(found, key=lambda revision: -revision.number)

    def _write(self, text: str, applied: int, note: str) -> Revision:
        kept = self._read()
        revision = Revision(kept[0].number + 1 if kept else 1, applied, text, note)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            aside = self._directory / f"{revision.number:06}.new"
            aside.write_bytes(msgspec.json.encode(revision))
            os.replace(aside, self._path(revision))
            for old in kept[KEPT - 1 :]:
                self._path(old).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._directory}: {error.strerror}; the policy was not kept, nor used") from None
        return revision

    def _path(self, revision: Revision) -> Path:
        return self._directory / f"{revision.number:06}.json"


def parse(text: str | bytes, where: str) -> PolicyDocument:
    """ConfigError: one line, with the path of the key."""
    data = text.encode() if isinstance(text, str) else text
    if len(data) > POLICY_MAX_BYTES:
        raise ConfigError(f"{where}: longer than {POLICY_MAX_BYTES} bytes")
    try:
        plain: Any = YAML(typ="safe", pure=True).load(io.BytesIO(data))
        document = msgspec.convert(plain or {}, PolicyDocument, strict=True)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{where}{at}: {getattr(error, 'problem', None) or 'no YAML'}") from None
    except (msgspec.ValidationError, *ODD_SCALARS) as error:
        raise ConfigError(f"{where}: {_one_line(error)}") from None
    names = [rule.name for rule in document.rules]
    if len(names) > RULES_MAX:
        raise ConfigError(f"{where}: rules: {len(names)} of them, {RULES_MAX} are allowed")
    twice = next((name for name, count in _counted(names).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"{where}: rules: {twice!r} is there twice; give each rule a name of its own")
    return document


def written(document: PolicyDocument) -> str:
    """As a file, where nobody wrote one."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(_without_defaults(msgspec.to_builtins(document)), out)
    return out.getvalue() if document != PolicyDocument() else "rules: []\n"


def changes(old: PolicyDocument, new: PolicyDocument) -> Iterable[str]:
    """What differs, a line each: `+` comes, `-` goes, `~` is another, `>` stands elsewhere in the order."""
    before = {rule.name: rule for rule in old.rules}
    after = {rule.name: rule for rule in new.rules}
    for field in ("answer", "rebinding", "rebinding_except"):
        if getattr(old, field) != getattr(new, field):
            yield f"~ {field}: {_said(getattr(old, field))} -> {_said(getattr(new, field))}"
    yield from (f"- rule {name}" for name in before if name not in after)
    for place, rule in enumerate(new.rules, 1):
        was = before.get(rule.name)
        if was is None:
            yield f"+ rule {rule.name} (place {place}): {_said(_without_defaults(msgspec.to_builtins(rule)))}"
        elif was != rule:
            yield f"~ rule {rule.name}: {'; '.join(_rule_changes(was, rule))}"
    kept_before = [name for name in before if name in after]
    kept_after = [name for name in after if name in before]
    if kept_before != kept_after:
        yield f"> order: {', '.join(kept_after)}"
    gone = len(set(old.expectations) - set(new.expectations))
    come = len(set(new.expectations) - set(old.expectations))
    if gone or come:
        yield f"~ expectations: {come} more, {gone} fewer"


def _rule_changes(old: PolicyRule, new: PolicyRule) -> Iterable[str]:
    for field in PolicyRule.__struct_fields__:
        was, is_ = (_shown(msgspec.to_builtins(getattr(rule, field))) for rule in (old, new))
        if was != is_:
            yield f"{field} {was} -> {is_}"


def _shown(value: Any) -> str:
    return _said(_without_defaults(value) if isinstance(value, dict) else value)


def _said(value: Any) -> str:
    """As one line of YAML would have it, nearly."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_said(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_said, value)) + "]"
    return "none" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)


def _without_defaults(value: Any) -> Any:
    """What says nothing is left out of a mapping."""
    if isinstance(value, dict):
        inner = {key: _without_defaults(held) for key, held in value.items()}
        return {key: held for key, held in inner.items() if held not in (None, "", [], {}, ())}
    return [_without_defaults(held) for held in value] if isinstance(value, list | tuple) else value


def _counted(names: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _one_line(error: Exception) -> str:
    text, _, at = str(error).partition(" - at `$")
    key = at.rstrip("`").removeprefix(".")
    return f"{key}: {text}" if key else text
