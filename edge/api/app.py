"""The admin API: everything that `warren` prints and changes at an edge, as JSON under /v1.

Who may open the Unix socket may do everything; that file's mode is the only door (server.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from warren.edge.api import devices, edges, errors, routes, tunnels
from warren.edge.api import dns as dns_part
from warren.edge.api.context import Context, Identity
from warren.edge.api.live import Live
from warren.edge.dns.service import DnsService
from warren.edge.store.repository import Repository


def create_app(
    repository: Repository,
    live: Live,
    identity: Identity,
    now: Callable[[], float] = time.time,
    dns: DnsService | None = None,
) -> FastAPI:
    """The API as an ASGI app; it runs in the event loop of `repository`. Without `dns` nothing is under /v1/dns."""
    context = Context(repository, live, identity, now)
    app = FastAPI(title="Warren", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app)
    for part in (tunnels, routes, devices, edges):
        app.include_router(part.router(context))
    if dns is not None:
        app.include_router(dns_part.router(context, dns))

    @app.get("/v1/info", response_model=None)
    async def info() -> dict[str, Any]:
        snapshot, known = repository.snapshot, edges.known(context)
        return {
            "network": identity.fingerprint,
            "edges": [str(edge) for edge in known.edges] if known else list(identity.edges),
            "store": repository.database,
            "epoch": snapshot.epoch,
            "revision": snapshot.revision,
        }

    return app
