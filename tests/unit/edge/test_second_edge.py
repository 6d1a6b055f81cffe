"""A further edge: its credentials, carried in a file; the list with it and without it; what a running edge takes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from warren.edge import admin, archive, state
from warren.edge.admin import Administrator
from warren.edge.edgelist import KnownEdges
from warren.edge.state import load_credentials
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.statements import Edge, EdgeList, sign_edges, verify_edges


@pytest.fixture
def place(tmp_path: Path) -> Path:
    admin.create(tmp_path / "admin", tmp_path / "first", Edge("a" * 20, "edge.example.net", 4433, "fra"))
    return tmp_path


@pytest.fixture
def administrator(place: Path) -> Administrator:
    return Administrator(place / "admin")


def test_a_second_edge_is_carried_to_its_host(place: Path, administrator: Administrator) -> None:
    made = administrator.new_edge("paris", "paris.example.net", 443)
    archive.bundle(place / "paris.edge", made.credentials)
    assert stat.S_IMODE((place / "paris.edge").stat().st_mode) == 0o600
    joined = archive.join(place / "paris.edge", place / "second")
    first, second = load_credentials(place / "first"), load_credentials(place / "second")
    assert joined.edge == second.edge == made.edge
    assert [edge.name for edge in second.edges.edges] == ["fra", "paris"]
    assert second.edges.revision == first.edges.revision + 1
    assert second.key != first.key
    grant = second.issuer.permit("0" * 64, "a" * 20, 10.0)
    assert second.verifier().permit(grant, 9.0).edge == made.edge.id
    with pytest.raises(DeniedError, match="not on the network's list"):
        first.verifier().permit(grant, 9.0)
    with pytest.raises(ConfigError, match="--force"):
        archive.join(place / "paris.edge", place / "second")
    assert sorted(os.listdir(place)) == ["admin", "first", "paris.edge", "second"]


def test_names_and_places_are_taken_once(administrator: Administrator) -> None:
    for name, host, port in (("fra", "other.example", 4433), ("other", "edge.example.net", 4433)):
        with pytest.raises(ConfigError, match="there is an edge fra"):
            administrator.new_edge(name, host, port)
    with pytest.raises(ConfigError, match="no name of a"):
        administrator.new_edge("a b", "h.example", 1)


def test_an_edge_is_taken_off_the_list(place: Path, administrator: Administrator) -> None:
    with pytest.raises(ConfigError, match="one edge at least"):
        administrator.list_without("fra")
    made = administrator.new_edge("paris", "paris.example.net", 443)
    administrator.keep_edges(made.signed)
    with pytest.raises(ConfigError, match="there are fra, paris"):
        administrator.list_without("rome")
    gone, signed = Administrator(place / "admin").list_without("fra")
    said = verify_edges(signed, administrator.network)
    assert (gone.name, said.revision, [edge.name for edge in said.edges]) == ("fra", 3, ["paris"])


def test_a_running_edge_keeps_the_newest_list(place: Path, administrator: Administrator) -> None:
    credentials = load_credentials(place / "first")
    known = KnownEdges(credentials, place / "first")
    made = administrator.new_edge("paris", "paris.example.net", 443)
    assert not known.take(b"")
    assert not known.take(credentials.signed_edges)
    assert known.take(made.signed)
    assert not known.take(made.signed)
    assert not known.take(credentials.signed_edges)
    assert (place / "first" / state.EDGES).read_bytes() == made.signed
    assert len(load_credentials(place / "first").edges.edges) == 2


def test_another_networks_list_is_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = KnownEdges(load_credentials(place / "first"), place / "first")
    forged = sign_edges(keys.generate(), EdgeList(9, (Edge("b" * 20, "h.example", 1),)))
    assert not known.take(forged)
    assert certificates.fingerprint(known.signed) != certificates.fingerprint(forged)
    assert "not this network's" in capsys.readouterr().out
