"""Who asks decides: lists, policy, and what is seen of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.dns.conftest import Two, counted, dig, metrics, short
from warren.lab import wait_until
from warren.lab.services import PAGE

POLICY = """
rules:
  - {name: no-games, action: block, who: {groups: [kids]}, names: ["*.games.example"]}
  - {name: no-ads, action: block, categories: [ads]}
expectations:
  - {name: play.games.example, groups: [kids], expect: block, rule: no-games}
  - {name: play.games.example, expect: allow}
  - {name: ads.example.com, expect: block, rule: no-ads}
"""


@pytest.fixture(scope="module")
def policy(two: Two) -> Iterator[None]:
    """Applied, with the tablet in the hands of a child."""
    two.warren("device", "set", "tablet", "--user", "mia", "--group", "kids", "--tag", "managed")
    two.edge.write("/root/policy.yaml", POLICY)
    two.warren("dns", "policy", "apply", "/root/policy.yaml", "--note", "school")
    yield


def test_a_listed_name_is_blocked_and_the_answer_names_the_rule(two: Two) -> None:
    said = dig(two.laptop, "ads.example.com")
    assert "status: NXDOMAIN" in said
    assert "rule lists, list ads" in said


def test_a_public_name_is_answered_through_the_edge(two: Two) -> None:
    assert short(two.laptop, "www.example.com") == ["203.0.113.1"]
    assert short(two.laptop, "+tcp", "www.example.com") == ["203.0.113.1"]
    seen = json.loads(two.warren("dns", "test", "www.example.com", "--as", "laptop", "--ask", "--json"))
    assert seen["verdict"] in ("cached", "forwarded")
    assert seen["upstream"] == "192.0.2.53:53"


def test_routed_names_are_as_before(two: Two) -> None:
    assert short(two.laptop, "payroll.internal")[0].startswith("100.80.")
    assert two.laptop.run(["curl", "-s", "--max-time", "10", "http://payroll.internal/"]).stdout == PAGE


def test_devices_have_policies_of_their_own(two: Two, policy: None) -> None:
    assert short(two.laptop, "play.games.example") == ["203.0.113.1"]
    said = dig(two.tablet, "play.games.example")
    assert "status: NXDOMAIN" in said and "rule no-games" in said
    for host in (two.laptop, two.tablet):
        assert "rule no-ads, list ads" in dig(host, "ads.example.com")


def test_why_is_told_by_the_code_that_decides(two: Two, policy: None) -> None:
    def why(name: str, device: str) -> dict[str, str]:
        said: dict[str, str] = json.loads(two.warren("dns", "test", name, "--as", device, "--json"))
        return said

    assert why("play.games.example", "tablet")["rule"] == "no-games"
    assert why("play.games.example", "laptop")["verdict"] in ("forward", "cached")
    assert why("ads.example.com", "tablet")["entry"] == "ads.example.com"
    routed = why("payroll.internal", "laptop")
    assert (routed["verdict"], routed["tunnel"]) == ("host_route", "office")


def test_a_broken_expectation_stops_an_apply(two: Two, policy: None) -> None:
    before = two.warren("dns", "policy", "show")
    two.edge.write("/root/broken.yaml", POLICY.replace('names: ["*.games.example"]', "names: [games.example]"))
    done = two.edge.run(["warren", "dns", "policy", "apply", "/root/broken.yaml"], check=False)
    assert done.returncode == 1
    assert "play.games.example A for kids: expected block by no-games" in done.stderr
    assert two.warren("dns", "policy", "show") == before
    assert "status: NXDOMAIN" in dig(two.tablet, "play.games.example")


def test_a_policy_comes_back(two: Two, policy: None) -> None:
    two.edge.write("/root/open.yaml", "rules: []\n")
    shown = two.warren("dns", "policy", "apply", "/root/open.yaml", "--dry-run")
    assert "- rule no-games" in shown
    assert "status: NXDOMAIN" in dig(two.tablet, "play.games.example")
    two.warren("dns", "policy", "apply", "/root/open.yaml")
    assert short(two.tablet, "play.games.example") == ["203.0.113.1"]
    two.warren("dns", "policy", "rollback")
    assert "status: NXDOMAIN" in dig(two.tablet, "play.games.example")
    newest, *_ = json.loads(two.warren("dns", "policy", "history", "--json"))
    assert newest["note"] == "back to 1"


def test_the_policy_and_the_persons_outlive_the_edge(two: Two, policy: None) -> None:
    two.restart_edge()
    wait_until(lambda: "rule no-games" in dig(two.tablet, "play.games.example", check=False), "the edge again", 20)


def test_queries_are_seen_with_device_and_user(two: Two, policy: None) -> None:
    dig(two.tablet, "seen.games.example")

    def seen() -> list[dict[str, str]]:
        lines = two.warren("logs", "dns", "--all", "--json", "--name", "seen.games").splitlines()
        return [json.loads(line) for line in lines]

    wait_until(seen, "the line in the log", 10)
    (line,) = seen()
    assert (line["device"], line["user"], line["verdict"], line["rule"]) == ("tablet", "mia", "blocked", "no-games")
    assert two.warren("logs", "dns", "--all", "--device", "laptop", "--name", "seen.games") == ""
    assert "seen.games.example" in two.warren("dns", "top")
    assert "ads" in two.warren("dns", "lists")


def test_a_log_is_followed(two: Two) -> None:
    following = two.deployment.start("follow", two.edge, "logs", "dns", "--follow", "--last", "0")
    try:

        def seen() -> bool:
            dig(two.laptop, "followed.example.com")
            return "followed.example.com" in following.output()

        wait_until(seen, "the query in what is followed", 20)
    finally:
        following.stop()
        two.deployment.daemons.pop("follow")


def test_counters_have_bounded_labels(two: Two, policy: None) -> None:
    page = metrics(two.edge)
    assert counted(page, 'warren_edge_dns_queries_total{verdict="blocked"}') >= 1
    assert 'warren_edge_dns_list_entries{list="ads"} 2' in page
    assert "example" not in page


def test_a_list_is_swapped_while_it_is_in_use(two: Two, policy: None) -> None:
    two.edge.write("/etc/warren/ads.hosts", "0.0.0.0 ads.example.com\n0.0.0.0 late.example.com\n")
    two.warren("dns", "lists", "--refresh")
    wait_until(lambda: "list ads" in dig(two.laptop, "late.example.com"), "the new list", 20)
    assert "status: NXDOMAIN" in dig(two.laptop, "ads.example.com")
