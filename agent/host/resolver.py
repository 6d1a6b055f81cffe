"""Pointing the system's resolver at the agent, and putting back what was there.

`ResolvConf` does it by the file; where programs ask systemd-resolved, `Resolved` does it by the domains of a link.
`SystemResolver` is their face; `open_resolver` chooses.

The file is replaced by rename where that works; where it is a mount point (containers) it is written in place. Another
program may write it while the agent runs: then it is that program's, and is left alone.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, Protocol

from warren.agent.host.journal import Journal, Undo
from warren.agent.host.undo import RESOLV_CONF
from warren.fabric.core.errors import ConfigError

RESOLV_CONF_PATH = Path("/etc/resolv.conf")
MAX_SIZE = 65_536
"""Bytes of a resolv.conf that is put back; real ones have some hundred. It stands in the journal whole."""
MAX_NAMESERVERS = 3  # what the C library reads (MAXNS in resolv.h)

MAX_SEARCH = 6  # what every C library takes (resolv.conf(5))

_BANNER = "# Written by the Warren agent, which puts back what was here when it stops.\n"
_KEPT = ("search", "domain", "options", "sortlist")


@dataclass(frozen=True, slots=True)
class Previous:
    """What was there: the resolvers to ask for names that are not ours."""

    nameservers: tuple[str, ...]
    search: tuple[str, ...] = ()


class SystemResolver(Protocol):
    """A way to make the system ask the agent. Blocking calls."""

    way: str
    """In words, for status."""

    def install(self, domains: tuple[str, ...] = (), search: tuple[str, ...] = ()) -> Previous:
        """Point the system at the agent, for names below `domains` at least; short names are completed with the domains
        of `search`, too. `ConfigError` if that is not possible."""

    def follow(self, domains: tuple[str, ...], search: tuple[str, ...] = ()) -> Previous:
        """Other domains lead to the agent now, perhaps, and other resolvers are there beside it. `ConfigError`."""

    def still_ours(self) -> bool:
        """False if another program has changed the setting since."""

    def undo(self) -> str | None:
        """Put back what was there; a note for the log if it was left as it is."""


def open_resolver(
    journal: Journal, nameserver: IPv4Address, interface: str, path: Path = RESOLV_CONF_PATH
) -> SystemResolver:
    """The way that suits this host. `interface`: the TUN, whose link systemd-resolved is told about."""
    from warren.agent.host import resolved  # it needs `Previous` of this module

    if resolved.is_asked(path):
        return resolved.Resolved(journal, nameserver, interface)
    return ResolvConf(journal, nameserver, path)


class ResolvConf:
    """The file. Blocking calls, some file operations each. All names come to the agent, whatever the domains."""

    way = "set"

    def __init__(self, journal: Journal, nameserver: IPv4Address, path: Path = RESOLV_CONF_PATH) -> None:
        self._journal = journal
        self._nameserver = nameserver
        self._path = path
        self._search: tuple[str, ...] = ()
        self._number = 0
        self._ours = b""
        self._previous = Previous(())

    def install(self, domains: tuple[str, ...] = (), search: tuple[str, ...] = ()) -> Previous:
        """See `SystemResolver`."""
        self._search = search
        try:
            content = _read(self._path)
            undo: Undo = {"kind": RESOLV_CONF, "path": str(self._path.absolute()), "previous": _describe(self._path)}
            self._ours = render(content, self._nameserver, self._search)
            undo["ours"] = base64.b64encode(self._ours).decode()
            with self._journal.change(undo) as self._number:
                _write(self._path, self._ours, 0o644, os.geteuid(), os.getegid())
        except OSError as error:
            raise ConfigError(f"can't write {self._path}: {error.strerror}") from error
        self._previous = previous(content, self._nameserver)
        return self._previous

    def follow(self, domains: tuple[str, ...], search: tuple[str, ...] = ()) -> Previous:
        """See `SystemResolver`."""
        if search != self._search and self.still_ours():
            self.undo()
            return self.install(domains, search)
        return self._previous

    def still_ours(self) -> bool:
        """See `SystemResolver`."""
        try:
            return not self._path.is_symlink() and _read(self._path) == self._ours
        except (OSError, ConfigError):
            return False

    def undo(self) -> str | None:
        """See `SystemResolver`. OSError if the file can't be written (its undo stays in the journal)."""
        return self._journal.undo(self._number)


def render(content: bytes, nameserver: IPv4Address, search: tuple[str, ...] = ()) -> bytes:
    """Our file: one nameserver, and the lines of the previous one that say how names are completed and asked for.

    `search` comes behind the domains that are there.
    """
    lines = content.decode(errors="surrogateescape").splitlines()
    kept = [line.strip() for line in lines if line.split()[:1] and line.split()[0] in _KEPT]
    if search:
        domains = dict.fromkeys((*previous(content, nameserver).search, *search))
        kept = [line for line in kept if line.split()[0] not in ("search", "domain")]
        kept.append("search " + " ".join(list(domains)[:MAX_SEARCH]))
    text = _BANNER + f"nameserver {nameserver}\n" + "".join(f"{line}\n" for line in kept)
    return text.encode(errors="surrogateescape")


def previous(content: bytes, ours: IPv4Address) -> Previous:
    """The nameservers (address as text, IPv6 perhaps with its zone) and search list of a resolv.conf. Total."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in content.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and words[1] != str(ours) and _is_address(words[1]):
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])  # the last one counts (resolv.conf(5))
    return Previous(tuple(servers[:MAX_NAMESERVERS]), search)


def restore(undo: Undo) -> str | None:
    """Put back what `undo` describes, unless the file is no longer ours: then a note. OSError if that fails."""
    path, before = Path(undo["path"]), undo["previous"]
    ours = base64.b64decode(undo["ours"])
    now = _describe(path)
    if now == before:
        return None  # the change was never made, or has been undone
    if now["type"] != "file" or not ours.startswith(base64.b64decode(now["content"])):
        # (A beginning of ours is what a crash leaves that came while writing in place.)
        return f"{path} was changed by another program and is left as it is"
    if before["type"] == "symlink":
        _replace_by_link(path, before["target"])
    elif before["type"] == "absent":
        path.unlink()
    else:
        _write(path, base64.b64decode(before["content"]), before["mode"], before["uid"], before["gid"])
    return None


def _describe(path: Path) -> dict[str, Any]:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return {"type": "absent"}
    if stat.S_ISLNK(status.st_mode):
        return {"type": "symlink", "target": str(path.readlink())}
    content = base64.b64encode(_read(path)).decode()
    mode = stat.S_IMODE(status.st_mode)
    return {"type": "file", "content": content, "mode": mode, "uid": status.st_uid, "gid": status.st_gid}


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        return b""  # also a link that leads nowhere
    if len(content) > MAX_SIZE:
        raise ConfigError(f"{path} is longer than {MAX_SIZE} bytes, so it is not replaced: shorten it")
    return content


def _write(path: Path, content: bytes, mode: int, uid: int, gid: int) -> None:
    fresh = path.with_name(path.name + ".warren")
    try:
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        # A mount point (EBUSY), or a directory that can't be written: in place, if at all.
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        with path.open("r+b") as file:
            file.truncate(0)
            os.write(file.fileno(), content)


def _replace_by_link(path: Path, target: str) -> None:
    fresh = path.with_name(path.name + ".warren")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(path)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
