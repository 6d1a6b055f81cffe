"""The images, built by an engine from the Dockerfile, and the commands of docs/containers.md, run in the lab.

The commands are taken out of the document. In place of published ports a container has the network of a lab's host.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps.engine import PROGRAMS, Engine
from tests.lab.conftest import FAULT, faults
from tests.lab.thread.test_flows import CURL
from tests.wheel import ROOT
from warren.lab import OFFICE, Lab, wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import PAGE, Services, start_services

DOCUMENT = (ROOT / "docs" / "containers.md").read_text()
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {' '.join(MISSING)}")
PATIENCE = 60.0
RIGHTS = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")


def commands(heading: str, first: str = "docker") -> list[list[str]]:
    """Those of one section that begin with this word."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0] if heading else DOCUMENT.split("\n## ")[0]
    return [shlex.split(line) for line in re.findall(rf"^    ({first} .+)$", section, re.MULTILINE)]


def inside(word: str) -> list[str]:
    """The `docker exec` command with this word, which stands in the text."""
    [found] = [each for each in re.findall(r"`(docker exec [^`]+)`", DOCUMENT) if word in each]
    return shlex.split(found)


class Images(Deployment):
    """Edge and connector in containers that share the networks of their hosts."""

    def __init__(self, lab: Lab, engine: Engine, folder: Path) -> None:
        super().__init__(lab)
        self.engine = engine
        self.folder = folder
        self.token = folder / "office.token"

    def docker(self, host: Host, words: list[str], check: bool = True) -> str:
        """A command of the document, where it names ports or files of a host: with the lab's."""
        words = [word.replace("/etc/warren/office.token", str(self.token)) for word in words]
        for at in reversed([at for at, word in enumerate(words) if word == "-p"]):
            del words[at : at + 2]
        if words[1] == "run":
            resolver = self.folder / f"{host.name}-resolv.conf"
            resolver.write_text(f"nameserver {host.spec.nameserver}\n")
            words[2:2] = ["-v", f"{resolver}:/etc/resolv.conf:ro"]
        done = self.engine(words, network=f"ns:{host.namespace('net')}", check=check)
        return done.stdout if check else done.stdout + done.stderr

    def edge_up(self) -> None:
        for words in commands("The edge"):
            self.docker(self.edge, words)
        self.wait_for("edge", "edge runs")

    def make_tunnel(self) -> None:
        self.token.touch(0o600)
        os.chown(self.token, 10001, 10001)
        self.token.write_text(self.docker(self.edge, inside("tunnel create")))
        self.warren(self.edge, "route", "ip", "add", "10.10.0.0/16", "--tunnel", "office")
        self.warren(self.edge, "route", "host", "add", "payroll.internal", "--tunnel", "office")

    def connector_up(self) -> None:
        [run] = commands("The connector")
        self.docker(self.connector, run)
        self.wait_for("connector", "connector ready")

    def enrol(self, host: Host, name: str) -> None:
        super().warren(host, "agent", "enrol", stdin=self.docker(self.edge, inside("device add")))

    def warren(self, host: Host, *words: str, check: bool = True, stdin: str | None = None) -> str:
        if host is not self.edge:
            return super().warren(host, *words, check=check, stdin=stdin)
        return self.docker(host, ["docker", "exec", "edge", "warren", *words], check)

    def logs(self, name: str) -> str:
        done = self.engine(["docker", "logs", name])
        return done.stdout + done.stderr

    def wait_for(self, name: str, text: str) -> None:
        wait_until(lambda: text in self.logs(name), f"{text!r} of {name}", PATIENCE)

    def healthy(self, name: str) -> bool:
        """By the image's own check."""
        return self.engine(["docker", "healthcheck", "run", name], check=False).returncode == 0

    def inspect(self, what: str, name: str) -> dict[str, Any]:
        [said] = json.loads(self.engine(["docker", what, "inspect", name]).stdout)
        return dict(said)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        builds = commands("")
        assert [words[:2] for words in builds] == [["docker", "build"]] * 2
        for words in builds:
            engine(words, cwd=ROOT)
        yield engine


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(OFFICE) as lab:
        yield lab


@pytest.fixture(scope="module")
def services(lab: Lab) -> Services:
    return start_services(lab)


@pytest.fixture(scope="module")
def deployment(
    engine: Engine, lab: Lab, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Images]:
    deployment = Images(lab, engine, tmp_path_factory.mktemp("files"))
    deployment.up()
    yield deployment
    assert faults(lab) == {}


def payroll(deployment: Images) -> str:
    return deployment.laptop.run([*CURL, "http://payroll.internal/"], check=False).stdout


def test_flows_pass_through_containers(deployment: Images) -> None:
    wait_until(lambda: payroll(deployment) == PAGE, "payroll.internal", PATIENCE)
    assert "1 received" in deployment.laptop.run(["ping", "-c", "1", "-W", "5", "10.10.0.10"]).stdout


@pytest.mark.parametrize("name", ["edge", "connector"])
def test_a_container_has_no_powers(deployment: Images, name: str) -> None:
    [run] = [words for words in commands(f"The {name}") if f"--name {name}" in " ".join(words)]
    assert set(RIGHTS) <= set(run)
    status = deployment.engine(["docker", "exec", name, "cat", "/proc/1/status"]).stdout
    values = dict(line.split(":\t", 1) for line in status.splitlines())
    assert values["Uid"].split() == values["Gid"].split() == ["10001"] * 4
    assert {int(values[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert values["NoNewPrivs"] == "1"


@pytest.mark.parametrize("name", ["edge", "connector"])
def test_an_image_holds_what_it_runs(deployment: Images, name: str) -> None:
    image = deployment.inspect("image", f"warren-{name}")
    assert image["User"] == "10001:10001"
    text = json.dumps([image["Config"], image["History"]])
    assert not re.search(r"passw|_key|index.url", text, re.IGNORECASE)
    shell = ["docker", "run", "--rm", "--read-only", "--entrypoint", "sh", f"warren-{name}", "-c"]
    assert deployment.engine([*shell, "warren --version"]).stdout.startswith("warren 0.")
    assert deployment.engine([*shell, "ls -A /src /root/.cache /tmp /opt"], check=False).stdout.split() == [
        "/opt:",
        "warren",
        "/tmp:",
    ]
    assert deployment.engine([*shell, "ls -d /opt/warren/*/*/*/pip"], check=False).stdout == ""


@pytest.mark.parametrize(
    ("content", "mode", "said"), [("token", 0o644, "can be read by others"), ("", 0o600, "is empty"), ("no", 0o600, "")]
)
def test_a_bad_token_is_said_in_one_line(
    deployment: Images, tmp_path: Path, content: str, mode: int, said: str
) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    token.chmod(mode)
    os.chown(token, 10001, 10001)
    run = ["docker", "run", "--rm", "-v", f"{token}:/run/secrets/token:ro", "--read-only", "--cap-drop", "ALL"]
    done = deployment.engine([*run, "warren-connector"], check=False)
    assert done.returncode == 2
    [line] = (done.stdout + done.stderr).splitlines()
    assert line.startswith("warren: ")
    assert said in line


def test_the_health_checks_tell_the_truth_and_the_state_is_in_the_volume(deployment: Images) -> None:
    wait_until(lambda: deployment.healthy("edge"), "the edge's health", PATIENCE)
    wait_until(lambda: deployment.healthy("connector"), "the connector's health", PATIENCE)
    for words in (["docker", "stop", "edge"], ["docker", "rm", "edge"]):
        deployment.engine(words)
    wait_until(lambda: not deployment.healthy("connector"), "the connector without an edge", PATIENCE)
    deployment.docker(deployment.edge, commands("The edge")[-1])
    wait_until(lambda: deployment.healthy("edge"), "the edge again", PATIENCE)
    wait_until(lambda: deployment.healthy("connector"), "the connector with its edge", PATIENCE)
    wait_until(lambda: payroll(deployment) == PAGE, "payroll.internal", PATIENCE)


def test_stopping_is_orderly_and_removing_leaves_nothing(deployment: Images) -> None:
    for name in ("connector", "edge"):
        assert FAULT.search(deployment.logs(name)) is None
        deployment.engine(["docker", "stop", name])
        assert deployment.inspect("container", name)["State"]["ExitCode"] == 0
    removals = [
        shlex.split(each) for each in re.findall(r"`(docker [^`]+)`", DOCUMENT.split("To remove everything:")[1])
    ]
    assert len(removals) == 3
    for words in removals:
        deployment.engine(words)
    assert deployment.engine(["docker", "ps", "-aq"]).stdout == ""
    assert deployment.engine(["docker", "image", "ls", "-q", "--filter", "reference=*warren*"]).stdout == ""
