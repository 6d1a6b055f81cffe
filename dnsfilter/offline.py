"""What a resolver on its own has, for commands that ask about it: its settings, its rules, its policies."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import typer

from warren.dnsfilter.app import policy_book
from warren.dnsfilter.policies import PolicyBook
from warren.dnsfilter.refresh import Lists
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.server import split_address
from warren.dnsfilter.settings import RESOLV_CONF, ListSettings, Settings, load, nameservers
from warren.dnsfilter.trust import Trust
from warren.fabric.core.errors import ConfigError

PORT_FOR_ALL: Final = 5353
"""Where one listens who may not use port 53."""


def settings_of(
    config: Path | None,
    listen: list[str] | None = None,
    upstream: list[str] | None = None,
    state: Path | None = None,
    lists: list[str] | None = None,
) -> Settings:
    """What the file says, with what the command line says instead. `lists`: paths or URLs, all of one category."""
    settings = load(config) if config is not None else Settings()
    changes: dict[str, object] = {}
    if listen:
        changes["listen"] = tuple(listen)
    if upstream:
        changes["upstreams"] = tuple(upstream)
    if state is not None:
        changes["state"] = str(state)
    if lists:
        changes["lists"] = tuple(ListSettings(_list_name(source), source) for source in lists)
    if not changes:
        return settings
    changed = msgspec.structs.replace(settings, **changes)
    changed.check()
    return changed


def for_this_host(settings: Settings, path: Path = RESOLV_CONF) -> Settings:
    """With defaults of this host where nothing is said: its own nameservers as upstreams; for who is not root also a
    port and a directory that everybody may use."""
    changes: dict[str, object] = {}
    untold = Settings()
    if os.geteuid() != 0:
        if settings.listen == untold.listen:
            changes["listen"] = (f"127.0.0.1:{PORT_FOR_ALL}",)
        if settings.state == untold.state:
            base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
            changes["state"] = str(Path(base) / "warren" / "dns")
    if not settings.upstreams and "default" not in settings.groups:
        listen = settings.listen if "listen" not in changes else ()
        ours = {host for host, port in map(split_address, listen) if port == 53}
        everywhere = not ours.isdisjoint({"0.0.0.0", "::"})  # noqa: S104 - looked at, not bound
        changes["upstreams"] = tuple(
            server
            for server in nameservers(path)
            if server not in ours and not (everywhere and server.startswith(("127.", "::1")))
        )
    return msgspec.structs.replace(settings, **changes)


def _list_name(source: str) -> str:
    """Letters, digits and dashes out of the end of a path or URL."""
    return re.sub(r"[^A-Za-z0-9]+", "-", source.rstrip("/")).strip("-")[-40:].strip("-") or "list"


async def resolver_of(settings: Settings) -> tuple[Resolver, PolicyBook]:
    """What a server would have after its start, from the lists as they were last good."""
    config = settings.resolver_config()
    held = Lists(settings.lists, settings.policy, tuple(config.groups), Path(settings.state))
    document = await policy_book(settings, held).load()
    held.use(document.policy)
    filter_ = await held.load()
    policies = policy_book(settings, held, filter_)
    await policies.load()
    return Resolver(config, filter=filter_, trust=Trust(settings.upstream_ca)), policies


@contextmanager
def one_line_errors() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        typer.echo(f"warren dns: {error}", err=True)
        raise typer.Exit(2) from None
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
