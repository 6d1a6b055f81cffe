"""A flood from one device, and an edge that dies while it is asked."""

from __future__ import annotations

import threading
import time

from tests.lab.dns.conftest import EVERYTHING, Two, counted, dig, metrics, short, took
from warren.lab import wait_until

FLOOD = """
import os, random, socket, sys, time
HEADER = bytes((1, 0, 0, 1, 0, 0, 0, 0, 0, 0))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setblocking(False)
sock.connect((sys.argv[1], 53))
print("flooding", flush=True)
end = time.time() + float(sys.argv[2])
while time.time() < end:
    for _ in range(20):
        label = os.urandom(6).hex().encode() if random.random() < 0.02 else b"ads"
        name = bytes((len(label),)) + label + b"\\x07example\\x03com\\x00"
        try:
            sock.send(os.urandom(2) + HEADER + name + b"\\x00\\x01\\x00\\x01")
        except OSError:
            pass
    time.sleep(0.01)
"""
PATIENT = 3.0
"""Seconds for an answer beside the flood, on a machine that does other things too."""


def test_one_device_floods_and_the_other_is_answered(two: Two) -> None:
    short(two.laptop, "www.example.com")
    (resolver,) = [line.split()[1] for line in two.tablet.read("/etc/resolv.conf").splitlines() if "nameserver" in line]
    flood = two.tablet.start(["python3", "-c", FLOOD, resolver, "40"], log="flood")
    try:
        flood.wait_for_output("flooding", 10)
        limited = 'warren_edge_dns_refused_total{reason="rate"}'
        wait_until(lambda: counted(metrics(two.edge), limited) > 50, "the limit", 20)
        worst = max(took(two.laptop, "www.example.com") for _ in range(20))
        assert short(two.laptop, "payroll.internal")
    finally:
        flood.stop(10)
    assert worst < PATIENT


def test_an_edge_that_dies_in_mid_query_loses_no_query_of_a_route(two: Two) -> None:
    """Asked before it died, while it was away, and of both devices: all are answered once it is back."""
    answers: dict[str, str] = {}

    def ask(who: str, *words: str) -> None:
        answers[who] = dig(two.tablet if who.startswith("tablet") else two.laptop, "+time=12", *words)

    two.again(two.laptop, *EVERYTHING, "--no-dns-fallback")
    wait_until(lambda: short(two.laptop, "payroll.internal"), "the agent again", 15)
    two.deployment.daemons["edge"].freeze()
    asked = [("laptop-1", "payroll.internal"), ("tablet-1", "db.internal"), ("laptop-2", "www.example.com")]
    threads = [threading.Thread(target=ask, args=words) for words in asked]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 0.3, "the queries at the frozen edge")
    two.deployment.daemons["edge"].kill()
    two.deployment.run_edge()
    for thread in threads:
        thread.join()
    two.again(two.laptop, *EVERYTHING)
    for who, _ in asked:
        assert "ANSWER: 1" in answers[who], f"{who}: {answers[who]}"


def test_public_names_fall_back_while_no_edge_answers(two: Two) -> None:
    wait_until(lambda: short(two.laptop, "www.example.com"), "the agent again", 15)
    two.deployment.daemons["edge"].kill()
    try:
        said = dig(two.laptop, "+time=8", "www.example.com")
        assert "ANSWER: 1" in said, said
        assert took(two.laptop, "www.fritz.example") < PATIENT
        assert "status: SERVFAIL" in dig(two.laptop, "+time=12", "payroll.internal")
    finally:
        two.deployment.run_edge()
    for host in (two.laptop, two.tablet):
        wait_until(lambda host=host: short(host, "payroll.internal"), "names again", 30)  # type: ignore[misc]
