"""Domains of a link at systemd-resolved, and what is done where it does not answer."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import pytest

from warren.agent.host import resolved
from warren.agent.host.journal import Journal
from warren.agent.host.resolved import DOMAINS_MAX, Resolved, is_asked, reverse_zone, routing_domains
from warren.agent.host.undo import UNDOERS
from warren.fabric.core.errors import ConfigError

OURS = IPv4Address("100.80.0.2")


@pytest.mark.parametrize(
    ("network", "zone"),
    [
        ("10.10.0.0/16", "10.10.in-addr.arpa"),
        ("10.0.0.0/8", "10.in-addr.arpa"),
        ("172.16.0.0/12", "172.in-addr.arpa"),
        ("192.168.7.9/32", "9.7.168.192.in-addr.arpa"),
        ("fd00:1234::/32", "4.3.2.1.0.0.d.f.ip6.arpa"),
        ("fd00::/9", "d.f.ip6.arpa"),
    ],
)
def test_reverse_zones_hold_their_networks(network: str, zone: str) -> None:
    parsed = ip_network(network)
    assert reverse_zone(parsed) == zone  # type: ignore[arg-type]
    assert parsed.network_address.reverse_pointer.endswith(zone)


def test_a_wildcard_and_its_apex_are_one_domain() -> None:
    assert routing_domains(["*.corp.internal", "corp.internal", "a.b"], []) == ("a.b", "corp.internal")


def test_a_file_without_the_stub_is_the_files_affair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolved, "_busctl", lambda *words: [True])
    monkeypatch.setattr(resolved.shutil, "which", lambda name: f"/usr/bin/{name}")
    file = tmp_path / "resolv.conf"
    assert not is_asked(file)
    file.write_text("nameserver 192.0.2.53\n")
    assert not is_asked(file)
    file.write_text("# comment\nnameserver 127.0.0.53\n")
    assert is_asked(file)

    def nobody(*words: str) -> Any:
        raise OSError("no bus")

    monkeypatch.setattr(resolved, "_busctl", nobody)
    assert not is_asked(file)


class Bus:
    def __init__(self, failing: str = "") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.failing = failing

    def __call__(self, *words: str) -> Any:
        self.calls.append(words)
        if self.failing and self.failing in words:
            raise OSError("Access denied")
        if words[0] == "get-property":
            return [[7, 2, [192, 0, 2, 53]], [1, 2, list(OURS.packed)]] if words[-1] == "DNS" else []
        return None


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path, UNDOERS)


def test_what_fails_half_way_is_undone_and_said(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus("SetLinkDNSSEC")
    monkeypatch.setattr(resolved, "_busctl", bus)
    with pytest.raises(ConfigError, match="Access denied"):
        Resolved(journal, OURS, "lo").install(("a.b",))
    assert bus.calls[-2][4] == "RevertLink"
    assert not journal.path.exists() or journal.undo_all().undone == 0


def test_with_too_many_domains_everything_comes_here(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus()
    monkeypatch.setattr(resolved, "_busctl", bus)
    way = Resolved(journal, OURS, "lo")
    assert way.install(("a.b",)).nameservers == ("192.0.2.53",)
    way.follow(tuple(f"n{number}.internal" for number in range(DOMAINS_MAX + 1)))
    [told] = [words for words in bus.calls if "SetLinkDomains" in words and "." in words]
    assert told[-3:] == ("1", ".", "true")
    assert way.still_ours()
    assert way.undo() is None
