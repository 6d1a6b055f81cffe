"""The resolver's life in the edge: lists and policy loaded beside the loop, refreshed, swapped; the query log."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from warren.dnsfilter import logreader
from warren.dnsfilter.app import JITTER
from warren.dnsfilter.core.expectations import check
from warren.dnsfilter.core.policy import CompiledPolicy, Policy
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.explain import question
from warren.dnsfilter.policies import PolicyBook, PolicyDocument, Revision, Shelf
from warren.dnsfilter.querylog import QueryLog
from warren.dnsfilter.refresh import Building, Lists
from warren.dnsfilter.trust import Trust
from warren.edge.dns.settings import DnsSettings
from warren.edge.judge.resolver import JudgeResolver
from warren.edge.store.records import Device
from warren.edge.store.snapshot import Snapshot
from warren.fabric.core.dnswire import name_text, name_wire
from warren.fabric.core.errors import ConfigError

AGAIN: Final = 60.0
"""Seconds until lists that could not be had at the start are asked for again."""

log = structlog.get_logger()


class DnsService:
    """One for an edge. `start` it, `close` it."""

    def __init__(
        self,
        settings: DnsSettings,
        state: Path,
        shelf: Shelf,
        snapshot: Callable[[], Snapshot],
        building: Building | None = None,
    ) -> None:
        """`state`: directory of lists and query log. `building`: where rule sets are built, if not in a thread.
        Raises ConfigError."""
        self._settings = settings = settings.with_upstreams()
        said = settings.resolver(state)
        config = said.resolver_config()
        self._state, self._snapshot = state, snapshot
        self._unfit: Revision | None = None
        self._lists = Lists(settings.lists, None, tuple(config.groups), state, building)
        initial = PolicyDocument(rules=self._lists.policy.rules)
        self.log = QueryLog(said.log, state) if said.log.enabled else None
        self.loaded = asyncio.Event()
        """Set when the lists are in use: nothing is answered through the filter before."""
        self.judge = JudgeResolver(
            config,
            snapshot,
            limit=settings.limit,
            log=self.log,
            trust=Trust(settings.upstream_ca),
            loaded=self.loaded,
        )
        slot = self.judge.slot
        self.policies = PolicyBook(shelf, initial, self._compile, lambda: slot.current, self._use)
        self._refresh_now = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def search(self) -> tuple[str, ...]:
        """Domains that devices complete short names with."""
        return self._settings.search

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones of the settings, each as itself and as a wildcard: devices ask the edge about them."""
        names = [name_text(name_wire(zone.name)).removesuffix(".") for zone in self._settings.zones]
        return tuple(shown for name in names for shown in (name, f"*.{name}"))

    async def start(self) -> None:
        """The policy is checked here, lists are loaded in the background. Raises ConfigError."""
        self.policies.follow(self._snapshot().policy)
        self._lists.use(self.policies.document.policy)
        self._spawn(self._keep_lists())
        if self.log is not None:
            self._spawn(self.log.run())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.judge.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    # ---- policy ----

    def _compile(self, policy: Policy) -> CompiledPolicy:
        return self._lists.compile(policy)

    def _use(self, policy: Policy, tried: Filter) -> None:
        """The lists may have been refreshed since it was tried."""
        self._lists.use(policy)
        self.judge.slot.current = Filter(self.judge.slot.current.rules, tried.policy)
        log.info("policy in use", number=self.policies.revision.number if self.policies.revision else 0)

    def follow(self, snapshot: Snapshot) -> None:
        """The store has changed: a policy that was applied at another edge is used here too."""
        try:
            self.policies.follow(snapshot.policy)
        except ConfigError as error:
            if self._unfit != snapshot.policy:
                log.warning(
                    "a policy applied at another edge does not fit here, the one before stays", cause=str(error)
                )
            self._unfit = snapshot.policy

    def ready_for_policy(self) -> None:
        """Raises ConfigError while expectations about lists could not be tried."""
        if not self.loaded.is_set():
            raise ConfigError("the lists are still being loaded: try again in a moment")

    # ---- lists ----

    async def _keep_lists(self) -> None:
        """Built beside the loop, which only puts the finished set into its place."""
        first = await self._lists.load()
        self._warn_of_broken(first)
        self.judge.slot.current = first
        self.loaded.set()
        log.info("lists loaded", lists=len(self._settings.lists))
        interval = self._settings.refresh_hours * 3600
        wait = self._wait(self._lists.due_in(interval)) if self._settings.lists else interval
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._refresh_now.wait()
            self._refresh_now.clear()
            wait = self._wait(interval * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - no secret
            if (filter_ := await self._lists.refresh()) is None:
                continue
            if not self._warn_of_broken(filter_):
                self.judge.slot.current = filter_
                log.info("lists refreshed")

    def _wait(self, usual: float) -> float:
        missing = any(state.error and not state.fetched for state in self._lists.states.values())
        return min(usual, AGAIN) if missing else usual

    def _warn_of_broken(self, filter_: Filter) -> bool:
        """Whether an expectation does not hold over these lists."""
        broken = [held.text for held in check(self.policies.document.expectations, filter_) if not held.holds]
        if broken:
            log.warning("an expectation of the policy does not hold over the lists as they are", broken=len(broken))
        return bool(broken)

    def refresh(self) -> None:
        """Ask every list's source now."""
        self._refresh_now.set()

    def lists(self) -> list[dict[str, Any]]:
        """What is known of each list."""
        kinds = {entry.name: (entry.kind, entry.categories) for entry in self._settings.lists}
        return [
            msgspec.to_builtins(state) | {"kind": kinds[name][0], "categories": list(kinds[name][1])}
            for name, state in self._lists.states.items()
        ]

    # ---- what is seen ----

    async def explain(self, device: Device, name: str, kind: str, *, ask: bool) -> dict[str, str]:
        """Raises ConfigError: no name, no type."""
        return await self.judge.explain(device, question(name, kind), ask=ask)

    async def read_log(self, cursor: str, last: int, wanted: logreader.Wanted, limit: int) -> logreader.Page:
        """Raises ConfigError where no log is kept."""
        self._require_log()

        def read() -> logreader.Page:
            return logreader.read(
                self._state, cursor or (logreader.last(self._state, last) if last else ""), wanted, limit
            )

        return await asyncio.to_thread(read)

    async def top(self, since: float, count: int) -> dict[str, list[tuple[str, int]]]:
        """Raises ConfigError where no log is kept."""
        self._require_log()
        return await asyncio.to_thread(logreader.top, self._state, since, count)

    def _require_log(self) -> None:
        if self.log is None:
            raise ConfigError("the edge keeps no query log: `dns.log` in edge.yaml says off")
