"""An edge that starts: its store, from the database, or while that is away from the copy that it kept."""

from __future__ import annotations

import asyncio

import structlog

from warren.edge.config import EdgeConfig
from warren.edge.store.copy import FILE, StoreCopy
from warren.edge.store.database import open_store, reach_store
from warren.edge.store.errors import AwayError
from warren.edge.store.repository import Repository
from warren.fabric.daemon.systemd import notify

AGAIN = 2.0
"""Seconds until a database that is away is asked again."""
LONGER = "EXTEND_TIMEOUT_USEC=60000000"
"""To systemd, which would take a start of more than 90 s for a failed one: each try takes a few seconds."""

log = structlog.get_logger()


async def open_or_recall(config: EdgeConfig, own: str, stop: asyncio.Event) -> tuple[Repository, float] | None:
    """The store, and how many seconds ago it was read; None if `stop` came first. `own`: this edge's id. Raises
    ConfigError.

    Without a copy there is nothing to decide by: then it waits for the database.
    """
    where, password = config.store_place(), config.store_password_file
    said = ""
    while not stop.is_set():
        try:
            return await open_store(where, password_file=password), 0.0
        except AwayError as error:
            kept = await asyncio.to_thread(StoreCopy(config.state_dir / FILE, own).read)
            if kept is not None:
                age = round(kept.age, 1)
                log.warning("the store is away: this edge starts from its copy", seconds_old=age, cause=error.cause)
                repository = reach_store(where, password_file=password)
                repository.begin_with(kept.snapshot, kept.tombstones)
                return repository, kept.age
            if error.cause != said:
                said = error.cause
                log.warning("the store is away, and there is no copy of it here: waiting for it", cause=said)
        notify(f"{LONGER}\nSTATUS=waiting for the store: {said}")
        try:
            async with asyncio.timeout(AGAIN):
                await stop.wait()
        except TimeoutError:
            pass
    return None
