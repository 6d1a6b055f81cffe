"""The file and the flags: what wins, and what an error says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from warren.agent.config import AgentConfig
from warren.connector.config import ConnectorConfig
from warren.edge.config import EdgeConfig
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon import settings
from warren.fabric.daemon.settings import plain, read


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


def test_without_a_file_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DIRECTORY", tmp_path)
    assert read(AgentConfig, "agent", None) == AgentConfig()
    assert read(EdgeConfig, "edge", None) == EdgeConfig()
    assert read(ConnectorConfig, "connector", None).drain == 30


def test_the_usual_file_is_read_if_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DIRECTORY", tmp_path)
    (tmp_path / "edge.yaml").write_text("listen_port: 443\n")
    assert read(EdgeConfig, "edge", None).listen_port == 443
    assert read(AgentConfig, "agent", None) == AgentConfig()


def test_every_key_of_an_agent(tmp_path: Path) -> None:
    text = """
    state_dir: /srv/warren
    socket: /run/w.sock
    interface: w0
    include: [10.10.0.0/16, "2001:db8::/32"]
    exclude: [10.10.9.0/24]
    dns: {system: false, scope: everything, local: [Fritz.Box.]}
    engine: aioquic
    log: {level: debug, file: /var/log/w.log, format: json}
    """
    said = read(AgentConfig, "agent", written(tmp_path, text))
    assert said.state == Path("/srv/warren")
    assert said.include == ("10.10.0.0/16", "2001:db8::/32")
    assert said.exclude == ("10.10.9.0/24",)
    assert (said.dns.system, said.dns.scope, said.dns.local) == (False, "everything", ("fritz.box",))
    assert said.log.file == Path("/var/log/w.log")
    assert plain(said)["log"] == {"level": "debug", "file": "/var/log/w.log", "format": "json"}
    assert plain(said)["state_dir"] == "/srv/warren"


def test_flags_win_key_by_key(tmp_path: Path) -> None:
    path = written(tmp_path, "drain: 5\nallow: [10.0.0.0/8]\nlog: {level: debug, format: json}\n")
    flags = {"drain": None, "allow": ["192.168.0.0/16:22"], "log.level": "error", "metrics": "[::1]:9310"}
    said = read(ConnectorConfig, "connector", path, flags)
    assert said.drain == 5
    assert str(said.ceiling) == "192.168.0.0/16:22"
    assert (said.log.level, said.log.format) == ("error", "json")
    assert str(said.metrics) == "[::1]:9310"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokn_file: x", r"x.yaml: tokn_file: there is no such key; there are token_file, allow, drain"),
        ("token: warren-tunnel-x", r"x.yaml: token: there is no such key"),
        ("log: {levle: x}", r"x.yaml: log.levle: there is no such key; there are level, file, format"),
        ("log: {level: loud}", r"x.yaml: log.level: use one of debug, info, warning, error"),
        ("log: 3", r"x.yaml: log: Expected object, got int"),
        ("drain: soon", r"x.yaml: drain: Expected float, got str"),
        ("drain: -1", r"x.yaml: drain: Expected float >= 0"),
        ("allow: 10.0.0.0/8", r"x.yaml: allow: a list is wanted"),
        ("allow: [10.0.0.1/8]", r"x.yaml: allow: 10.0.0.1/8: use CIDR or CIDR:PORTS"),
        ("metrics: localhost", r"x.yaml: metrics: 'localhost' is no ADDRESS:PORT"),
        ("metrics: 9310", r"x.yaml: metrics: 9310 is no ADDRESS:PORT"),
        ("metrics: 127.0.0.1:0", r"no ADDRESS:PORT"),
        ("metrics: 127.0.0.1:99999", r"no ADDRESS:PORT"),
        ("log: {file: 3}", r"x.yaml: log.file: Expected a string, got int"),
        ("1: 2", r"x.yaml: 1: there is no such key"),
        ("- a", r"x.yaml: a mapping is wanted"),
        ("drain: 1\ndrain: 2", r"x.yaml, line 2: "),
        ("a: [", r"x.yaml, line \d: "),
        ("a: !!python/object:os.system x", r"x.yaml"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(ConnectorConfig, "connector", written(tmp_path, text))
    assert re.search(said, str(raised.value))
    assert "\n" not in str(raised.value)


def test_a_wrong_flag_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    with pytest.raises(ConfigError, match=r"^--log-level loud: use one of debug"):
        read(AgentConfig, "agent", path, {"log.level": "loud"})
    with pytest.raises(ConfigError, match=r"^--include 10.0.0.1/8: 10.0.0.1/8 has host bits set; use a CIDR"):
        read(AgentConfig, "agent", path, {"include": ["10.0.0.0/8", "10.0.0.1/8"]})
    with pytest.raises(ConfigError, match=r"^--allow 10.0.0.0/40: use CIDR or"):
        read(ConnectorConfig, "connector", path, {"allow": ["10.0.0.0/8", "10.0.0.0/40"]})
    with pytest.raises(ConfigError, match=r"^--listen-host a.example: .*an IP address of this host is needed"):
        read(EdgeConfig, "edge", path, {"listen_host": "a.example"})
    with pytest.raises(ConfigError, match=r"^--listen-port 70000: "):
        read(EdgeConfig, "edge", path, {"listen_port": 70000})


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(AgentConfig, "agent", tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        read(AgentConfig, "agent", tmp_path)


def test_a_directory_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "exists", closed)
    with pytest.raises(ConfigError, match="chmod 755 /etc/warren"):
        read(AgentConfig, "agent", None)
