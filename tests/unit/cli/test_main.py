"""One line for every error, the right exit code, and nothing imported that is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from warren.cli import main as cli
from warren.cli.main import Part, main
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.core.reasons import Reason


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the line; nothing else was printed."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("warren: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return code, err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["tunnel", "nonsense"],
        ["tunnel", "create"],
        ["tunnel", "create", "a", "b"],
        ["tunnel", "list", "--nonsense"],
        ["route", "ip", "add", "10.0.0.0/8"],
        ["route", "ip", "add", "10.0.0.0/33", "--tunnel", "t"],
        ["route", "ip", "add", "10.0.0.1/8", "--tunnel", "t"],
        ["route", "ip", "add", "x\ny", "--tunnel", "t"],
        ["edge", "init"],
        ["edge", "init", "--public", "host", "--port", "99999"],
        ["edge", "init", "--public", "a b"],
        ["tunnel", "create", "../x"],
        ["tunnel", "create", "a\x1b[31m"],
        ["tunnel", "create", "x", "--print-token", "--token-file", "y"],
        ["device", "add", "a/b"],
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, line = told(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    "arguments", [[], ["tunnel"], ["route"], ["route", "ip"], ["--help"], ["edge", "init", "--help"], ["-h"]]
)
def test_help_is_shown_and_no_error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    main(arguments)
    out, err = capsys.readouterr()
    assert "Usage: warren" in out
    assert err == ""


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_it() -> str:
        raise error

    monkeypatch.setattr(cli, "_version", raise_it)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("do this"), 2, "warren: do this\n"),
        (DeniedError(Reason.POLICY), 1, "the policy does not allow it"),
        (PermissionError(13, "Permission denied", "/etc/x"), 1, "/etc/x: Permission denied"),
        (ModuleNotFoundError("No module named 'fastapi'", name="fastapi"), 2, "pip install 'warren[edge]'"),
        (ModuleNotFoundError("No module named 'warren.x'", name="warren.x"), 2, "no warren.x"),
        (RuntimeError("our\nbug"), 1, "a fault in Warren (RuntimeError: our bug)"),
        (ConfigError("evil \x1b[2J name"), 2, "evil ?[2J name"),
    ],
)
def test_every_error_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, says: str
) -> None:
    fail_with(error, monkeypatch)
    got, line = told(capsys, "version")
    assert got == code
    assert says in line


def test_debug_shows_where(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(RuntimeError("bug"), monkeypatch)
    assert main(["--debug", "version"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("WARREN_DEBUG", "1")
    assert main(["version"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_role_that_is_not_installed_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.PARTS, "agent", Part("warren.nowhere", "app", "The agent."))
    for arguments in (["agent"], ["agent", "up", "--flag", "x"]):
        code, line = told(capsys, *arguments)
        assert code == 2
        assert "pip install" in line
    assert main(["--help"]) == 0
    assert "not installed" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("warren ")


def test_a_command_imports_its_own_role_only() -> None:
    program = (
        "import sys; from warren.cli.main import main; main(['agent', '--help']); "
        "found = {name.split('.')[0] for name in sys.modules} & {'fastapi', 'sqlalchemy', 'uvicorn'}; "
        "roles = {name for name in sys.modules if name.startswith(('warren.edge', 'warren.connector'))}; "
        "main(['tunnel', '--help']); "
        "found |= {name.split('.')[0] for name in sys.modules} & {'fastapi', 'sqlalchemy', 'uvicorn'}; "
        "print(found | roles, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
