"""Logs: where they go, what they look like, and what is never in them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from pathlib import Path

import pytest
import structlog

from warren.fabric.aio import logs
from warren.fabric.core.errors import ConfigError


def test_a_file_is_opened_anew_on_sighup(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    logs.set_up("info", "text", path)
    log = structlog.get_logger()

    async def main() -> None:
        hung_up = asyncio.Event()
        loop = asyncio.get_running_loop()
        logs.on_hangup(loop, hung_up.set)
        log.info("before")
        path.rename(tmp_path / "agent.log.1")
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(5):
            while not path.exists():  # noqa: ASYNC110
                await asyncio.sleep(0)
        log.info("after")
        assert not hung_up.is_set()
        loop.remove_signal_handler(signal.SIGHUP)

    asyncio.run(main())
    assert "before" in (tmp_path / "agent.log.1").read_text()
    assert "after" in path.read_text()
    assert "before" not in path.read_text()
    assert path.stat().st_mode & 0o007 == 0


def test_without_a_file_sighup_is_a_terminal_that_was_closed() -> None:
    logs.set_up()

    async def main() -> None:
        hung_up = asyncio.Event()
        loop = asyncio.get_running_loop()
        logs.on_hangup(loop, hung_up.set)
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(5):
            await hung_up.wait()
        loop.remove_signal_handler(signal.SIGHUP)

    asyncio.run(main())


@pytest.mark.parametrize("closed", [False, True])
def test_what_else_is_read_again_is_so_unless_the_terminal_was_closed(
    closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.set_up()
    terminal = [True]
    monkeypatch.setattr(os, "isatty", lambda descriptor: terminal[0])

    async def main() -> list[str]:
        told, done = list[str](), asyncio.Event()

        def tell(word: str) -> None:
            told.append(word)
            done.set()

        loop = asyncio.get_running_loop()
        logs.on_hangup(loop, lambda: tell("otherwise"), lambda: tell("reread"))
        terminal[0] = not closed
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(5):
            await done.wait()
        loop.remove_signal_handler(signal.SIGHUP)
        return told

    assert asyncio.run(main()) == ["otherwise" if closed else "reread"]


def test_json_is_one_object_a_line_also_for_libraries_and_tracebacks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs.set_up("info", "json", path)
    structlog.get_logger().debug("not shown")
    structlog.get_logger().info("shown", where=Path("/x"))
    key = "very secret"
    try:
        raise RuntimeError(f"bug {len(key)}")
    except RuntimeError:
        logging.getLogger("asyncio").exception("task failed")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["shown", "task failed"]
    assert lines[1]["library"] == "asyncio"
    assert "RuntimeError: bug 11" in lines[1]["exception"]


@pytest.mark.parametrize("form", logs.FORMATS)
def test_a_traceback_shows_no_local_variable(tmp_path: Path, form: str) -> None:
    path = tmp_path / "log"
    logs.set_up("info", form, path)
    key = "".join(("very", "secret"))
    try:
        raise RuntimeError(f"bug {len(key)}")
    except RuntimeError:
        structlog.get_logger().exception("fault")
    assert "RuntimeError: bug 10" in path.read_text()
    assert "verysecret" not in path.read_text()


def test_a_full_disk_disturbs_nobody() -> None:
    logs.set_up("info", "text", Path("/dev/full"))
    for _ in range(3):
        structlog.get_logger().info("lost" * 5000)


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--log-file"):
        logs.set_up(file=tmp_path / "none" / "log")
