"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from warren.dnsfilter.cli import app
from warren.fabric.core import dnswire as wire

RUNNER = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "ads.txt").write_text("||ads.example^\n/^track[0-9]+\\./\n@@||ok.ads.example^\n")
    path = tmp_path / "dns.yaml"
    path.write_text(f"""
listen: ["127.0.0.1:0"]
upstreams: [192.0.2.53]
state: {tmp_path}/state
lists: [{{name: ads, source: {tmp_path}/ads.txt}}]
policy:
  rules:
    - {{name: kids, action: block, who: {{groups: [kids]}}, names: ["*.games.example"]}}
    - {{name: no-ads, action: block, categories: [ads]}}
    - {{name: safe, action: safe-search, who: {{groups: [kids]}}}}
clients: [{{networks: [192.168.1.7], device: tablet, groups: [kids]}}]
expectations:
  - {{name: x.ads.example, expect: block, rule: no-ads}}
  - {{name: ok.ads.example, expect: allow}}
  - {{name: x.games.example, groups: [kids], expect: block}}
  - {{name: www.google.com, groups: [kids], expect: safe-search}}
""")
    return path


def invoked(*words: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def why(config: Path, *words: str) -> dict[str, str]:
    said: dict[str, str] = json.loads(invoked("test", *words, "--config", str(config), "--json"))
    return {key: value for key, value in said.items() if value}


def test_why_a_name_is_blocked(config: Path) -> None:
    assert why(config, "x.ads.example") == {
        "verdict": "blocked",
        "stage": "filtering",
        "rule": "no-ads",
        "list": "ads",
        "entry": "||ads.example^",
    }
    assert why(config, "track7.example")["entry"] == "/^track[0-9]+\\./"
    assert why(config, "a.games.example", "--as", "tablet")["rule"] == "kids"
    assert why(config, "a.games.example", "--as", "192.168.1.7")["rule"] == "kids"
    assert why(config, "a.games.example") == {"verdict": "forward", "upstream": "default (192.0.2.53:53)"}
    assert why(config, "payroll.internal")["rule"] == "zone internal"
    behind = why(config, "www.google.com", "--as", "tablet")
    assert behind["upstream"] == "default about forcesafesearch.google.com (192.0.2.53:53)"
    assert "rule: no-ads" in invoked("test", "x.ads.example", "-c", str(config))


def test_expectations(config: Path) -> None:
    assert invoked("policy", "test", "-c", str(config)).count("ok  ") == 4
    config.write_text(
        config.read_text().replace("name: x.ads.example, expect: block", "name: x.ads.example, expect: allow")
    )
    said = invoked("policy", "test", "-c", str(config), code=1)
    assert "FAIL x.ads.example A for anybody: expected allow by no-ads, is block by no-ads" in said
    assert "correct the rules or the expectation" in invoked("run", "-c", str(config), code=2)


def test_lists(config: Path) -> None:
    invoked("policy", "test", "-c", str(config))
    (line,) = invoked("lists", "-c", str(config), "--json").splitlines()
    assert json.loads(line).items() >= {"name": "ads", "entries": 3, "error": ""}.items()
    assert "ads" in invoked("lists", "-c", str(config))


def test_the_log(config: Path, tmp_path: Path) -> None:
    assert "there is no query log" in invoked("log", "-c", str(config), code=2)
    (tmp_path / "state").mkdir()
    now = time.time()
    lines = [
        {"time": now, "name": "a.x", "verdict": "blocked", "device": "d1"},
        {"time": now - 7200, "name": "b.y", "verdict": "cached", "address": "192.0.2.7"},
    ]
    (tmp_path / "state" / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(invoked("log", "-c", str(config)).splitlines()) == 2
    for words in (("--verdict", "blocked"), ("--device", "d1"), ("--name", "a.")):
        assert json.loads(invoked("log", "-c", str(config), *words)) == lines[0]
    assert "b.y" in invoked("top", "-c", str(config)) and "192.0.2.7" in invoked("top", "-c", str(config))
    assert "b.y" not in invoked("top", "-c", str(config), "--hours", "1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "-c", "/nosuch.yaml"), "No such file"),
        (("run", "--upstream", "nowhere", "--state", "/tmp"), "is no upstream"),
        (("run", "--upstream", "192.0.2.1", "--state", "/proc/nosuch"), "name a directory that can be written to"),
        (("run", "--upstream", "192.0.2.1", "--listen", "here", "--state", "{tmp}"), "give address and port"),
        (("test", "a..b", "--as", "127.0.0.1", "-c", "{config}"), "not a domain name"),
        (("test", "a.b", "--type", "BOGUS", "-c", "{config}"), "no query type"),
        (("test", "a.b", "--as", "stranger", "-c", "{config}"), "no client of the configuration; there are tablet"),
    ],
)
def test_wrong_input_is_one_line(words: tuple[str, ...], said: str, config: Path, tmp_path: Path) -> None:
    output = invoked(*(word.format(config=config, tmp=tmp_path) for word in words), code=2)
    assert said in output and output.strip().count("\n") == 0


def test_nobody_to_ask_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.dnsfilter.cli.for_this_host", lambda settings: settings)
    assert "name one, as in --upstream 192.0.2.53" in invoked("run", "--state", str(tmp_path), code=2)


def test_help_teaches() -> None:
    assert "--upstream" in invoked("run", "--help")


def test_run_answers_and_stops(config: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "warren.dnsfilter.cli", "run", "-c", str(config), "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"NO_COLOR": "1"}) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if b"answering on" in line:
                    break
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.settimeout(5)
                udp.sendto(wire.build_query(5, wire.name_wire("x.ads.example"), wire.A), ("127.0.0.1", port))
                assert udp.recv(4096)[3] & 15 == wire.NXDOMAIN
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_policy_is_applied_to_a_resolver_that_runs(config: Path, tmp_path: Path) -> None:
    """Instead of the configuration's; a broken expectation stops it; the server takes it without a restart."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("""
rules: [{name: only, action: block, names: ["*.bad.example"]}]
expectations: [{name: x.bad.example, expect: block, rule: only}]
""")
    other = tmp_path / "other.yaml"
    other.write_text('rules: [{name: other, action: block, names: ["*.worse.example"]}]')
    port = free_port()
    config.write_text(config.read_text().replace('["127.0.0.1:0"]', f'["127.0.0.1:{port}"]'))
    words = [sys.executable, "-m", "warren.dnsfilter.cli"]
    with subprocess.Popen([*words, "run", "-c", str(config)], stderr=subprocess.DEVNULL) as server:
        try:
            assert asked(port, "x.ads.example") == wire.NXDOMAIN
            shown = invoked("policy", "apply", str(policy), "-c", str(config), "--dry-run")
            assert "- rule no-ads" in shown and "+ rule only" in shown
            invoked("policy", "apply", str(policy), "-c", str(config))
            deadline = time.monotonic() + 20
            while asked(port, "x.bad.example") != wire.NXDOMAIN:
                assert time.monotonic() < deadline
            broken = tmp_path / "broken.yaml"
            broken.write_text("expectations: [{name: x.bad.example, expect: block}]")
            assert "expected block, is allow" in invoked("policy", "apply", str(broken), "-c", str(config), code=2)
            assert invoked("policy", "show", "-c", str(config)) == policy.read_text().rstrip("\n") + "\n"
            assert "ok   x.bad.example" in invoked("policy", "test", "-c", str(config))
            invoked("policy", "apply", str(other), "-c", str(config), "--note", "school has begun")
            assert "school has begun" in invoked("policy", "history", "-c", str(config))
            assert "+ rule only" in invoked("policy", "rollback", "-c", str(config))
            assert invoked("policy", "show", "-c", str(config)) == policy.read_text().rstrip("\n") + "\n"
            assert invoked("policy", "show", "--number", "2", "-c", str(config)).strip() == other.read_text()
            history = [
                json.loads(line) for line in invoked("policy", "history", "--json", "-c", str(config)).splitlines()
            ]
            assert [(entry["number"], entry["note"]) for entry in history] == [
                *((3, "back to 1"), (2, "school has begun"), (1, ""))
            ]
            assert "there is no policy 9" in invoked("policy", "rollback", "9", "-c", str(config), code=2)
            assert "FAIL x.bad.example" in invoked("policy", "test", str(broken), "-c", str(config), code=1)
            again = subprocess.run([*words, "run", "-c", str(config)], capture_output=True, text=True, check=False)
            assert "another resolver runs" in again.stderr
        finally:
            server.send_signal(signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def asked(port: int, name: str) -> int:
    """The code of the answer; asked until somebody answers."""
    query = wire.build_query(7, wire.name_wire(name), wire.A)
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            sock.connect(("127.0.0.1", port))
            try:
                sock.send(query)
                return sock.recv(4096)[3] & 15
            except TimeoutError:
                return -1 if name != "x.ads.example" else asked(port, name)
            except OSError:
                time.sleep(0.1)
    raise AssertionError("nobody answers")
