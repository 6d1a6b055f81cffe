"""The edge's resolver with lists, policy and log on real files, asked as sessions ask it and through the admin API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loopback.dnsfilter.upstream import FakeUpstream, address
from tests.loopback.edge.test_api import NETWORK, refusal
from warren.dnsfilter.core.config import Zone
from warren.dnsfilter.settings import ListSettings
from warren.edge.api.app import create_app
from warren.edge.api.context import Identity
from warren.edge.api.live import NothingLive
from warren.edge.dns.service import DnsService
from warren.edge.dns.settings import DnsSettings, nameservers
from warren.edge.store.database import open_store
from warren.edge.store.records import Device
from warren.edge.store.repository import Repository
from warren.fabric.core import dnsreply, dnswire
from warren.fabric.core.errors import ConfigError
from warren.fabric.core.messages.session import Answer

pytestmark = pytest.mark.anyio

POLICY = """
rules:
  - {name: no-games, action: block, who: {tags: [school]}, names: ["*.games.example"]}
  - {name: no-ads, action: block, categories: [ads]}
expectations:
  - {name: x.games.example, tags: [school], expect: block, rule: no-games}
"""


@dataclass
class Desk:
    """An edge's resolver, and the administrator's way to it."""

    dns: DnsService
    store: Repository
    http: httpx.AsyncClient
    upstream: FakeUpstream
    lists: Path

    async def ask(self, device: Device, name: str) -> dnsreply.Reply:
        query = dnswire.build_query(7, dnswire.name_wire(name), dnswire.A)
        said = await self.dns.judge.answer(device, query, "tcp")
        assert isinstance(said, Answer)
        reply = dnsreply.read_reply(said.message)
        assert reply is not None
        return reply

    async def device(self, name: str) -> Device:
        return next(device for device in await self.store.devices() if device.name == name)

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    lists = tmp_path / "ads.hosts"
    lists.write_text("0.0.0.0 ads.example\n")
    store = await open_store(tmp_path / "store.db", create=True)
    async with FakeUpstream(lambda query, transport: address(query)) as upstream:
        settings = DnsSettings(
            upstreams=(f"127.0.0.1:{upstream.port}",),
            lists=(ListSettings("ads", str(lists), categories=("ads",)),),
        )
        dns = DnsService(settings, tmp_path / "dns", store.policies, lambda: store.snapshot)
        await dns.start()
        app = create_app(store, NothingLive(), Identity("x", NETWORK, ()), lambda: 100.0, dns)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as http:
            for name in ("laptop", "tablet"):
                body = {"name": name, "secret_hash": name[0].encode().hex() * 32, "expires": 1000}
                assert (await http.post("/v1/devices", json=body)).status_code == 201
            await http.patch("/v1/devices/tablet", json={"tags": ["school"], "user": "mia"})
            await dns.loaded.wait()
            yield Desk(dns, store, http, upstream, lists)
        await dns.close()
    await store.close()


async def test_without_a_policy_lists_block_for_everybody(desk: Desk) -> None:
    laptop = await desk.device("laptop")
    assert (await desk.ask(laptop, "ads.example")).rcode == dnswire.NXDOMAIN
    assert (await desk.ask(laptop, "www.example")).addresses == (bytes((192, 0, 2, 1)),)
    assert "categories:\n  - ads" in (await desk.get("/v1/dns/policy"))["text"]
    assert (await desk.get("/v1/dns/policy/history")) == []


async def test_a_policy_is_applied_for_whom_it_is_about_and_outlives_the_process(desk: Desk, tmp_path: Path) -> None:
    laptop, tablet = await desk.device("laptop"), await desk.device("tablet")
    tried = (await desk.http.put("/v1/dns/policy", json={"text": POLICY, "dry_run": True})).json()
    assert tried["number"] is None and len(tried["changes"]) == 4
    assert (await desk.ask(tablet, "x.games.example")).rcode == dnswire.NOERROR
    done = (await desk.http.put("/v1/dns/policy", json={"text": POLICY, "note": "school"})).json()
    assert (done["number"], done["expectations"][0]["holds"]) == (1, True)
    assert (await desk.ask(tablet, "x.games.example")).rcode == dnswire.NXDOMAIN
    assert (await desk.ask(laptop, "x.games.example")).rcode == dnswire.NOERROR
    assert (await desk.ask(laptop, "ads.example")).rcode == dnswire.NXDOMAIN
    settings = DnsSettings(upstreams=("192.0.2.1",), lists=(ListSettings("ads", str(desk.lists), categories=("ads",)),))
    later = DnsService(settings, tmp_path / "later", desk.store.policies, lambda: desk.store.snapshot)
    await later.start()
    assert later.policies.revision is not None and later.policies.revision.text == POLICY
    await later.close()
    without = DnsService(DnsSettings(), tmp_path / "without", desk.store.policies, lambda: desk.store.snapshot)
    with pytest.raises(ConfigError, match="policy: rule 'no-ads': 'ads' is no category"):
        await without.start()
    await without.close()


async def test_a_policy_that_was_applied_at_another_edge_is_used_here(desk: Desk, tmp_path: Path) -> None:
    def service(settings: DnsSettings, name: str) -> DnsService:
        return DnsService(settings, tmp_path / name, desk.store.policies, lambda: desk.store.snapshot)

    same = DnsSettings(upstreams=("192.0.2.1",), lists=(ListSettings("ads", str(desk.lists), categories=("ads",)),))
    other, unlike = service(same, "other"), service(DnsSettings(), "unlike")
    await other.start()
    await unlike.start()
    assert (await desk.http.put("/v1/dns/policy", json={"text": POLICY})).status_code == 200
    for here in (desk.dns, other, unlike):
        here.follow(desk.store.snapshot)
    assert other.policies.revision == desk.dns.policies.revision == desk.store.snapshot.policy
    assert other.judge.slot.current.policy.policy == desk.dns.judge.slot.current.policy.policy
    assert unlike.policies.revision is None  # it has no such list, and says so in its log
    await other.close()
    await unlike.close()


async def test_what_does_not_hold_is_refused_in_one_line(desk: Desk) -> None:
    for text, said in (
        ("rulez: []", "unknown field `rulez`"),
        (POLICY.replace("[school], expect", "[work], expect"), "expected block by no-games, is allow"),
        ("rules: [{name: a, action: block, categories: [x]}]", "'x' is no category of a list; there are ads"),
    ):
        refusal(await desk.http.put("/v1/dns/policy", json={"text": text}), 400, "invalid", said)
    refusal(await desk.http.post("/v1/dns/policy/rollback", json={}), 400, "invalid", "no policy before")
    refusal(await desk.http.get("/v1/dns/policy", params={"number": 7}), 400, "invalid", "there is no policy 7")
    assert (await desk.get("/v1/dns/policy/history")) == []


async def test_why_is_told_for_a_device(desk: Desk) -> None:
    await desk.http.put("/v1/dns/policy", json={"text": POLICY})

    async def why(**body: Any) -> Any:
        return (await desk.http.post("/v1/dns/test", json=body)).json()

    blocked = await why(name="x.games.example", device="tablet")
    assert (blocked["verdict"], blocked["rule"], blocked["user"]) == ("blocked", "no-games", "mia")
    assert (await why(name="x.games.example", device="laptop"))["verdict"] == "forward"
    assert (await why(name="x.games.example"))["verdict"] == "forward"
    assert desk.upstream.asked == []
    assert (await why(name="www.example", device="laptop", ask=True))["verdict"] == "forwarded"
    assert (await why(name="ads.example"))["entry"] == "ads.example"
    refusal(await desk.http.post("/v1/dns/test", json={"name": "a", "device": "x"}), 404, "not_found", "laptop, tablet")
    refusal(await desk.http.post("/v1/dns/test", json={"name": "a..b"}), 400, "invalid")
    refusal(await desk.http.post("/v1/dns/test", json={"name": "a", "type": "?"}), 400, "invalid", "query type")


async def test_queries_are_logged_with_device_and_user(desk: Desk) -> None:
    tablet = await desk.device("tablet")
    await desk.ask(tablet, "ads.example")
    await desk.ask(tablet, "www.example")
    page: Any = {"lines": []}
    while len(page["lines"]) < 2:
        page = await desk.get("/v1/dns/log")
        await asyncio.sleep(0.05)
    first = page["lines"][0]
    assert (first["device"], first["user"], first["verdict"], first["list"]) == ("tablet", "mia", "blocked", "ads")
    assert (await desk.get(f"/v1/dns/log?cursor={page['cursor']}"))["lines"] == []
    assert len((await desk.get("/v1/dns/log?verdict=blocked"))["lines"]) == 1
    assert (await desk.get("/v1/dns/top"))["blocked"] == [["ads.example", 1]]
    refusal(await desk.http.get("/v1/dns/log?cursor=x"), 400, "invalid", "no place in the log")
    verdicts = {kind.value: count for kind, count in desk.dns.judge.verdicts.items()}
    assert verdicts == {"blocked": 1, "forwarded": 1}


@pytest.mark.parametrize("kept", ["anonymous", "off"])
async def test_a_log_without_persons_and_no_log(kept: Any, desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / kept
    dns = DnsService(DnsSettings(log=kept), place, desk.store.policies, lambda: desk.store.snapshot)
    await dns.start()
    tablet = await desk.device("tablet")
    await dns.judge.answer(tablet, dnswire.build_query(7, dnswire.name_wire("x.internal"), dnswire.A), "udp")
    await dns.close()
    file = place / "queries.jsonl"
    if kept == "off":
        assert not file.exists()
        with pytest.raises(ConfigError, match="keeps no query log"):
            await dns.top(0, 1)
    else:
        line = json.loads(file.read_text())
        assert line["name"] == "x.internal"
        assert not {"device", "user"} & set(line)


async def test_the_loop_goes_on_while_a_large_set_is_swapped_in(desk: Desk) -> None:
    """Flows and queries are served by the loop: it turns all the while, and answers by the old set until the end."""
    desk.lists.write_text("".join(f"0.0.0.0 n{number}.example\n" for number in range(200_000)))
    laptop, turns = await desk.device("laptop"), 0
    loop = asyncio.get_running_loop()
    began, longest = loop.time(), 0.0
    desk.dns.refresh()
    while (await desk.ask(laptop, "n199999.example")).rcode != dnswire.NXDOMAIN:
        before = loop.time()
        await asyncio.sleep(0.001)
        longest = max(longest, loop.time() - before)
        turns += 1
        assert loop.time() - began < 60
    assert turns > 50
    assert longest < (loop.time() - began) / 2
    assert (await desk.get("/v1/dns/lists"))[0]["entries"] == 200_000
    assert (await desk.ask(laptop, "ads.example")).rcode == dnswire.NOERROR


async def test_zones_of_the_settings_are_told_to_devices(desk: Desk, tmp_path: Path) -> None:
    settings = DnsSettings(zones=(Zone("Corp.Example"), Zone("10.10.in-addr.arpa")), search=("corp.example",))
    dns = DnsService(settings, tmp_path / "zones", desk.store.policies, lambda: desk.store.snapshot)
    assert dns.zones == ("corp.example", "*.corp.example", "10.10.in-addr.arpa", "*.10.10.in-addr.arpa")
    assert dns.search == ("corp.example",)
    await dns.close()


def test_the_hosts_own_nameservers_are_asked_where_none_are_given(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver x\n#\nnameserver 2001:db8::1\n")
    assert nameservers(file) == ("192.0.2.1", "2001:db8::1")
    assert nameservers(tmp_path / "nothing") == ()
    assert DnsSettings().with_upstreams(file).upstreams == ("192.0.2.1", "2001:db8::1")
    assert DnsSettings(upstreams=("192.0.2.9",)).with_upstreams(file).upstreams == ("192.0.2.9",)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"search": ("a..b",)}, "no hostname"),
        ({"search": tuple(f"d{n}.example" for n in range(7))}, "6 are what"),
        ({"upstreams": ("dns.example",)}, "is no upstream"),
        ({"lists": (ListSettings("a", "x"), ListSettings("a", "y"))}, "twice"),
    ],
)
def test_settings_that_cannot_be(settings: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DnsSettings(**settings)
