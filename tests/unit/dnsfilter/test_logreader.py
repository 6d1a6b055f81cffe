"""The query log read by cursor, also when it becomes another file in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from warren.dnsfilter.logreader import LOG, Wanted, every, last, read, top
from warren.fabric.core.errors import ConfigError

ALL = Wanted()


def write(directory: Path, *lines: dict[str, object], part: str = "") -> None:
    with (directory / LOG).open("a") as file:
        file.writelines(json.dumps({"time": 1.0, "verdict": "cached"} | line) + "\n" for line in lines)
        file.write(part)


def names(directory: Path, cursor: str, wanted: Wanted = ALL, limit: int = 1000) -> tuple[list[str], str]:
    page = read(directory, cursor, wanted, limit)
    return [line["name"] for line in page.lines], page.cursor


def test_lines_are_read_once_each(tmp_path: Path) -> None:
    assert names(tmp_path, "") == ([], "")
    write(tmp_path, {"name": "a"}, {"name": "b"}, part='{"name": "half')
    found, cursor = names(tmp_path, "")
    assert found == ["a", "b"]
    assert names(tmp_path, cursor) == ([], cursor)
    write(tmp_path, part='", "time": 1}\n')
    assert names(tmp_path, cursor)[0] == ["half"]
    found, cursor = names(tmp_path, "", limit=1)
    assert (found, names(tmp_path, cursor)[0]) == (["a"], ["b", "half"])


def test_the_end_is_where_following_begins(tmp_path: Path) -> None:
    write(tmp_path, {"name": "a"})
    _, cursor = names(tmp_path, "end")
    write(tmp_path, {"name": "b"})
    assert names(tmp_path, cursor)[0] == ["b"]


def test_a_new_file_is_followed(tmp_path: Path) -> None:
    write(tmp_path, {"name": "a"})
    _, cursor = names(tmp_path, "")
    write(tmp_path, {"name": "b"})
    (tmp_path / LOG).rename(tmp_path / f"{LOG}.1")
    write(tmp_path, {"name": "c"})
    found, cursor = names(tmp_path, cursor)
    assert found == ["b"]
    assert names(tmp_path, cursor)[0] == ["c"]
    assert [line["name"] for line in every(tmp_path, ALL)] == ["a", "b", "c"]


def test_a_place_that_is_gone_is_the_beginning(tmp_path: Path) -> None:
    write(tmp_path, {"name": "a"})
    assert names(tmp_path, "1-5")[0] == ["a"]
    for rubbish in ("x", "1", "1-", "-1", "²-²"):
        with pytest.raises(ConfigError):
            read(tmp_path, rubbish, ALL, 1)


def test_lines_are_chosen(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"name": "a.example", "device": "laptop", "user": "ann", "verdict": "blocked", "rule": "ads", "time": 5.0},
        {"name": "b.example", "address": "192.0.2.1"},
    )
    (tmp_path / LOG).open("a").write("no json\n[]\n")
    for wanted in (
        Wanted(verdict="blocked"),
        Wanted(device="laptop"),
        Wanted(user="ann"),
        Wanted(name="a.ex"),
        Wanted(since=2.0),
    ):
        assert names(tmp_path, "", wanted)[0] == ["a.example"]
    assert names(tmp_path, "", Wanted(device="192.0.2.1"))[0] == ["b.example"]
    found = top(tmp_path, 0.0, 5)
    assert found["blocked"] == [("a.example", 1)]
    assert found["clients"] == [("laptop", 1), ("192.0.2.1", 1)]
    assert found["rules"] == [("ads", 1)]


def test_the_last_lines(tmp_path: Path) -> None:
    write(tmp_path, *({"name": f"n{number}", "rule": "x" * 300} for number in range(100)))
    found = names(tmp_path, last(tmp_path, 10))[0]
    assert found[-1] == "n99" and 5 <= len(found) <= 20
