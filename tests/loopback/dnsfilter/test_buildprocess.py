"""Rule sets built by another process mean the same here."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from warren.dnsfilter.buildprocess import BuildProcess
from warren.dnsfilter.core.verdict import Client
from warren.dnsfilter.refresh import Built, Copy, build
from warren.fabric.core import dnswire as wire

NAMES = ("ads.example", "a.ads.example", "other.example", "track7.example", "x.ok.example")


@pytest.fixture
def copies(tmp_path: Path) -> list[Copy]:
    (tmp_path / "a.list").write_text("||ads.example^\n/^track[0-9]+\\./\n@@||ok.example^\n")
    (tmp_path / "b.list").write_text("".join(f"0.0.0.0 n{number}.example\n" for number in range(20_000)))
    return [
        Copy("a", tmp_path / "a.list", "block", "auto"),
        Copy("b", tmp_path / "b.list", "block", "auto"),
        Copy("gone", tmp_path / "gone.list", "block", "auto"),
    ]


def said(built: Built) -> list[object]:
    rules, reports = built
    names = (*NAMES, "n19999.example", "n20000.example")
    matches = [rules.match(wire.name_wire(name), wire.A, Client()) for name in names]
    return [match is not None and match.any for match in matches] + [report.entries for report in reports]


def test_the_same_as_one_built_here(copies: list[Copy]) -> None:
    with BuildProcess() as builder:
        assert said(builder.build(copies)) == said(build(copies))
        assert said(builder.build(copies[:1])) == said(build(copies[:1]))


def test_several_threads_may_ask(copies: list[Copy]) -> None:
    found: list[object] = []
    with BuildProcess() as builder:
        threads = [threading.Thread(target=lambda: found.append(said(builder.build(copies)))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [said(build(copies))] * 3


def test_it_is_built_here_when_the_process_was_killed(copies: list[Copy]) -> None:
    with BuildProcess() as builder:
        os.kill(builder.pid, signal.SIGKILL)
        assert said(builder.build(copies)) == said(build(copies))
        assert said(builder.build(copies)) == said(build(copies))


def test_a_list_that_can_not_be_read_is_an_error_of_that_build_only(copies: list[Copy], tmp_path: Path) -> None:
    folder = Copy("folder", tmp_path, "block", "auto")
    with BuildProcess() as builder:
        with pytest.raises(OSError, match="directory"):
            builder.build([folder])
        assert said(builder.build(copies)) == said(build(copies))
