"""The network's list of edges as a running edge knows it: from its own file at first, then from the store.

The store has the newest list, put there by `warren edge add | remove`; each edge keeps a copy beside its keys, and
tells it to its nodes.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from warren.edge.state import EDGES, Credentials
from warren.edge.store.errors import cause_of
from warren.edge.store.follow import AWAY
from warren.edge.store.repository import Repository
from warren.fabric.core.errors import DeniedError
from warren.fabric.identity.files import write_private
from warren.fabric.identity.statements import EdgeList, verify_edges

log = structlog.get_logger()


class KnownEdges:
    """Of one edge process. `directory`: its state directory."""

    def __init__(self, credentials: Credentials, directory: Path) -> None:
        self.signed = credentials.signed_edges
        self.edges: EdgeList = credentials.edges
        self._own = credentials.edge.id
        self._network = credentials.network
        self._file = directory / EDGES

    def take(self, signed: bytes) -> bool:
        """Whether this list is newer than the one known; then it is kept. What the network key did not sign is not."""
        if not signed or signed == self.signed:
            return False
        try:
            said = verify_edges(signed, self._network)
        except DeniedError as error:
            log.error("the store holds a list of edges that is not this network's", detail=error.detail)
            return False
        if said.revision <= self.edges.revision:
            return False
        write_private(self._file, signed, replace=True)
        self.signed, self.edges = signed, said
        log.info("edges", revision=said.revision, edges=", ".join(edge.name or edge.id for edge in said.edges))
        if said.find(self._own) is None:
            log.warning("this edge was taken off the network's list: stop it")
        return True

    async def settle(self, repository: Repository) -> None:
        """At the start: the newer of file and store becomes both."""
        found = repository.snapshot.edges
        if self.take(found) or found == self.signed:
            return
        try:
            await repository.set_edges(self.signed, found)
        except AWAY as error:
            log.warning("this edge knows a newer list of edges than the store", cause=cause_of(error))
