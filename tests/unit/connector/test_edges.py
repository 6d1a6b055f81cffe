"""Which edges a connector attaches to, as the network's list changes: by an edge's word, or by another token."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.fabric.identity.world import World
from warren.connector.app import Connector
from warren.connector.config import ConnectorConfig
from warren.fabric.aio.edges import ATTACHED, serving
from warren.fabric.aio.node import Node
from warren.fabric.identity import statements
from warren.fabric.identity.statements import Edge, EdgeList

pytestmark = pytest.mark.anyio


class Network(World):
    """Its list of edges has as many as wanted."""

    def list(self, revision: int, count: int) -> EdgeList:
        edges = tuple(Edge(f"{number:020}", "192.0.2.1", 4433 + number) for number in range(count))
        self.edges = EdgeList(revision, edges)
        self.signed_edges = statements.sign_edges(self.network_key, self.edges)
        return self.edges


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
async def connector(network: Network, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connector]:
    monkeypatch.setattr(Node, "start", lambda self: None)
    network.list(1, 2)
    made = Connector(ConnectorConfig(), str(network.token()))
    yield made
    await made.close()


def edges(connector: Connector) -> set[Edge]:
    assert [one.edge for one in connector._presences.all] == [node.edge for node in connector.nodes]
    return {node.edge for node in connector.nodes}


async def test_all_of_few_and_some_of_many(network: Network, connector: Connector) -> None:
    assert edges(connector) == set(network.edges.edges)
    many = network.list(2, 8)
    connector.edges(network.signed_edges)
    assert edges(connector) == set(serving(network.tunnel, many).edges)
    assert len(edges(connector)) == ATTACHED
    few = network.list(3, 1)
    connector.edges(network.signed_edges)
    assert edges(connector) == set(few.edges)


async def test_a_list_in_another_token_is_followed(network: Network, connector: Connector) -> None:
    more = network.list(2, 3)
    connector.reread(lambda: str(network.token()))
    assert connector._renewing is not None
    await connector._renewing
    assert edges(connector) == set(more.edges)


async def test_an_older_list_is_not(network: Network, connector: Connector) -> None:
    network.list(5, 3)
    connector.edges(network.signed_edges)
    before = edges(connector)
    network.list(4, 1)
    connector.edges(network.signed_edges)
    connector.reread(lambda: str(network.token()))
    assert connector._renewing is not None
    await connector._renewing
    assert edges(connector) == before
