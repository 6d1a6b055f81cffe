"""Lists from files and addresses: fetched in the background, kept as they were last good, built aside, swapped whole.

A list that can't be had, or that has turned into something else (a page, an error, nothing), changes nothing: the copy
in the state directory stays in use and the status says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.lists import Kind, ListParser, Report, Syntax
from warren.dnsfilter.core.policy import CompiledPolicy, ListInfo, Policy, PolicyRule
from warren.dnsfilter.core.rules import RuleSet
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.settings import ListSettings
from warren.fabric.core.errors import ConfigError

LIST_MAX_BYTES: Final = 256 << 20
"""Of one list: ten million names."""
FETCH_TIMEOUT_S: Final = 30.0
SAMPLE: Final = 256 << 10
"""Bytes of a new copy that are tried before it is believed to be a list."""
CHUNK: Final = 16 << 10
"""Bytes that are parsed between looks at anything else."""
SWITCH_S: Final = 0.0005
"""How long a building thread keeps the interpreter from the event loop; Python's own 5 ms would delay every query."""
_AGENT: Final = "warren-dns"

log = structlog.get_logger()
Progress = Callable[[str, int, int], None]
"""(list, bytes done, bytes in all)."""


class ListState(msgspec.Struct):
    """What is known of a list. Times are seconds since 1970; kept beside its copy as JSON."""

    name: str
    source: str = ""
    etag: str = ""
    modified: str = ""
    fetched: float = 0.0
    """When the copy in use was had."""
    checked: float = 0.0
    digest: str = ""
    bytes: int = 0
    entries: int = 0
    ignored: int = 0
    problems: list[str] = []
    """The first lines that were not understood."""
    error: str = ""
    """Why the last attempt changed nothing."""


class Copy(msgspec.Struct, frozen=True):
    """A list as it was last good."""

    name: str
    path: Path
    kind: Kind
    syntax: Syntax


Built = tuple[RuleSet, list[Report]]
Building = Callable[[Sequence[Copy]], Built]
"""Builds elsewhere than in a thread of this process."""


class Lists:
    """All lists of a configuration, and the filter that they and the policy make."""

    def __init__(
        self,
        lists: Sequence[ListSettings],
        policy: Policy | None,
        groups: Sequence[str],
        state: Path,
        building: Building | None = None,
    ) -> None:
        """Creates the state directory. ConfigError if the policy names what is not there."""
        self._building = building
        self._lists = tuple(lists)
        self._infos = [ListInfo(entry.name, entry.kind, _categories(entry)) for entry in lists]
        self._policy = policy if policy is not None else block_all(self._infos)
        self._groups = tuple(groups)
        self._directory = state / "lists"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"state: {state}: {error.strerror}; name a directory that can be written to") from None
        self.compile(self._policy)
        self.states = {entry.name: self._read_state(entry) for entry in lists}

    @property
    def policy(self) -> Policy:
        """The one that the next filter is made with."""
        return self._policy

    def compile(self, policy: Policy) -> CompiledPolicy:
        """A policy over these lists. ConfigError if it names what is not there."""
        return CompiledPolicy(policy, self._infos, self._groups)

    def use(self, policy: Policy) -> None:
        """From the next filter on. ConfigError as above."""
        self.compile(policy)
        self._policy = policy

    async def load(self, progress: Progress | None = None) -> Filter:
        """Fetch what is not there yet, and build."""
        missing = [entry for entry in self._lists if not self._copy(entry).exists() or _is_path(entry.source)]
        await self._fetch(missing)
        return await self._build(progress)

    async def refresh(self) -> Filter | None:
        """Ask every source whether there is something new; a new filter, or None if nothing changed."""
        return await self._build(None) if await self._fetch(self._lists) else None

    def due_in(self, interval: float) -> float:
        """Seconds until the list that was looked at longest ago is due."""
        oldest = min((state.checked for state in self.states.values()), default=time.time())
        return max(0.0, oldest + interval - time.time())

    async def _fetch(self, lists: Sequence[ListSettings]) -> bool:
        changed = False
        for entry in lists:
            with _short_switches():
                changed |= await asyncio.to_thread(self._fetch_one, entry)
        return changed

    def _fetch_one(self, entry: ListSettings) -> bool:
        state = self.states[entry.name]
        state.checked = time.time()
        try:
            data = _read_file(entry.source) if _is_path(entry.source) else _read_url(entry.source, state)
            if data is None:
                state.error = ""
                return False
            digest = hashlib.sha256(data).hexdigest()
            if digest != state.digest or not self._copy(entry).exists():
                _refuse_rubbish(entry, data, state)
                _write(self._copy(entry), data)
                state.digest, state.bytes = digest, len(data)
            elif not state.error:
                state.fetched = state.checked
                return False
        except (OSError, ValueError) as error:
            state.error = _words(error)
            log.warning("list not refreshed", list=entry.name, error=state.error)
            self._write_state(entry)
            return False
        state.fetched, state.error = state.checked, ""
        return True

    async def _build(self, progress: Progress | None) -> Filter:
        copies = [Copy(entry.name, self._copy(entry), entry.kind, entry.syntax) for entry in self._lists]
        if self._building is not None:
            rules, reports = await asyncio.to_thread(self._building, copies)
        else:
            with _short_switches():
                rules, reports = await asyncio.to_thread(build, copies, progress)
        for entry, report in zip(self._lists, reports, strict=True):
            state = self.states[entry.name]
            state.entries, state.ignored, state.problems = report.entries, report.ignored, report.errors
            self._write_state(entry)
        return Filter(rules, self.compile(self._policy))

    def _copy(self, entry: ListSettings) -> Path:
        return self._directory / f"{entry.name}.list"

    def _read_state(self, entry: ListSettings) -> ListState:
        state = _state_on_disk(self._directory / f"{entry.name}.json")
        if state is None or state.source != entry.source:
            self._copy(entry).unlink(missing_ok=True)
            state = ListState(entry.name, entry.source)
        return state

    def _write_state(self, entry: ListSettings) -> None:
        _write(self._directory / f"{entry.name}.json", msgspec.json.encode(self.states[entry.name]))


def build(copies: Sequence[Copy], progress: Progress | None = None) -> Built:
    """The rule set of all of them, and what came of each. Some 3 s of processor for a million names."""
    sizes = [copy.path.stat().st_size if copy.path.exists() else 0 for copy in copies]
    builder, reports = Builder(sum(_lines_in(copy.path, size) for copy, size in zip(copies, sizes, strict=True))), []
    for copy, size in zip(copies, sizes, strict=True):
        parser = ListParser(builder, copy.name, copy.kind, copy.syntax)
        if size:
            for done, chunk in _chunks(copy.path):
                parser.feed(chunk)
                if progress is not None:
                    progress(copy.name, done, size)
        reports.append(parser.end())
    return builder.finish(), reports


def block_all(infos: Sequence[ListInfo]) -> Policy:
    """The policy of who wrote none: what is on a block list is blocked for everybody."""
    categories = sorted({category for info in infos if info.kind == "block" for category in info.categories})
    rules = (PolicyRule("lists", "block", categories=tuple(categories)),) if categories else ()
    return Policy(rules=rules)


def read_states(state: Path, lists: Sequence[ListSettings]) -> list[ListState]:
    """What a running or past server wrote down of the lists."""
    return [_state_on_disk(state / "lists" / f"{entry.name}.json") or ListState(entry.name) for entry in lists]


def _state_on_disk(path: Path) -> ListState | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ListState)
    except (OSError, msgspec.MsgspecError):
        return None


def _categories(entry: ListSettings) -> tuple[str, ...]:
    return entry.categories or ((entry.name,) if entry.kind == "block" else ())


def _is_path(source: str) -> bool:
    return not source.startswith(("http://", "https://"))


def _read_file(source: str) -> bytes:
    path = Path(source)
    if path.stat().st_size > LIST_MAX_BYTES:
        raise ValueError(f"larger than {LIST_MAX_BYTES >> 20} MiB")
    return path.read_bytes()


def _read_url(source: str, state: ListState) -> bytes | None:
    """The list, or None: as it was (RFC 9110, section 13.1)."""
    request = urllib.request.Request(source, headers={"User-Agent": _AGENT})  # noqa: S310 - http and https only
    if state.etag and state.digest:
        request.add_header("If-None-Match", state.etag)
    if state.modified and state.digest:
        request.add_header("If-Modified-Since", state.modified)
    try:
        with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as response:  # noqa: S310 - see above
            data: bytes = response.read(LIST_MAX_BYTES + 1)
            if len(data) > LIST_MAX_BYTES:
                raise ValueError(f"larger than {LIST_MAX_BYTES >> 20} MiB")
            state.etag = response.headers.get("ETag", "")
            state.modified = response.headers.get("Last-Modified", "")
            return data
    except urllib.error.HTTPError as error:
        if error.code == 304:
            return None
        raise ValueError(f"the server said {error.code} {error.reason}") from None


def _refuse_rubbish(entry: ListSettings, data: bytes, state: ListState) -> None:
    """A page, or nothing where there was something, is no new version of a list."""
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        state.etag = state.modified = ""
        raise ValueError("a page came instead of a list")
    if (not data or data.isspace()) and state.entries:
        state.etag = state.modified = ""
        raise ValueError("an empty list came")
    parser = ListParser(Builder(), entry.name, entry.kind, entry.syntax)
    for at in range(0, min(len(data), SAMPLE), CHUNK):
        parser.feed(data[at : at + CHUNK])
    report = parser.end()
    if not report.entries and (state.entries or report.errors):
        state.etag = state.modified = ""
        raise ValueError("not one line of it is understood")


def _lines_in(path: Path, size: int) -> int:
    """About how many, and some more: a table that has to grow is there twice for a moment, one too large for good."""
    if not size:
        return 0
    with path.open("rb") as file:
        begin = file.read(SAMPLE)
    return int(size / len(begin) * (begin.count(b"\n") + 1) * 1.05)


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            done += len(chunk)
            yield done, chunk


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    aside = path.with_suffix(path.suffix + ".new")
    aside.write_bytes(data)
    aside.replace(path)


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(reason)[:200]


@contextmanager
def _short_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
