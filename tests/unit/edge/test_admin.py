from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from warren.edge import admin, state
from warren.edge.admin import Administrator, KnownTunnel, NewTunnel, parse_public
from warren.edge.state import load_credentials
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.statements import Edge, EdgeList, verify_tunnel
from warren.fabric.identity.tokens import parse_enrolment_key, parse_tunnel_token


def create(place: Path, host: str = "edge.example.net") -> Edge:
    edge = Edge(keys.new_id(), host, 4433, "fra")
    admin.create(place / "admin", place / "state", edge)
    return edge


def test_a_new_network_has_its_keys_in_the_hands_that_hold_them(tmp_path: Path) -> None:
    edge = create(tmp_path)
    credentials = load_credentials(tmp_path / "state")
    administrator = Administrator(tmp_path / "admin")
    assert credentials.edge == edge
    assert credentials.network == administrator.network
    assert credentials.fingerprint == administrator.fingerprint
    secret = keys.private_pem(administrator.network_key())
    held = b"".join((tmp_path / "state" / name).read_bytes() for name in os.listdir(tmp_path / "state"))
    assert secret not in held
    assert (tmp_path / "admin" / admin.AUTHORITY_KEY).read_bytes() not in held
    for directory in ("admin", "state"):
        assert stat.S_IMODE((tmp_path / directory).stat().st_mode) == 0o700
        for file in (tmp_path / directory).iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_grants_of_the_new_edge_verify(tmp_path: Path) -> None:
    create(tmp_path)
    credentials = load_credentials(tmp_path / "state")
    permit = credentials.issuer.permit("0" * 64, "a" * 20, 10.0)
    assert credentials.verifier().permit(permit, 9.0).edge == credentials.edge.id


def test_nothing_is_overwritten_and_nothing_left_behind(tmp_path: Path) -> None:
    create(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for admin_dir, state_dir in [("admin", "other"), ("other", "state"), ("admin", "state")]:
        with pytest.raises(ConfigError, match="already"):
            admin.refuse_existing(tmp_path / admin_dir, tmp_path / state_dir)
        with pytest.raises(ConfigError):
            admin.create(tmp_path / admin_dir, tmp_path / state_dir, Edge(keys.new_id(), "h", 1))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sorted(os.listdir(tmp_path)) == ["admin", "state"]


def test_a_store_that_fails_takes_the_keys_with_it(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise ConfigError("no room")

    with pytest.raises(ConfigError, match="no room"):
        admin.create(tmp_path / "admin", tmp_path / "state", Edge(keys.new_id(), "h", 1), fail)
    assert os.listdir(tmp_path) == []


def test_a_new_tunnel_is_signed_and_its_key_is_in_the_token_only(tmp_path: Path) -> None:
    create(tmp_path)
    administrator = Administrator(tmp_path / "admin")
    tunnel = administrator.new_tunnel("office")
    said = verify_tunnel(tunnel.statement, tunnel.authority, administrator.network)
    assert (said.tunnel, said.revision) == (tunnel.id, tunnel.revision)
    assert parse_tunnel_token(str(tunnel.token)) == tunnel.token
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert tunnel.token.private not in everything


def test_an_enrolment_key_works_for_an_hour(tmp_path: Path) -> None:
    create(tmp_path)
    key = Administrator(tmp_path / "admin").new_enrolment_key()
    assert 3500 < key.expires - time.time() <= 3600
    assert parse_enrolment_key(str(key)) == key
    assert key.secret != Administrator(tmp_path / "admin").new_enrolment_key().secret


def test_keys_that_are_missing_open_or_mixed_up_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--admin-dir"):
        Administrator(tmp_path / "admin")
    create(tmp_path)
    (tmp_path / "admin" / admin.NETWORK_KEY).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Administrator(tmp_path / "admin").new_tunnel("office")
    keys.save(tmp_path / "admin" / admin.NETWORK_KEY, keys.generate(), replace=True)
    with pytest.raises(ConfigError, match="does not belong"):
        Administrator(tmp_path / "admin").new_tunnel("office")
    (tmp_path / "admin" / admin.EDGES).write_bytes(b"x" * 99)
    with pytest.raises(ConfigError, match="damaged"):
        Administrator(tmp_path / "admin")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("edge.example.net", "edge.example.net", 4433),
        ("Edge.Example.net:7000", "edge.example.net", 7000),
        ("192.0.2.1", "192.0.2.1", 4433),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("2001:db8::1", "2001:db8::1", 4433),
        ("[2001:db8::1]", "2001:db8::1", 4433),
        ("[2001:DB8::1]:65535", "2001:db8::1", 65_535),
        ("edge", "edge", 4433),
    ],
)
def test_where_an_edge_is_reached(text: str, host: str, port: int) -> None:
    assert parse_public(text, 4433) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":4433", "host:", "host:0", "host:65536", "host:x", "a b", "http://x", "192.0.2.300", "0.0.0.0", "::",
     "224.0.0.1", "[192.0.2.1]:4433", "[edge]:1", "-x.example", "x..y", "a" * 300, "host:4433\n", "[::1", "é.example",
     "2001:db8::1:99999"],
)  # fmt: skip
def test_where_no_edge_is_reached(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_public(text, 4433)
    assert "\n" not in str(caught.value)


# ---- the edge's half ----


def test_an_edge_is_what_its_files_say_or_a_line_that_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="edge init"):
        load_credentials(tmp_path / "state")
    create(tmp_path / "a")
    create(tmp_path / "b")
    for name in state.CREDENTIALS:
        path = tmp_path / "a" / "state" / name
        honest = path.read_bytes()
        for data in ((tmp_path / "b" / "state" / name).read_bytes(), b"", honest[:50]):
            path.write_bytes(data)
            with pytest.raises(ConfigError) as caught:
                load_credentials(tmp_path / "a" / "state")
            assert "\n" not in str(caught.value)
        path.write_bytes(honest)
        path.chmod(0o640)
        with pytest.raises(ConfigError, match="chmod 600"):
            load_credentials(tmp_path / "a" / "state")
        path.chmod(0o600)
    load_credentials(tmp_path / "a" / "state")


def test_an_edge_that_the_list_dropped_is_told(tmp_path: Path) -> None:
    create(tmp_path)
    key = Administrator(tmp_path / "admin").network_key()
    other = EdgeList(2, (Edge(keys.new_id(), "other.example.net", 1),))
    (tmp_path / "state" / state.EDGES).write_bytes(admin.sign_edges(key, other))
    with pytest.raises(ConfigError, match="not on the network's list"):
        load_credentials(tmp_path / "state")


def test_one_edge_at_a_time_has_the_directory(tmp_path: Path) -> None:
    with state.locked(tmp_path), pytest.raises(ConfigError, match="an edge runs"), state.locked(tmp_path):
        pass
    with state.locked(tmp_path):
        pass
    with pytest.raises(ConfigError, match="can't be opened"), state.locked(tmp_path / "none"):
        pass


def test_the_credentials_tell_no_secret(tmp_path: Path) -> None:
    create(tmp_path)
    credentials = load_credentials(tmp_path / "state")
    assert "PRIVATE" not in repr(credentials)
    assert certificates.from_pem(credentials.chain)[0] == credentials.leaf


def shown(tunnel: NewTunnel) -> KnownTunnel:
    return KnownTunnel(tunnel.id, tunnel.name, tunnel.authority, tunnel.statement)


def test_a_rotated_tunnel_keeps_its_id_and_its_old_key_for_a_while(tmp_path: Path) -> None:
    create(tmp_path)
    administrator = Administrator(tmp_path / "admin")
    first = administrator.new_tunnel("office")
    second = administrator.rotate(shown(first), 1000)
    token = parse_tunnel_token(str(second.token))
    said = verify_tunnel(second.statement, second.authority, administrator.network)
    assert (token.tunnel, said.revision, said.until) == (first.id, 2, 1000)
    assert said.former == certificates.fingerprint(first.authority)
    assert token.authority != first.authority
    statement, revision = administrator.finish(shown(second))
    last = verify_tunnel(statement, second.authority, administrator.network)
    assert (last.revision, revision, last.former) == (3, 3, b"")


def test_an_edge_can_not_have_a_key_of_its_own_signed(tmp_path: Path) -> None:
    create(tmp_path)
    administrator = Administrator(tmp_path / "admin")
    first, other = administrator.new_tunnel("office"), administrator.new_tunnel("lab")
    own = certificates.make_tunnel_authority(keys.generate(), first.id)
    for lie in (
        KnownTunnel(first.id, "office", own, first.statement),
        KnownTunnel(first.id, "office", own, b"x" * 100),
        KnownTunnel(first.id, "office", other.authority, other.statement),
    ):
        with pytest.raises(ConfigError, match="tunnel office"):
            administrator.rotate(lie, 1000)
        with pytest.raises(ConfigError, match="tunnel office"):
            administrator.finish(lie)


def test_a_key_that_was_replaced_before_is_not_kept_again(tmp_path: Path) -> None:
    create(tmp_path)
    administrator = Administrator(tmp_path / "admin")
    first = administrator.new_tunnel("office")
    second = administrator.rotate(shown(first), 1000)
    administrator.remember(second.id, second.revision)
    assert stat.S_IMODE((tmp_path / "admin" / admin.REVISIONS).stat().st_mode) == 0o600
    again = administrator.rotate(shown(first), 1000)
    said = verify_tunnel(again.statement, again.authority, administrator.network)
    assert (said.revision, said.former, said.until) == (3, b"", 0)
    with pytest.raises(ConfigError, match="rotate it once more"):
        administrator.finish(shown(first))
