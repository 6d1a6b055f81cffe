"""The administrator's commands against the real admin API on a Unix socket, and what is left when one fails."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.edge.fake_api import fake_api
from warren.cli.main import main
from warren.edge import state
from warren.edge.api.app import create_app
from warren.edge.api.context import Identity
from warren.edge.api.live import ConnectorView, NothingLive, Status
from warren.edge.api.server import serve
from warren.edge.state import load_credentials
from warren.edge.store.database import open_store
from warren.fabric.identity import certificates
from warren.fabric.identity.files import read_private
from warren.fabric.identity.tokens import parse_enrolment_key, parse_tunnel_token


class Live(NothingLive):
    """One connector on every tunnel."""

    def status(self, tunnel: str) -> Status:
        return "healthy"

    def connectors(self, tunnel: str) -> Sequence[ConnectorView]:
        return [ConnectorView("00ff" * 8, "conn\x1b1", 1_800_000_000, 3, program="warren 1.2")]


@dataclass
class Desk:
    """Where the administrator sits: directories, and the commands."""

    place: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *self.capsys.readouterr()

    def done(self, *arguments: str) -> tuple[str, str]:
        """Standard output and standard error of a command that succeeds."""
        code, out, err = self.run(*arguments)
        assert (code, "warren: " in err) == (0, False), err
        return out, err

    def refused(self, *arguments: str, code: int = 1) -> str:
        """The one line of a command that fails."""
        got, out, err = self.run(*arguments)
        assert (got, out, err.count("\n")) == (code, "", 1), err
        assert err.startswith("warren: ")
        return err

    def json(self, *arguments: str) -> Any:
        return json.loads(self.done(*arguments, "--json")[0])


@contextmanager
def running_edge(directory: Path, socket: Path) -> Iterator[None]:
    """The API over the directory's store, in a thread of its own."""
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        credentials = load_credentials(directory)
        repository = await open_store(directory / state.STORE)
        addresses = tuple(str(edge) for edge in credentials.edges.edges)
        identity = Identity(credentials.fingerprint, credentials.network, addresses)
        async with serve(create_app(repository, Live(), identity), socket):
            ready.set()
            await stop.wait()
        await repository.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert ready.wait(20)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """An edge that was made and does not run."""
    monkeypatch.setenv("WARREN_SOCKET", str(tmp_path / "s"))
    monkeypatch.setenv("WARREN_ADMIN_DIR", str(tmp_path / "admin"))
    monkeypatch.setenv("WARREN_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    desk = Desk(tmp_path, capsys)
    assert "warren edge run" in desk.done("edge", "init", "--public", "edge.example.net")[1]
    return desk


@pytest.fixture
def desk(away: Desk) -> Iterator[Desk]:
    """An edge that runs."""
    with running_edge(away.place / "state", away.place / "s"):
        yield away


def test_a_tunnel_its_token_and_its_end(desk: Desk) -> None:
    out, err = desk.done("tunnel", "create", "office")
    assert out == ""
    assert "office.token" in err
    assert stat.S_IMODE(Path("office.token").stat().st_mode) == 0o600
    token = parse_tunnel_token(read_private(Path("office.token")).decode())
    (shown,) = desk.json("tunnel", "list")
    assert (shown["id"], shown["name"], shown["revision"]) == (token.tunnel, "office", 1)
    out, _ = desk.done("tunnel", "list")
    assert "healthy" in out
    assert "conn?1" in out, "control characters of others do not reach the terminal"
    desk.done("tunnel", "delete", "office")
    assert desk.json("tunnel", "list") == []
    assert "no tunnel" in desk.refused("tunnel", "delete", "office")


def test_a_token_is_printed_when_asked_for(desk: Desk) -> None:
    out, _ = desk.done("tunnel", "create", "one", "--token-file", "-")
    assert parse_tunnel_token(out).name == "one"
    out, _ = desk.done("tunnel", "create", "two", "--print-token")
    assert parse_tunnel_token(out).name == "two"
    desk.done("tunnel", "create", "three", "--token-file", str(desk.place / "t"))
    assert parse_tunnel_token((desk.place / "t").read_text()).name == "three"
    assert os.listdir() == []


def test_a_tunnel_gets_another_key_and_another_token(desk: Desk) -> None:
    desk.done("tunnel", "create", "office")
    first = parse_tunnel_token(read_private(Path("office.token")).decode())
    out, err = desk.done("tunnel", "rotate", "office")
    assert (out, "office-2.token" in err, "SIGHUP" in err) == ("", True, True)
    second = parse_tunnel_token(read_private(Path("office-2.token")).decode())
    assert stat.S_IMODE(Path("office-2.token").stat().st_mode) == 0o600
    assert (second.tunnel, second.verify().revision) == (first.tunnel, 2)
    assert second.authority != first.authority
    shown = desk.json("tunnel", "info", "office")
    assert shown["former"] == certificates.fingerprint(first.authority).hex()
    assert shown["key"] == certificates.fingerprint(second.authority).hex()
    assert 0 < shown["until"] - time.time() <= 24 * 3600

    assert "--finish" in desk.refused("tunnel", "rotate", "office", code=2)
    assert "no token" in desk.refused("tunnel", "rotate", "office", "--finish", "--print-token", code=2)
    desk.done("tunnel", "rotate", "office", "--finish")
    shown = desk.json("tunnel", "info", "office")
    assert (shown["revision"], shown["former"], shown["until"]) == (3, "", 0)
    assert "nothing to finish" in desk.refused("tunnel", "rotate", "office", "--finish", code=2)

    out, _ = desk.done("tunnel", "rotate", "office", "--token-file", "-")
    assert parse_tunnel_token(out).verify().revision == 4
    assert sorted(os.listdir()) == ["office-2.token", "office.token"]


def test_a_tunnel_whose_key_is_not_taken_leaves_no_token(desk: Desk) -> None:
    desk.done("tunnel", "create", "office")
    assert "no tunnel" in desk.refused("tunnel", "rotate", "lab")
    Path("kept").write_text("kept")
    assert "already" in desk.refused("tunnel", "rotate", "office", "--token-file", "kept", code=2)
    assert Path("kept").read_text() == "kept"
    assert sorted(os.listdir()) == ["kept", "office.token"]
    assert desk.json("tunnel", "info", "office")["revision"] == 1


def test_what_is_known_of_a_tunnel(desk: Desk) -> None:
    desk.done("tunnel", "create", "office")
    desk.done("tunnel", "rotate", "office")
    out, _ = desk.done("tunnel", "info", "office")
    for word in ("office", "healthy", "revision 2", "key before", "until", "conn?1", "00ff00ff", "warren 1.2"):
        assert word in out
    assert desk.json("tunnel", "info", "office")["connectors"][0]["flows"] == 3
    assert "no tunnel" in desk.refused("tunnel", "info", "lab")


def test_a_tunnel_that_is_not_made_leaves_no_token(desk: Desk) -> None:
    desk.done("tunnel", "create", "office")
    kept = Path("office.token").read_bytes()
    assert "already" in desk.refused("tunnel", "create", "office", code=2)
    assert "office" in desk.refused("tunnel", "create", "office", "--token-file", "other")
    assert "can't be written" in desk.refused("tunnel", "create", "x", "--token-file", "none/x", code=2)
    assert Path("office.token").read_bytes() == kept
    assert os.listdir() == ["office.token"]
    assert len(desk.json("tunnel", "list")) == 1


def test_routes_by_address(desk: Desk) -> None:
    desk.done("tunnel", "create", "office")
    desk.done("tunnel", "create", "lab")
    desk.done("route", "ip", "add", "10.10.0.0/16", "--tunnel", "office", "--comment", "[red]all")
    desk.done("route", "ip", "add", "10.10.0.0/16", "--tunnel", "lab", "--vnet", "second")
    out, _ = desk.done("route", "ip", "list")
    assert out.count("10.10.0.0/16") == 2
    assert "[red]all" in out
    line = desk.refused("route", "ip", "delete", "10.10.0.0/16")
    assert "2 routes" in line
    assert "second lab" in line
    desk.done("route", "ip", "delete", "10.10.0.0/16", "--vnet", "second")
    (left,) = desk.json("route", "list")
    assert left["tunnel"]["name"] == "office"
    assert "routes lead to" in desk.refused("tunnel", "delete", "office")
    desk.done("route", "ip", "delete", left["id"])
    assert desk.json("route", "list") == []
    assert "no such route" in desk.refused("route", "ip", "delete", "10.10.0.0/16")
    desk.done("tunnel", "delete", "office")


def test_routes_by_hostname(desk: Desk) -> None:
    desk.done("tunnel", "create", "office")
    desk.done("route", "host", "add", "Payroll.internal.", "--tunnel", "office")
    (route,) = desk.json("route", "host", "list")
    assert (route["value"], route["kind"]) == ("payroll.internal", "host")
    assert desk.json("route", "ip", "list") == []
    desk.done("tunnel", "delete", "office", "--force")
    assert desk.json("route", "list") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["ip", "add", "10.0.0.0/8", "--tunnel", "none"],
        ["ip", "add", "127.0.0.0/8", "--tunnel", "office"],
        ["ip", "add", "0.0.0.0/0", "--tunnel", "office"],
        ["host", "add", "10.0.0.1", "--tunnel", "office"],
        ["host", "add", "a b", "--tunnel", "office"],
        ["ip", "add", "10.0.0.0/8", "--tunnel", "office", "--vnet", "A B"],
    ],
)
def test_what_the_edge_does_not_carry_is_told_in_its_words(desk: Desk, arguments: list[str]) -> None:
    desk.done("tunnel", "create", "office")
    desk.refused("route", *arguments)
    assert desk.json("route", "list") == []


def test_which_route(desk: Desk) -> None:
    desk.done("tunnel", "create", "office", "--token-file", "o")
    desk.done("route", "ip", "add", "10.0.0.0/8", "--tunnel", "office")
    desk.done("route", "ip", "add", "10.10.0.0/16", "--tunnel", "office", "--vnet", "lab")
    desk.done("route", "host", "add", "*.corp.internal", "--tunnel", "office")
    out, err = desk.done("route", "get", "a.b.corp.internal")
    assert "office (healthy)" in out and "longest wildcard" in out and err == ""
    assert desk.json("route", "get", "10.10.0.5", "--vnet", "lab")["route"]["value"] == "10.10.0.0/16"
    nowhere = desk.refused("route", "get", "a.corp.internal", "--vnet", "lab")
    assert "no hostname route in virtual network lab" in nowhere and "in virtual network default" in nowhere
    assert "no hostname" in desk.refused("route", "get", "a..b")


def test_a_device_is_set(desk: Desk) -> None:
    desk.done("device", "add", "laptop", "--key-file", "k")
    _, err = desk.done("device", "set", "laptop", "--vnet", "lab", "--group", "b", "--group", "a")
    assert "Device laptop: virtual network lab (its user may choose lab); user -; groups a, b; tags -." in err
    assert "Beware: no route is in virtual network lab yet." in err
    (device,) = desk.json("device", "list")
    assert (device["vnet"], device["groups"]) == ("lab", ["a", "b"])
    assert desk.json("device", "set", "laptop", "--user", "ann", "--group", "")["groups"] == []
    assert "nothing to change" in desk.refused("device", "set", "laptop", code=2)
    assert "no device" in desk.refused("device", "set", "ghost", "--vnet", "lab")


def test_devices(desk: Desk) -> None:
    out, err = desk.done("device", "add", "anns-laptop")
    key = parse_enrolment_key(out)
    assert key.edges().edges[0].host == "edge.example.net"
    assert out.strip() not in err
    desk.done("device", "add", "bobs-laptop", "--key-file", "bob")
    assert stat.S_IMODE(Path("bob").stat().st_mode) == 0o600
    parse_enrolment_key(Path("bob").read_text())
    assert [device["state"] for device in desk.json("device", "list")] == ["waiting", "waiting"]
    assert "anns-laptop" in desk.done("device", "list")[0]
    desk.refused("device", "add", "anns-laptop", "--key-file", "other")
    assert os.listdir() == ["bob"]
    desk.done("device", "delete", "anns-laptop")
    assert "no device" in desk.refused("device", "delete", "anns-laptop")


def test_what_the_edge_is_and_does(desk: Desk) -> None:
    assert desk.json("edge", "info")["edges"] == ["edge.example.net:4433"]
    assert "edge.example.net:4433" in desk.done("edge", "info")[0]


def test_keys_of_another_network_sign_nothing_here(desk: Desk) -> None:
    other = desk.place / "other"
    desk.done("edge", "init", "--public", "h", "--state-dir", f"{other}/s", "--admin-dir", f"{other}/a")
    line = desk.refused("tunnel", "create", "office", "--admin-dir", f"{other}/a")
    assert "another network" in line
    assert "another network" in desk.refused("device", "add", "x", "--admin-dir", f"{other}/a")
    assert os.listdir() == []


def test_a_copy_of_a_running_edge_comes_back(desk: Desk) -> None:
    desk.done("tunnel", "create", "office")
    desk.done("edge", "backup", "../b.tar")
    assert "already" in desk.refused("edge", "backup", "../b.tar", code=2)
    assert "--force" in desk.refused("edge", "restore", "../b.tar", code=2)
    desk.done("edge", "restore", "../b.tar", "--state-dir", str(desk.place / "new"))
    with running_edge(desk.place / "new", desk.place / "n"):
        assert desk.json("tunnel", "list", "--socket", str(desk.place / "n"))[0]["name"] == "office"
        new, old = (desk.json("edge", "info", "--socket", str(desk.place / name)) for name in ("n", "s"))
        assert new["epoch"] > old["epoch"]
        assert new["network"] == old["network"]


def test_without_an_edge_every_command_says_so_and_leaves_nothing(away: Desk) -> None:
    for arguments in (
        ["tunnel", "create", "office"], ["tunnel", "list"], ["tunnel", "delete", "x"], ["edge", "info"],
        ["route", "ip", "add", "10.0.0.0/8", "--tunnel", "x"], ["route", "list"], ["route", "host", "delete", "x"],
        ["device", "add", "x", "--key-file", "k"], ["device", "list"], ["device", "delete", "x"],
    ):  # fmt: skip
        assert "warren edge run" in away.refused(*arguments)
    assert os.listdir() == []


def test_an_edge_that_fails_midway_leaves_no_secret_behind(away: Desk) -> None:
    with fake_api(away.place / "s") as api:
        fingerprint = load_credentials(away.place / "state").fingerprint
        api.answers[("GET", "/v1/info")] = (200, {"network": fingerprint})
        api.answers[("POST", "/v1/tunnels")] = (503, {"error": "the store can't do this now", "reason": "store"})
        assert "can't do this now" in away.refused("tunnel", "create", "office")
        assert "can't do this now" in away.refused("tunnel", "create", "office", "--print-token")
        assert "nothing at" in away.refused("device", "add", "laptop", "--key-file", "k")
        posted = [body for method, _, body in api.asked if method == "POST"]
    assert os.listdir() == []
    assert all(set(body) == {"id", "name", "authority", "statement", "revision"} for body in posted[:2])
    assert set(posted[2]) == {"name", "secret_hash", "expires"}


def test_init_never_overwrites(away: Desk) -> None:
    before = {path: path.read_bytes() for path in away.place.rglob("*") if path.is_file()}
    assert "already" in away.refused("edge", "init", "--public", "h", code=2)
    other = str(away.place / "other")
    assert "already" in away.refused("edge", "init", "--public", "h", "--admin-dir", other, code=2)
    assert "already" in away.refused("edge", "init", "--public", "h", "--state-dir", other, code=2)
    assert {path: path.read_bytes() for path in away.place.rglob("*") if path.is_file()} == before
    assert not Path(other).exists()


def test_files_that_are_open_or_missing_are_told(away: Desk) -> None:
    (away.place / "admin" / "network.pem").chmod(0o644)
    assert "chmod 600" in away.refused("tunnel", "create", "x", code=2)
    assert "--admin-dir" in away.refused("device", "add", "x", "--admin-dir", "/nonexistent", code=2)
    assert "edge init" in away.refused("edge", "run", "--state-dir", "/nonexistent", code=2)
    assert "IP address" in away.refused("edge", "run", "--listen-host", "edge.example.net", code=2)
    assert "--log-level" in away.refused("edge", "run", "--log-level", "loud", code=2)
    assert os.listdir() == []


def test_what_changes_something_tells_it_as_json_too(desk: Desk) -> None:
    tunnel = desk.json("tunnel", "create", "one")
    assert tunnel["name"] == "one"
    assert tunnel["token_file"] == "one.token"
    assert "token" not in tunnel
    printed = desk.json("tunnel", "create", "two", "--print-token")
    assert parse_tunnel_token(printed["token"]).tunnel == printed["id"]
    device = desk.json("device", "add", "laptop")
    assert parse_enrolment_key(device["key"])
    assert device["name"] == "laptop"
    assert "secret_hash" not in device
    route = desk.json("route", "ip", "add", "10.10.0.0/16", "--tunnel", "one")
    assert (route["value"], route["tunnel"]["id"]) == ("10.10.0.0/16", tunnel["id"])
    assert desk.json("route", "host", "add", "payroll.internal", "--tunnel", "one")["kind"] == "host"
    assert desk.json("route", "ip", "delete", "10.10.0.0/16")["id"] == route["id"]
    assert desk.json("route", "host", "delete", "payroll.internal")["value"] == "payroll.internal"
    assert desk.json("device", "delete", "laptop")["id"] == device["id"]
    assert desk.json("tunnel", "delete", "one")["id"] == tunnel["id"]
