"""The laptop's network changes under open flows: another card, another family, a host that sleeps, a link that is dead.

Beside tests/lab/test_chaos.py, which has what happens on the usual link.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from tests.lab import apps
from tests.lab.roaming.place import CELL, WIFI, WIFI6, Roaming, blackout, route, suspended, unroute
from tests.lab.roaming.talk import WITHIN, Talk
from warren.lab import Impairment, breaking, wait_until
from warren.lab.services import ECHO_PORT

WHILE = 2.0


def test_a_path_mtu_of_1280_while_small_packets_still_pass(deployment: Roaming, flow: Talk) -> None:
    """ICMP is filtered. A bulk flow's packets vanish while another flow's small ones on the same connection are
    answered: no silence tells it. (First of all, for an engine takes its time to send larger packets again.)"""
    lab, laptop = deployment.lab, deployment.laptop
    unroute(laptop, "::/0")
    with apps.connected(laptop, lab["payroll"].address, ECHO_PORT) as typed:
        typed.settimeout(WITHIN)
        lab.links.narrow("home-line", 1280)
        over = threading.Event()

        def type_on() -> None:
            while not over.wait(0.02):
                typed.sendall(b"k")
                assert typed.recv(1) == b"k"

        typing = threading.Thread(target=type_on)
        typing.start()
        try:
            flow.goes_on()
        finally:
            over.set()
            typing.join(WITHIN)
    print(f"the longest stall: {flow.stall:.2f} s")


def test_from_wifi_to_cellular_and_back(deployment: Roaming, flow: Talk) -> None:
    """Another card with another address and a smaller MTU; flows through both are the same ones."""
    laptop = deployment.laptop
    unroute(laptop, "::/0")
    route(laptop, "default", CELL)
    flow.goes_on()
    deployment.lab.links.cut("home-lan")
    flow.goes_on()
    deployment.lab.links.mend("home-lan")
    route(laptop, "default", WIFI)
    flow.goes_on()
    print(f"the longest stall: {flow.stall:.2f} s")


def test_what_an_origin_says_arrives_although_the_laptop_is_silent_after_it_moved(deployment: Roaming) -> None:
    """Nothing is in flight that could be missed: the agent binds because its network changed."""
    payroll, laptop = deployment.lab["payroll"], deployment.laptop
    say = threading.Event()

    def speak(sock: socket.socket) -> None:
        sock.recv(10)
        say.wait(WITHIN)
        sock.sendall(b"news")

    with apps.origin(payroll, speak) as port, apps.connected(laptop, payroll.address, port) as client:
        client.sendall(b"hello")
        unroute(laptop, "::/0")
        before = deployment.told("the way to the edge has changed")
        route(laptop, "default", CELL)
        wait_until(lambda: deployment.told("the way to the edge has changed") > before, "the agent to notice", WITHIN)
        say.set()
        client.settimeout(WITHIN)
        began = time.monotonic()
        assert client.recv(10) == b"news"
        print(f"heard after {time.monotonic() - began:.2f} s")


def test_from_ipv6_to_ipv4_and_back(deployment: Roaming, flow: Talk) -> None:
    """The underlay's family goes in mid-flow; the session and its slots stay those they were."""
    laptop = deployment.laptop
    for gone, left in (("::/0", WIFI), ("default", WIFI6)):
        route(laptop, "default" if gone == "::/0" else "::/0", left)
        unroute(laptop, gone)
        flow.goes_on()
        assert deployment.opens()
    assert deployment.told("edge connected") == 1, "the connection to the edge has migrated"
    print(f"the longest stall: {flow.stall:.2f} s")


def test_a_nat_that_rebinds_every_two_seconds(deployment: Roaming, flow: Talk) -> None:
    unroute(deployment.laptop, "::/0")
    for _ in range(2):
        breaking.rebind(deployment.lab["home"])
        ends = time.monotonic() + 2
        flow.goes_on()
        time.sleep(max(0.0, ends - time.monotonic()))
    flow.goes_on()
    print(f"the longest stall: {flow.stall:.2f} s")


# ---- nothing passes for a while


@pytest.mark.parametrize("gone", [suspended, blackout])
def test_within_the_hold_time_a_flow_goes_on(deployment: Roaming, flow: Talk, gone: Any) -> None:
    gone(deployment, WHILE)
    flow.goes_on()


def test_loss_and_a_long_way(deployment: Roaming, flow: Talk) -> None:
    """30 % of all packets, then 750 ms of round trip."""
    for impairment in (Impairment(loss=0.3), Impairment(delay=0.375)):
        deployment.lab.impair("home-line", impairment)
        flow.goes_on()
        deployment.lab.links.clear("home-line")
        flow.goes_on()
