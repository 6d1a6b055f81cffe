"""Two edges on real sockets: a flow goes on, byte for byte, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.loopback.two_edges import Place, place, until

DATA = random.Random(1).randbytes(1 << 20)


def run(folder: Path, work: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with place(folder) as here:
            await work(here)

    asyncio.run(main())


def test_a_peer_connection_gets_a_standby_circuit_and_goes_on_over_it(tmp_path: Path) -> None:
    async def work(here: Place) -> None:
        flow = await here.agent.open(here.port)
        await until(lambda: here.agent.ways() == 2)
        assert here.agent.leads() == 0 and len(here.connector) == 1
        flow.send(DATA)
        await until(lambda: len(flow.got) > 1000)
        here.freeze(0)
        flow.send(DATA)
        await until(lambda: len(flow.got) == 2 * len(DATA))
        assert bytes(flow.got) == DATA + DATA
        assert here.agent.leads() == 1
        here.thaw(0)
        flow.send(b"after")
        await until(lambda: flow.got.endswith(b"after"))
        assert here.agent.leads() == 1 and not flow.over

    run(tmp_path, work)


def test_an_edge_that_comes_back_as_a_new_process_stands_by(tmp_path: Path) -> None:
    async def work(here: Place) -> None:
        flow = await here.agent.open(here.port)
        await until(lambda: here.agent.ways() == 2)
        await here.stop_edge(0)
        flow.send(DATA)
        await until(lambda: len(flow.got) == len(DATA))
        assert here.agent.leads() == 1
        edge = await here.start_edge(0)
        await until(lambda: edge.circuits.table and here.agent.ways() == 2, 60)
        here.freeze(1)
        flow.send(DATA)
        await until(lambda: len(flow.got) == 2 * len(DATA))
        assert bytes(flow.got) == DATA + DATA
        assert here.agent.leads() == 0 and not flow.over

    run(tmp_path, work)


def test_a_connector_that_ends_takes_its_flows_with_it_at_once(tmp_path: Path) -> None:
    async def work(here: Place) -> None:
        flow = await here.agent.open(here.port)
        await until(lambda: here.agent.ways() == 2)
        await here.connector.close()
        await until(lambda: flow.over)
        await until(lambda: not any(edge.circuits.table for _, edge in here.running.values()))

    run(tmp_path, work)
