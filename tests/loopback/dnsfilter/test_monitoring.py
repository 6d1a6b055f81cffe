"""/ready and /metrics of a resolver that stands alone."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.loopback.dnsfilter.test_server import Running, command, run
from warren.dnsfilter.settings import parse
from warren.fabric.core.errors import ConfigError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def page(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    said = (await reader.read()).decode()
    writer.close()
    return said


def test_counters_per_verdict_transport_upstream_and_list(tmp_path: Path) -> None:
    port = free_port()

    async def case(under_test: Running) -> None:
        ready = await page(port, "/ready")
        assert ready.startswith("HTTP/1.1 200") and '"ready": true' in ready
        kdig = ("kdig", "@127.0.0.1", "-p", str(under_test.ports[0]))
        for words in ((*kdig, "x.ads.example"), (*kdig, "www.example"), (*kdig, "+tcp", "www.example")):
            await command(*words)
        metrics = await page(port, "/metrics")
        for line in (
            'warren_dns_queries_total{verdict="blocked"} 1',
            'warren_dns_queries_total{verdict="forwarded"} 1',
            'warren_dns_queries_total{verdict="cached"} 1',
            'warren_dns_received_total{transport="udp"} 2',
            'warren_dns_received_total{transport="tcp"} 1',
            f'warren_dns_upstream_answered_total{{upstream="127.0.0.1:{under_test.upstream.port}"}} 1',
            'warren_dns_list_entries{list="ads"} 2',
            'warren_dns_list_failed{list="ads"} 0',
        ):
            assert line in metrics, metrics
        assert "example" not in metrics  # no names of users' traffic

    run(tmp_path, case, f'metrics: "127.0.0.1:{port}"')


def test_an_address_that_is_none_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^dns.yaml: metrics: [^\n]+$"):
        parse(b"metrics: here\n", "dns.yaml")


@pytest.mark.parametrize("mode", ["upstream", "{mode: upstream}"])
def test_nobody_is_believed_in_the_clear(mode: str) -> None:
    with pytest.raises(ConfigError, match="tls:// or https://"):
        parse(f"dnssec: {mode}\nupstreams: [192.0.2.1]\n".encode(), "dns.yaml")
    parse(f"dnssec: {mode}\nupstreams: ['tls://192.0.2.1#a.example', 'https://192.0.2.2#b.example']\n".encode(), "d")
