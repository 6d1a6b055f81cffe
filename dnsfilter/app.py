"""Puts the resolver together as a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import structlog

from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.expectations import check
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.policies import DirectoryShelf, PolicyBook, PolicyDocument
from warren.dnsfilter.querylog import QueryLog
from warren.dnsfilter.refresh import Lists, Progress
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.server import Server
from warren.dnsfilter.settings import Settings, TlsSettings
from warren.dnsfilter.trust import Trust
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.health import Health, serve_health
from warren.fabric.daemon.metrics import Family
from warren.fabric.daemon.settings import Endpoint

JITTER: Final = 0.1
"""Share of the interval by which refreshes are spread, so that not everybody asks a list's server at the hour."""

log = structlog.get_logger()


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    progress: Progress | None = None,
    ready: Callable[[list[int]], None] | None = None,
    refresh_now: asyncio.Event | None = None,
) -> None:
    """Load the lists, listen, and refresh until `stop` is set. `ready` is told the ports."""
    config, state = settings.resolver_config(), Path(settings.state)
    lists = Lists(settings.lists, settings.policy, tuple(config.groups), state)
    trust = Trust(settings.upstream_ca)
    policies = policy_book(settings, lists)
    lists.use((await policies.load()).policy)
    filter_ = _as_expected(policies.document, await lists.load(progress))
    resolver = Resolver(config, filter=filter_, trust=trust)
    query_log = QueryLog(settings.log, state) if settings.log.enabled else None
    server = Server(resolver, ClientBook(settings.clients), settings.limit, query_log)
    background: list[asyncio.Task[None]] = []
    try:
        ports = [await server.listen(address) for address in settings.listen]
        if settings.tls is not None:
            context = _context("tls", settings.tls, "dot")
            ports += [await server.listen_tls(address, context) for address in settings.tls.listen]
        if settings.https is not None:
            context = _context("https", settings.https, "h2")
            ports += [await server.listen_https(address, context) for address in settings.https.listen]
        now = refresh_now or asyncio.Event()
        background.append(asyncio.create_task(_refresh(settings, lists, policies, resolver, now)))
        if query_log is not None:
            background.append(asyncio.create_task(query_log.run()))
        async with _monitoring(settings.metrics, server, lists):
            log.info("resolver ready", ports=ports, lists=len(settings.lists))
            if ready is not None:
                ready(ports)
            await stop.wait()
    finally:
        await server.close()
        await resolver.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


@contextlib.asynccontextmanager
async def _monitoring(address: str, server: Server, lists: Lists) -> AsyncIterator[None]:
    """/ready and /metrics while the block runs, where an address is given. Ready: it answers, which it does by now."""
    if not address:
        yield
        return

    async def ready() -> tuple[bool, dict[str, Any]]:
        troubled = sorted(name for name, state in lists.states.items() if state.error)
        return True, {"lists": len(lists.states), "lists_with_errors": troubled}

    async with serve_health(Endpoint.parse(address), Health(ready, lambda: [*server.families(), *_of_lists(lists)])):
        yield


def _of_lists(lists: Lists) -> list[Family]:
    """Labels are the names that the configuration gives them."""
    states, now = sorted(lists.states.items()), time.time()
    return [
        Family(name, "gauge", text, tuple(({"list": list_name}, value(state)) for list_name, state in states))
        for name, text, value in (
            ("warren_dns_list_entries", "Entries of the list.", lambda state: state.entries),
            ("warren_dns_list_age_seconds", "Since the copy in use was had.", lambda state: round(now - state.fetched)),
            ("warren_dns_list_failed", "The last attempt to refresh it failed.", lambda state: int(bool(state.error))),
        )
    ]


def policy_book(settings: Settings, lists: Lists, current: Filter | None = None) -> PolicyBook:
    """The policies that were applied to a resolver; before the first one, what its configuration says."""
    said = lists.policy
    initial = PolicyDocument(said.answer, said.rules, said.rebinding, said.rebinding_except, settings.expectations)
    empty = current or Filter(Builder().finish(), lists.compile(said))
    shelf = DirectoryShelf(Path(settings.state) / "policies")
    return PolicyBook(shelf, initial, lists.compile, lambda: empty, lambda policy, tried: lists.use(policy))


def _as_expected(document: PolicyDocument, filter_: Filter) -> Filter:
    for outcome in check(document.expectations, filter_):
        if not outcome.holds:
            raise ConfigError(f"policy: {outcome.text}; correct the rules or the expectation")
    return filter_


async def _refresh(
    settings: Settings, lists: Lists, policies: PolicyBook, resolver: Resolver, now: asyncio.Event
) -> None:
    interval = settings.refresh_hours * 3600
    wait = lists.due_in(interval)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await now.wait()
        now.clear()
        await _read_policy(lists, policies, resolver)
        wait = interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        filter_ = await lists.refresh()
        if filter_ is None:
            continue
        try:
            resolver.slot.current = _as_expected(policies.document, filter_)
            log.info("lists refreshed")
        except ConfigError as error:
            log.warning("new lists not used", error=str(error))


async def _read_policy(lists: Lists, policies: PolicyBook, resolver: Resolver) -> None:
    """One that `warren dns policy apply` has put on the shelf since."""
    before = policies.revision
    try:
        document = await policies.load()
        if policies.revision == before:
            return
        lists.use(document.policy)
    except ConfigError as error:
        log.warning("policy not used", error=str(error))
        return
    resolver.slot.current = Filter(resolver.slot.current.rules, lists.compile(document.policy))
    log.info("policy in use", number=policies.revision.number if policies.revision else 0)


def _context(key: str, settings: TlsSettings, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{key}: {error.strerror or error}; give certificate and key as PEM files") from None
    return context
