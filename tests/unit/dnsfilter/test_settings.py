"""The configuration file: what it says, and what is wrong with it in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.core.config import Upstream, parse_upstream
from warren.dnsfilter.core.policy import CompiledPolicy, ListInfo
from warren.dnsfilter.offline import for_this_host, settings_of
from warren.dnsfilter.settings import Settings, load, parse
from warren.fabric.core.errors import ConfigError

FULL = b"""
listen: ["127.0.0.1:5353"]
upstreams: ["192.0.2.53", "[2001:db8::53]:5353"]
groups:
  corp: {upstreams: [10.10.0.53], racing: true}
zones:
  - {name: corp.example, group: corp}
lists:
  - {name: ads, source: "https://lists.example/ads.txt", categories: [ads]}
  - {name: mine, source: /etc/warren/allow.txt, kind: allow}
policy:
  answer: zero
  rules:
    - name: homework
      action: block
      who: {groups: [kids]}
      when: {days: [mon, tue], from: "14:00", to: "16:00", zone: Europe/Berlin}
      names: ["*.games.example"]
    - {name: ads, action: block, categories: [ads]}
clients:
  - {networks: [192.168.1.7], device: tablet, user: mia, groups: [kids]}
  - {networks: [192.168.0.0/16], groups: [home]}
"""


def test_the_whole_of_it() -> None:
    settings = parse(FULL, "dns.yaml")
    config = settings.resolver_config()
    assert config.groups["default"].upstreams == (Upstream("192.0.2.53"), Upstream("2001:db8::53", 5353))
    assert config.groups["corp"].order == "racing"
    assert settings.policy is not None
    CompiledPolicy(settings.policy, [ListInfo("ads", categories=("ads",))], tuple(config.groups))
    book = ClientBook(settings.clients)
    assert book.of("192.168.1.7").user == "mia" and book.of("::ffff:192.168.1.7").user == "mia"
    assert book.of("192.168.1.8").groups == {"home"} and book.of("203.0.113.1").address == "203.0.113.1"
    assert book.named("tablet") == book.of("192.168.1.7") == book.named("mia")


def test_nothing_at_all_is_fine() -> None:
    assert parse(b"", "dns.yaml").resolver_config().groups == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"listne: []", r"unknown field `listne`"),
        (
            b"policy: {rules: [{name: r, action: blok}]}",
            r"Invalid enum value 'blok' - at `\$\.policy\.rules\[0\]\.action`",
        ),
        (b"policy: {rules: [{name: r, action: block, when: {start: '1:00'}}]}", r"unknown field `start`"),
        (b"upstreams: [nowhere]", r"'nowhere' is no upstream; give an address"),
        (b"upstreams: ['192.0.2.1:0']", r"between 1 and 65535"),
        (b"upstreams: [192.0.2.1]\ngroups: {default: {upstreams: [192.0.2.2]}}", r"keep one of them"),
        (b"groups: {g: {upstreams: []}}", r"dns.groups.g: no upstreams"),
        (b"zones: [{name: a.example, group: nosuch}]", r"which is not in dns.groups"),
        (b"zones: [{name: 'a..b'}]", r"not a domain name"),
        (b"lists: [{name: a, source: /x}, {name: a, source: /y}]", r"'a' is there twice"),
        (b"lists: [{name: ../x, source: /x}]", r"'../x' is no name"),
        (b"clients: [{networks: [here]}]", r"'here' is no network"),
        (b"refresh_hours: 0", r"above 0"),
        (b"listen: {", r"dns.yaml, line \d: "),
        (b"listen: 5", r"Expected `array`, got `int` - at `\$.listen`"),
        (b"- a", r"Expected `object`, got `array`"),
        (b"listen: !!python/object:os.system [x]", r"dns.yaml"),
        (b"\xff\xfe\xff", r"dns.yaml"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse(text, "dns.yaml")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("dns.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file or directory; give the path"):
        load(tmp_path / "nosuch.yaml")


def test_a_client_that_nobody_knows() -> None:
    with pytest.raises(ConfigError, match="no client of the configuration; there are tablet"):
        ClientBook(parse(FULL, "dns.yaml").clients[:1]).named("phone")


@pytest.mark.parametrize("text", ["", ":53", "[::1", "1.2.3.4:x", "1.2.3.4:70000", "host.example"])
def test_no_upstreams(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_upstream(text)


def test_what_this_host_has_where_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for uid, listen, state, upstreams in (
        (0, "127.0.0.1:53", "/var/lib/warren/dns", ("192.0.2.53",)),  # never itself
        (1000, "127.0.0.1:5353", f"{tmp_path}/warren/dns", ("127.0.0.1", "192.0.2.53")),
    ):
        monkeypatch.setattr("os.geteuid", lambda uid=uid: uid)
        chosen = for_this_host(Settings(), conf)
        assert (chosen.listen, chosen.state, chosen.upstreams) == ((listen,), state, upstreams)
    everywhere = settings_of(None, ["0.0.0.0:53"], None, tmp_path, ["https://lists.example/ads.txt", "/etc/ads"])
    chosen = for_this_host(everywhere, conf)
    assert (chosen.listen, chosen.state) == (("0.0.0.0:53",), str(tmp_path))
    assert chosen.upstreams == ("192.0.2.53",)
    assert [entry.name for entry in chosen.lists] == ["https-lists-example-ads-txt", "etc-ads"]
    assert for_this_host(settings_of(None, None, ["192.0.2.1"]), conf).upstreams == ("192.0.2.1",)
    assert for_this_host(Settings(), tmp_path / "nothing").upstreams == ()
