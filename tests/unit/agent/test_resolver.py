"""resolv.conf: what is written, and that what was there comes back exactly, or another program's file stays."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.agent.host.journal import Journal
from warren.agent.host.resolver import MAX_SIZE, Previous, ResolvConf, open_resolver, previous, render
from warren.agent.host.undo import UNDOERS
from warren.fabric.core.errors import ConfigError

OURS = IPv4Address("100.80.0.2")
BEFORE = b"; a comment\nsearch home.example  lan\nnameserver 192.168.1.1\nnameserver fe80::1%eth0\noptions edns0\n"


class Host:
    def __init__(self, tmp_path: Path) -> None:
        self.etc = tmp_path / "etc"
        self.etc.mkdir()
        self.file = self.etc / "resolv.conf"
        self.journal = Journal.open(tmp_path / "state", UNDOERS)
        self.resolver = ResolvConf(self.journal, OURS, self.file)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_installed_and_put_back_exactly(host: Host) -> None:
    host.file.write_bytes(BEFORE)
    host.file.chmod(0o640)
    seen = host.resolver.install()
    assert seen == Previous(("192.168.1.1", "fe80::1%eth0"), ("home.example", "lan"))
    lines = host.file.read_text().splitlines()
    assert lines[1:] == ["nameserver 100.80.0.2", "search home.example  lan", "options edns0"]
    assert host.file.stat().st_mode & 0o777 == 0o644
    assert host.resolver.still_ours()
    assert host.resolver.undo() is None
    assert host.file.read_bytes() == BEFORE
    assert host.file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(host.etc) == ["resolv.conf"]


def test_a_symbolic_link_comes_back_and_its_target_is_never_written(host: Host) -> None:
    target = host.etc / "stub.conf"
    target.write_bytes(BEFORE)
    host.file.symlink_to("stub.conf")
    assert host.resolver.install().nameservers[0] == "192.168.1.1"
    assert not host.file.is_symlink()
    assert target.read_bytes() == BEFORE
    assert host.resolver.undo() is None
    assert os.readlink(host.file) == "stub.conf"


def test_absent_before_absent_after(host: Host) -> None:
    assert host.resolver.install() == Previous(())
    assert host.file.exists()
    host.resolver.undo()
    assert os.listdir(host.etc) == []


@pytest.mark.parametrize("how", ["content", "link", "gone"])
def test_another_programs_change_is_left_alone(host: Host, how: str) -> None:
    host.file.write_bytes(BEFORE)
    host.resolver.install()
    host.file.unlink()
    if how == "content":
        host.file.write_text("nameserver 9.9.9.9\n")
    elif how == "link":
        host.file.symlink_to("elsewhere")
    now = sorted(os.listdir(host.etc))
    assert not host.resolver.still_ours()
    note = host.resolver.undo()
    assert note is not None
    assert "another program" in note
    assert sorted(os.listdir(host.etc)) == now
    if how == "content":
        assert host.file.read_text() == "nameserver 9.9.9.9\n"


def test_cut_off_while_writing_in_place(host: Host) -> None:
    host.file.write_bytes(BEFORE)
    host.resolver.install()
    host.file.write_bytes(host.file.read_bytes()[:20])
    assert host.resolver.undo() is None
    assert host.file.read_bytes() == BEFORE


def test_too_long_is_refused_untouched(host: Host) -> None:
    host.file.write_bytes(b"#" * (MAX_SIZE + 1))
    with pytest.raises(ConfigError, match="longer than"):
        open_resolver(host.journal, OURS, "warren0", host.file).install()
    assert host.file.stat().st_size == MAX_SIZE + 1


@given(st.binary(max_size=200))
def test_total(content: bytes) -> None:
    rendered = render(content, OURS)
    assert previous(rendered, OURS).nameservers == ()
    assert rendered.count(b"nameserver 100.80.0.2\n") >= 1
    previous(content, OURS)


def test_search_domains_stand_behind_those_that_are_there() -> None:
    content = b"nameserver 192.0.2.53\ndomain old.example\nsearch home.example corp.example\noptions edns0\n"
    rendered = render(content, OURS, ("corp.example", "lab.example"))
    assert previous(rendered, OURS).search == ("home.example", "corp.example", "lab.example")
    assert b"options edns0\n" in rendered and b"old.example" not in rendered
    assert b"search a.example b.example\n" in render(b"", OURS, ("a.example", "b.example"))
    many = tuple(f"d{number}.example" for number in range(9))
    assert len(previous(render(content, OURS, many), OURS).search) == 6
