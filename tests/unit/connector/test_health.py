"""Nobody reaches the connector's own listener through the tunnel, unless it is named."""

from __future__ import annotations

import ipaddress

import pytest

from warren.connector.config import ConnectorConfig
from warren.connector.gate import Ceiling
from warren.connector.health import own_listeners_spared
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.daemon.settings import Endpoint


def refused(listener: str, allow: list[str], address: str, port: int) -> Reason | None:
    ceiling = own_listeners_spared(ConnectorConfig(ceiling=Ceiling.parse(allow), metrics=Endpoint.parse(listener)))
    try:
        ceiling.check(ipaddress.ip_address(address), port)
    except DeniedError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("listener", "allow", "address", "port", "reason"),
    [
        ("10.10.0.2:9310", [], "10.10.0.2", 9310, Reason.RESERVED_ADDRESS),
        ("10.10.0.2:9310", [], "::ffff:10.10.0.2", 9310, Reason.RESERVED_ADDRESS),
        ("10.10.0.2:9310", ["10.10.0.0/16"], "10.10.0.2", 9310, Reason.RESERVED_ADDRESS),
        ("10.10.0.2:9310", ["10.10.0.2/32:9310"], "10.10.0.2", 9310, None),
        ("10.10.0.2:9310", ["10.10.0.2/32:22"], "10.10.0.2", 9310, Reason.RESERVED_ADDRESS),
        ("10.10.0.2:9310", [], "10.10.0.2", 22, None),
        ("10.10.0.2:9310", [], "10.10.0.3", 9310, None),
        ("127.0.0.1:9310", ["127.0.0.0/8"], "127.0.0.1", 9310, Reason.RESERVED_ADDRESS),
        ("127.0.0.1:9310", ["127.0.0.0/8"], "127.0.0.1", 80, None),
        ("0.0.0.0:9310", ["127.0.0.0/8"], "127.0.0.1", 9310, Reason.RESERVED_ADDRESS),
        ("0.0.0.0:9310", [], "203.0.113.77", 9310, None),
        ("[::]:9310", ["::1/128"], "::1", 9310, None),
        ("[::]:9310", ["127.0.0.0/8"], "127.0.0.1", 9310, Reason.RESERVED_ADDRESS),
    ],
)
def test_own_listeners(listener: str, allow: list[str], address: str, port: int, reason: Reason | None) -> None:
    assert refused(listener, allow, address, port) == reason
