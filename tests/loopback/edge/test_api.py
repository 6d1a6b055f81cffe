"""The admin API over a real Unix socket: the contract, every error in one shape, and no garbage that is our fault."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warren.edge.api.app import create_app
from warren.edge.api.context import Identity
from warren.edge.api.live import ConnectorView, NothingLive, Status
from warren.edge.api.server import serve
from warren.edge.store.database import open_store
from warren.edge.store.repository import Repository
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.statements import sign_tunnel

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000
NETWORK_KEY = keys.generate()
NETWORK = certificates.make_network(NETWORK_KEY)
SITE = "a" * 20
SECRET = b"s" * 32


def tunnel_body(id_: str = SITE, name: str = "site", revision: int = 1) -> dict[str, Any]:
    authority = certificates.make_tunnel_authority(keys.generate(), id_)
    statement = sign_tunnel(NETWORK_KEY, id_, authority, revision)
    return {
        "id": id_,
        "name": name,
        "authority": base64.b64encode(authority).decode(),
        "statement": base64.b64encode(statement).decode(),
        "revision": revision,
    }


class OneConnector(NothingLive):
    """An edge with a connector."""

    def status(self, tunnel: str) -> Status:
        return "healthy" if tunnel == SITE else "inactive"

    def connectors(self, tunnel: str) -> Sequence[ConnectorView]:
        return [ConnectorView("00ff", "conn1", NOW, 3)] if tunnel == SITE else []


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Repository]:
    repository = await open_store(tmp_path / "store.db", create=True)
    await repository.new_epoch(77)
    yield repository
    await repository.close()


@pytest.fixture
async def http(store: Repository, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    identity = Identity("SHA256:abcd", NETWORK, ("203.0.113.1:443", "[2001:db8::1]:443", "edge.example:443"))
    app = create_app(store, OneConnector(), identity, now=lambda: NOW + 0.5)
    path = tmp_path / "run" / "admin.sock"
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with serve(app, path), httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        yield client


def refusal(response: httpx.Response, status: int, reason: str, said: str = "") -> None:
    assert response.status_code == status, response.text
    answer = response.json()
    assert set(answer) == {"error", "reason"}
    assert answer["reason"] == reason
    assert said in answer["error"]
    assert answer["error"].isprintable()


async def test_info(http: httpx.AsyncClient) -> None:
    info = (await http.get("/v1/info")).json()
    assert info == {
        "network": "SHA256:abcd",
        "edges": ["203.0.113.1:443", "[2001:db8::1]:443", "edge.example:443"],
        "store": "sqlite",
        "epoch": 77,
        "revision": 1,
    }


async def test_tunnels(http: httpx.AsyncClient) -> None:
    body = tunnel_body(revision=5)
    made = await http.post("/v1/tunnels", json=body)
    assert made.status_code == 201
    tunnel = made.json()
    connector = {
        "boot": "00ff", "host": "conn1", "since": NOW, "flows": 3, "draining": False, "program": "", "revision": 0,
        "key": "",
    }  # fmt: skip
    key = hashlib.sha256(base64.b64decode(body["authority"])).hexdigest()
    assert tunnel == {
        "id": SITE, "name": "site", "created": NOW, "revision": 5, "changed": 2,
        "status": "healthy", "connectors": [connector], "key": key, "former": "", "until": 0,
        "authority": body["authority"], "statement": body["statement"],
    }  # fmt: skip
    assert (await http.get("/v1/tunnels")).json() == [tunnel]
    assert (await http.get("/v1/tunnels/site")).json() == (await http.get(f"/v1/tunnels/{SITE}")).json() == tunnel
    refusal(await http.post("/v1/tunnels", json=body), 409, "exists", "there is a tunnel site already")
    refusal(await http.get("/v1/tunnels/sight"), 404, "not_found", "there are site")

    route = (await http.post("/v1/routes", json={"kind": "ip", "value": "10.0.0.0/8", "tunnel": "site"})).json()
    refusal(await http.delete("/v1/tunnels/site"), 409, "in_use", "10.0.0.0/8")
    assert (await http.delete("/v1/tunnels/site", params={"force": "true"})).json()["id"] == SITE
    refusal(await http.delete(f"/v1/routes/{route['id']}"), 404, "not_found", "no route")
    assert (await http.get("/v1/tunnels")).json() == []


def successor(before: dict[str, Any], revision: int = 2, until: int = NOW + 60, key: Any = NETWORK_KEY) -> Any:
    """The body that puts another CA in the place of the one in `before`."""
    authority = certificates.make_tunnel_authority(keys.generate(), SITE)
    statement = sign_tunnel(key, SITE, authority, revision, base64.b64decode(before["authority"]), until)
    encoded = {"authority": base64.b64encode(authority), "statement": base64.b64encode(statement)}
    return {"revision": revision, **{name: data.decode() for name, data in encoded.items()}}


async def test_a_tunnel_gets_another_key(http: httpx.AsyncClient) -> None:
    first = tunnel_body()
    made = (await http.post("/v1/tunnels", json=first)).json()
    body = successor(first)
    both = (await http.patch("/v1/tunnels/site", json=body)).json()
    assert (both["id"], both["revision"], both["authority"]) == (SITE, 2, body["authority"])
    assert (both["former"], both["until"]) == (made["key"], NOW + 60)

    refusal(await http.patch("/v1/tunnels/site", json=body), 409, "exists", "revision 2 already")
    strange = successor(tunnel_body(), 3)
    refusal(await http.patch("/v1/tunnels/site", json=strange), 400, "invalid", "the key before")
    forged = successor(body, 3, key=keys.generate())
    refusal(await http.patch("/v1/tunnels/site", json=forged), 400, "invalid", "signature")
    refusal(await http.patch("/v1/tunnels/none", json=successor(body, 3)), 404, "not_found")
    assert (await http.get("/v1/tunnels/site")).json() == both

    only = sign_tunnel(NETWORK_KEY, SITE, base64.b64decode(body["authority"]), 3)
    end = {"authority": body["authority"], "statement": base64.b64encode(only).decode(), "revision": 3}
    one = (await http.patch("/v1/tunnels/site", json=end)).json()
    assert (one["key"], one["former"], one["until"]) == (both["key"], "", 0)

    over = (await http.patch("/v1/tunnels/site", json=successor(end, 4, NOW))).json()
    assert (over["former"], over["until"]) == ("", 0)


async def test_a_tunnel_that_agents_would_refuse_is_not_taken(http: httpx.AsyncClient) -> None:
    good = tunnel_body()
    for change, said in (
        ({"statement": tunnel_body()["statement"]}, "another CA certificate"),
        ({"statement": base64.b64encode(b"x" * 100).decode()}, "statement"),
        ({"authority": "not base64!"}, "authority: this is not base64"),
        ({"authority": "ümlaut"}, "authority: this is not base64"),
        ({"revision": 2}, "is for tunnel"),
        ({"id": "b" * 20}, "is for tunnel"),
        ({"name": ""}, "is no name of a tunnel"),
        ({"revision": "1"}, "revision: "),
        ({"revision": 1 << 70}, "is for tunnel"),
        ({"colour": "red"}, "there is no field 'colour'"),
    ):
        refusal(await http.post("/v1/tunnels", json=good | change), 400, "invalid", said)
    forged = certificates.make_tunnel_authority(keys.generate(), SITE)
    statement = sign_tunnel(keys.generate(), SITE, forged, 1)
    both = {"authority": base64.b64encode(forged).decode(), "statement": base64.b64encode(statement).decode()}
    refusal(await http.post("/v1/tunnels", json=good | both), 400, "invalid", "signature")
    assert (await http.get("/v1/tunnels")).json() == []


async def test_routes(http: httpx.AsyncClient) -> None:
    await http.post("/v1/tunnels", json=tunnel_body())
    body = {"kind": "ip", "value": "10.10.0.0/16", "tunnel": SITE, "comment": "the office"}
    made = await http.post("/v1/routes", json=body)
    assert made.status_code == 201
    route = made.json()
    assert route == {
        "id": route["id"], "kind": "ip", "value": "10.10.0.0/16", "tunnel": {"id": SITE, "name": "site"},
        "vnet": "default", "comment": "the office", "created": NOW, "revision": 3, "servers": [],
    }  # fmt: skip
    name = (await http.post("/v1/routes", json={"kind": "host", "value": "Bücher.Internal.", "tunnel": "site"})).json()
    assert name["value"] == "xn--bcher-kva.internal"
    wild = (await http.post("/v1/routes", json={"kind": "host", "value": "*.corp.internal", "tunnel": "site"})).json()
    assert (await http.get("/v1/routes", params={"kind": "ip"})).json() == [route]
    assert (await http.get("/v1/routes", params={"kind": "host"})).json() == [wild, name]
    assert len((await http.get("/v1/routes")).json()) == 3
    refusal(await http.post("/v1/routes", json=body), 409, "exists", f"already (route {route['id']})")
    assert (await http.post("/v1/routes", json=body | {"vnet": "lab"})).status_code == 201
    assert (await http.delete(f"/v1/routes/{route['id']}")).json() == route
    for change, said in (
        ({"value": "10.10.3.0/16"}, "write 10.10.0.0/16"),
        ({"value": "payroll"}, "is no CIDR"),
        ({"value": "0.0.0.0/0"}, "default route"),
        ({"kind": "host"}, "kind ip"),
        ({"kind": "host", "value": "a..b"}, "no hostname"),
        ({"kind": "name"}, "kind: input should be 'ip', 'host' or 'resolver'"),
        ({"vnet": ""}, "virtual network"),
        ({"comment": "\x1b[2J"}, "control"),
        ({"servers": ["10.10.0.53"]}, "only a resolver route"),
        ({"kind": "resolver", "value": "corp.example"}, "1 to 3 servers"),
        ({"kind": "resolver", "value": "corp.example", "servers": ["ns.corp.example"]}, "no name server"),
        ({"kind": "resolver", "value": "*.corp.example", "servers": ["10.0.0.53"]}, "write corp.example"),
        ({"kind": "resolver", "value": "10.10.0.0/17", "servers": ["10.0.0.53"]}, "divisible by 8"),
        ({"value": None}, "value: input should be a valid string"),
    ):
        refusal(await http.post("/v1/routes", json=body | change), 400, "invalid", said)
    zone = {"kind": "resolver", "value": "10.10.0.0/16", "tunnel": "site", "servers": ["10.10.0.53", "[FD00::53]:5353"]}
    reverse = (await http.post("/v1/routes", json=zone)).json()
    assert (reverse["value"], reverse["servers"]) == ("10.10.in-addr.arpa", ["10.10.0.53", "[fd00::53]:5353"])
    assert (await http.get("/v1/routes", params={"kind": "resolver"})).json() == [reverse]
    missing = {"kind": "ip", "value": "10.0.0.0/8"}
    refusal(await http.post("/v1/routes", json=missing), 400, "invalid", "the field 'tunnel' is missing")
    nowhere = body | {"value": "10.0.0.0/8", "tunnel": "sight"}
    refusal(await http.post("/v1/routes", json=nowhere), 404, "not_found", "there are site")
    refusal(await http.get("/v1/routes", params={"kind": "x"}), 400, "invalid", "kind")


async def test_which_route_a_destination_takes(http: httpx.AsyncClient) -> None:
    await http.post("/v1/tunnels", json=tunnel_body())
    await http.post("/v1/tunnels", json=tunnel_body("b" * 20, "lab"))
    for kind, value, tunnel, vnet in (
        ("ip", "10.0.0.0/8", "site", "default"),
        ("ip", "10.10.0.0/16", "lab", "default"),
        ("ip", "10.10.0.0/16", "site", "second"),
        ("host", "*.corp.internal", "site", "default"),
        ("host", "*.eu.corp.internal", "lab", "default"),
        ("host", "db.corp.internal", "lab", "default"),
    ):
        body = {"kind": kind, "value": value, "tunnel": tunnel, "vnet": vnet}
        assert (await http.post("/v1/routes", json=body)).status_code == 201

    async def find(to: str, vnet: str = "default") -> tuple[str, str, list[str], str, list[str]]:
        found = (await http.get("/v1/routes/find", params={"to": to, "vnet": vnet})).json()
        route = found["route"] or {"value": "", "tunnel": {"name": ""}}
        losers = [other["value"] for other in found["instead_of"]]
        return route["value"], route["tunnel"]["name"], losers, found["why"], found["elsewhere"]

    longest = "10.10.0.0/16 is the longest prefix that contains it"
    assert await find("10.10.0.5") == ("10.10.0.0/16", "lab", ["10.0.0.0/8"], longest, ["second"])
    assert await find("10.10.0.5", "second") == ("10.10.0.0/16", "site", [], longest, ["default"])
    assert (await find("10.11.0.5"))[:3] == ("10.0.0.0/8", "site", [])
    wild = "*.eu.corp.internal is the longest wildcard that stands for it"
    assert (await find("a.b.EU.corp.internal."))[:4] == ("*.eu.corp.internal", "lab", ["*.corp.internal"], wild)
    exact = "the route is for exactly this name"
    assert (await find("db.corp.internal"))[:4] == ("db.corp.internal", "lab", ["*.corp.internal"], exact)
    for nowhere in ("corp.internal", "example.com", "172.16.0.1"):
        value, _, _, why, _ = await find(nowhere)
        assert value == "" and "leads there" in why
    found = (await http.get("/v1/routes/find", params={"to": "10.11.0.5"})).json()
    assert (found["destination"], found["vnet"], found["route"]["status"]) == ("10.11.0.5", "default", "healthy")
    for bad in ("a..b", "fe80::1%eth0", "", "*.corp.internal"):
        refusal(await http.get("/v1/routes/find", params={"to": bad}), 400, "invalid")
    refusal(await http.get("/v1/routes/find", params={"to": "a", "vnet": "A"}), 400, "invalid", "virtual network")
    refusal(await http.get("/v1/routes/find"), 400, "invalid", "missing")
    refusal(await http.get("/v1/routes/find", params={"to": "a" * 999}), 400, "invalid", "to")


async def test_a_device_is_changed(http: httpx.AsyncClient) -> None:
    body = {"name": "laptop", "secret_hash": hashlib.sha256(SECRET).hexdigest(), "expires": NOW + 3600}
    device = (await http.post("/v1/devices", json=body)).json()
    changed = (await http.patch("/v1/devices/laptop", json={"vnet": "lab", "tags": ["x"]})).json()
    assert changed["warning"] == "no route is in virtual network lab yet"
    assert (changed["vnet"], changed["tags"], changed["revision"]) == ("lab", ["x"], device["revision"] + 1)
    changed = (await http.patch(f"/v1/devices/{device['id']}", json={"user": "ann", "groups": ["staff"]})).json()
    assert (changed["vnet"], changed["user"], changed["groups"], changed["tags"]) == ("lab", "ann", ["staff"], ["x"])
    assert "warning" not in changed
    refusal(await http.patch("/v1/devices/laptop", json={"vnet": "L b"}), 400, "invalid", "virtual network")
    refusal(await http.patch("/v1/devices/laptop", json={"name": "x"}), 400, "invalid", "no field")
    refusal(await http.patch("/v1/devices/none", json={"vnet": "lab"}), 404, "not_found", "there are laptop")


async def test_a_route_over_the_edges_own_address_is_taken_with_a_warning(http: httpx.AsyncClient) -> None:
    await http.post("/v1/tunnels", json=tunnel_body())
    for value, address in (("203.0.113.0/24", "203.0.113.1"), ("2001:db8::/32", "2001:db8::1")):
        made = await http.post("/v1/routes", json={"kind": "ip", "value": value, "tunnel": "site"})
        assert made.status_code == 201
        assert address in made.json()["warning"]
    other = await http.post("/v1/routes", json={"kind": "ip", "value": "10.0.0.0/8", "tunnel": "site"})
    assert "warning" not in other.json()


async def test_devices(http: httpx.AsyncClient, store: Repository) -> None:
    body = {"name": "laptop", "secret_hash": hashlib.sha256(SECRET).hexdigest(), "expires": NOW + 3600}
    made = await http.post("/v1/devices", json=body)
    assert made.status_code == 201
    device = made.json()
    assert device == {
        "id": device["id"], "name": "laptop", "state": "waiting", "thumbprint": "", "host": "", "vnet": "default",
        "vnet_choices": ["default"],
        "user": "", "groups": [], "tags": [], "created": NOW, "expires": NOW + 3600, "enrolled": None, "seen": None,
        "revision": 2,
    }  # fmt: skip
    assert "secret" not in made.text
    await store.enrol(SECRET, "ab" * 32, "lap", NOW + 9)
    (enrolled,) = (await http.get("/v1/devices")).json()
    assert (enrolled["state"], enrolled["thumbprint"], enrolled["host"]) == ("enrolled", "ab" * 32, "lap")
    assert (enrolled["enrolled"], enrolled["seen"]) == (NOW + 9, NOW + 9)
    refusal(await http.post("/v1/devices", json=body), 409, "exists", "laptop")
    refusal(await http.post("/v1/devices", json=body | {"name": "b"}), 409, "exists", "secret")
    refusal(await http.post("/v1/devices", json=body | {"expires": NOW}), 400, "invalid", "future")
    refusal(await http.post("/v1/devices", json=body | {"expires": 1e300}), 400, "invalid", "expires")
    refusal(await http.post("/v1/devices", json=body | {"secret_hash": "AB"}), 400, "invalid", "SHA-256")
    assert (await http.delete("/v1/devices/laptop")).json()["id"] == device["id"]
    refusal(await http.delete("/v1/devices/laptop"), 404, "not_found", "none yet")


async def test_errors_outside_the_paths_have_the_same_shape(http: httpx.AsyncClient) -> None:
    refusal(await http.get("/"), 404, "not_found", "/v1/")
    refusal(await http.get("/v1/tunnels/a/b"), 404, "not_found")
    refusal(await http.get("/docs"), 404, "not_found")
    refusal(await http.put("/v1/tunnels"), 405, "method")
    refusal(await http.delete("/v1/tunnels/x", params={"force": "maybe"}), 400, "invalid", "force")
    head = {"content-type": "application/json"}
    for body in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": "\\ud800"}', b"[" * 50_000, b"1" * 5_000):
        refusal(await http.post("/v1/devices", content=body, headers=head), 400, "invalid")
    refusal(await http.post("/v1/devices", content=b"{}", headers={"content-type": "text/plain"}), 400, "invalid")
    refusal(await http.post("/v1/devices", content=b" " * 1_100_000, headers=head), 413, "too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(110):
            yield b" " * 10_000

    refusal(await http.post("/v1/devices", content=chunks(), headers=head), 413, "too_large")
    assert (await http.get("/v1/info")).status_code == 200


async def test_many_at_once(http: httpx.AsyncClient) -> None:
    await http.post("/v1/tunnels", json=tunnel_body())
    adding = [
        http.post("/v1/routes", json={"kind": "ip", "value": f"10.{index % 20}.0.0/16", "tunnel": "site"})
        for index in range(40)
    ]
    statuses = [response.status_code for response in await asyncio.gather(*adding)]
    assert (statuses.count(201), statuses.count(409)) == (20, 20)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
GOOD: dict[str, dict[str, Any]] = {
    "/v1/tunnels": tunnel_body(),
    "/v1/routes": {"kind": "ip", "value": "10.0.0.0/8", "tunnel": "site", "vnet": "default", "comment": ""},
    "/v1/devices": {"name": "laptop", "secret_hash": "00" * 32, "expires": NOW + 60},
}
TEXTS = st.from_regex(r"(\*\.)?[a-f0-9:.*-]{0,40}(/[0-9]{0,3})?", fullmatch=True)
LIKELY = st.sampled_from(["ip", "host", "site", SITE, "10.0.0.0/8", "a.b", "00" * 32, "AAAA", 1, NOW + 60, "\x00"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes | None]:
    path = draw(st.sampled_from(sorted(GOOD)))
    method = draw(st.sampled_from(["GET", "POST", "POST", "POST", "DELETE"]))
    if method != "POST":
        text = draw(st.text(max_size=80))
        encoded = "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))
        return method, f"{path}/{encoded}", None
    if draw(st.integers(0, 3)) == 0:
        return method, path, draw(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
    field, good = draw(st.sampled_from(sorted(GOOD[path].items())))
    same_type = st.integers() if isinstance(good, int) else st.text() | TEXTS
    body = GOOD[path] | {"kind": draw(st.sampled_from(["ip", "host"]))} if path == "/v1/routes" else GOOD[path]
    body = body | {field: draw(same_type | same_type | LIKELY | JSON)}
    missing = draw(st.sampled_from(["", "", "", *GOOD[path]]))
    return method, path, json.dumps({name: value for name, value in body.items() if name != missing}).encode()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests())
async def test_no_garbage_is_our_fault(http: httpx.AsyncClient, request: tuple[str, str, bytes | None]) -> None:
    method, path, body = request
    head = {"content-type": "application/json"}
    response = await http.request(method, path, content=body, headers=head)
    assert response.status_code < 500, (request, response.text)
    if response.status_code >= 400:
        refusal(response, response.status_code, response.json()["reason"])
