"""Private zones: asked end to end, and never told to anybody outside. tcpdump stands on the internet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.dns.conftest import EVERYTHING, Two, dig, short
from warren.lab import wait_until
from warren.lab.services import PAGE

PRIVATE = (b"\x04corp\x07example", b"\x08internal", b"\x0210\x0210\x07in-addr", b"10.10.0.")
"""As they stand in a query, in lower case (ours go out in random case)."""


@pytest.fixture(scope="module")
def zones(two: Two) -> Iterator[None]:
    for zone in ("corp.example", "10.10.0.0/16"):
        two.warren("route", "resolver", "add", zone, "--server", "10.10.0.53", "--tunnel", "office")
    for host in (two.laptop, two.tablet):
        wait_until(
            lambda host=host: (
                "corp.example" in host.run(["warren", "agent", "status"]).stdout  # type: ignore[misc]
                or "everything" in host.run(["warren", "agent", "status"]).stdout
            ),
            "the zone at the agent",
            10,
        )
    wait_until(lambda: short(two.laptop, "intranet.corp.example"), "an answer of the zone's server", 15)
    yield


class Capture:
    """All that crosses the internet in the clear towards port 53, as bytes in lower case."""

    def __init__(self, two: Two) -> None:
        self._two = two
        self.internet = two.deployment.lab["internet"]

    def __enter__(self) -> Capture:
        words = ["tcpdump", "-Z", "root", "-U", "-n", "-i", "any", "-w", "/root/capture", "port", "53"]
        self._process = self.internet.start(words, log="tcpdump")
        self._process.wait_for_output("listening on", 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def bytes(self) -> bytes:
        return self.internet.path("/root/capture").read_bytes().lower()

    def sees(self, name: bytes) -> None:
        """Until a name has come by: what came before it has been written, too."""
        wait_until(lambda: name in self.bytes(), "the capture", 10)


def test_a_zone_is_answered_by_its_own_server(two: Two, zones: None) -> None:
    assert short(two.laptop, "intranet.corp.example") == ["10.10.0.10"]
    assert short(two.laptop, "alias.corp.example") == ["intranet.corp.example.", "10.10.0.10"]
    assert "status: NXDOMAIN" in dig(two.laptop, "nothing.corp.example")
    assert two.laptop.run(["curl", "-s", "--max-time", "10", "http://intranet.corp.example/"]).stdout == PAGE


def test_a_long_answer_comes_whole(two: Two, zones: None) -> None:
    assert len(short(two.laptop, "long.corp.example", "TXT")) == 7


def test_addresses_have_their_names(two: Two, zones: None) -> None:
    assert short(two.laptop, "-x", "10.10.0.20") == ["db.corp.example."]


def test_short_names_are_completed(two: Two, zones: None) -> None:
    assert "search corp.example" in two.laptop.read("/etc/resolv.conf")
    assert two.laptop.run(["getent", "ahostsv4", "intranet"]).stdout.startswith("10.10.0.10")


def test_the_edge_tells_why(two: Two, zones: None) -> None:
    said = two.warren("dns", "test", "intranet.corp.example", "--as", "laptop")
    assert "resolver route corp.example" in said and "10.10.0.53" in said
    assert "name servers of corp.example" in two.warren("route", "get", "intranet.corp.example")


def test_no_private_name_is_told_to_the_internet(two: Two, zones: None) -> None:
    asked = (
        ("intranet.corp.example",),
        ("nothing.corp.example",),
        ("corp.example", "SOA"),
        ("payroll.internal",),
        ("nobody.internal",),
        ("long.corp.example", "TXT"),
        ("-x", "10.10.0.20"),
        ("-x", "10.10.99.99"),
        ("+tcp", "alias.corp.example"),
    )
    with Capture(two) as capture, ThreadPoolExecutor() as at_once:

        def ask() -> None:
            list(at_once.map(lambda words: dig(two.laptop, *words, check=False), asked))

        ask()
        two.deployment.daemons["connector"].stop()
        ask()
        two.deployment.run_connector()
        two.deployment.daemons["edge"].kill()
        ask()
        two.deployment.run_edge()
        wait_until(lambda: short(two.laptop, "intranet.corp.example"), "names again", 20)
        dig(two.laptop, "the-end.example.com")
        capture.sees(b"the-end")
        for private in PRIVATE:
            assert private not in capture.bytes()


def test_local_domains_never_reach_the_edge(two: Two, zones: None) -> None:
    """The edge is frozen, and nothing else would be answered."""
    two.again(two.laptop, *EVERYTHING, "--no-dns-fallback", "--dns-local", "fritz.example")
    edge = two.deployment.daemons["edge"]
    try:
        wait_until(lambda: short(two.laptop, "www.example.com"), "the agent again", 15)
        edge.freeze()
        assert short(two.laptop, "www.fritz.example") == ["203.0.113.1"]
    finally:
        edge.thaw()
        two.again(two.laptop, *EVERYTHING)
