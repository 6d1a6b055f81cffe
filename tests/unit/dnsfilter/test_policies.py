"""A policy's file: read, compared, tried, applied as a whole, kept, and brought back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.policy import CompiledPolicy, Policy
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.policies import KEPT, DirectoryShelf, PolicyBook, PolicyDocument, changes, parse, written
from warren.fabric.core.errors import ConfigError

pytestmark = pytest.mark.anyio

GAMES = """
# who plays when
rules:
  - {name: games, action: block, who: {groups: [kids]}, names: ["*.games.example"]}
  - {name: shop, action: block, names: [shop.example]}
expectations:
  - {name: x.games.example, groups: [kids], expect: block, rule: games}
"""


class Book:
    """A book over a directory, and what it has put in use."""

    def __init__(self, directory: Path) -> None:
        self.used: list[Policy] = []
        empty = Filter(Builder().finish(), CompiledPolicy(Policy()))
        self.book = PolicyBook(
            DirectoryShelf(directory),
            PolicyDocument(),
            CompiledPolicy,
            lambda: empty,
            lambda policy, tried: self.used.append(policy),
            lambda: 77.5,
        )


async def test_an_apply_is_kept_with_its_comments_and_read_again(tmp_path: Path) -> None:
    book = Book(tmp_path)
    trial, revision = await book.book.apply(GAMES, "first")
    assert (revision.number, revision.applied, revision.note) == (1, 77, "first")
    assert [outcome.holds for outcome in trial.outcomes] == [True]
    assert [rule.name for rule in book.used[0].rules] == ["games", "shop"]
    other = Book(tmp_path)
    assert (await other.book.load()).rules == book.book.document.rules
    assert await other.book.text() == GAMES
    assert other.book.revision == revision


async def test_a_broken_expectation_changes_nothing(tmp_path: Path) -> None:
    book = Book(tmp_path)
    await book.book.apply(GAMES)
    with pytest.raises(ConfigError, match="expected block by games, is allow"):
        await book.book.apply(GAMES.replace("[kids], expect", "[adults], expect"))
    with pytest.raises(ConfigError, match="'ads' is no category"):
        await book.book.apply("rules: [{name: ads, action: block, categories: [ads]}]")
    assert (len(book.used), len(await book.book.history())) == (1, 1)


async def test_the_one_before_comes_back_as_the_newest(tmp_path: Path) -> None:
    book = Book(tmp_path)
    with pytest.raises(ConfigError, match="no policy before"):
        await book.book.rollback()
    await book.book.apply(GAMES)
    await book.book.apply("rules: []")
    trial, revision = await book.book.rollback()
    assert (revision.number, revision.note, revision.text) == (3, "back to 1", GAMES)
    assert any(line.startswith("+ rule games") for line in trial.changes)
    with pytest.raises(ConfigError, match="there are 3, 2, 1"):
        await book.book.rollback(9)


async def test_the_shelf_is_bounded(tmp_path: Path) -> None:
    shelf = DirectoryShelf(tmp_path)
    for number in range(KEPT + 3):
        await shelf.keep(f"# {number}", number, "")
    kept = await shelf.revisions()
    assert [revision.number for revision in kept] == list(range(KEPT + 3, 3, -1))


def test_what_differs_is_told_rule_by_rule() -> None:
    old = parse(GAMES, "x")
    new = parse(
        """
answer: refused
rules:
  - {name: shop, action: block, names: [shop.example, "*.shop.example"]}
  - {name: games, action: block, who: {groups: [kids]}, names: ["*.games.example"]}
  - {name: ads, action: allow, names: [ads.example]}
""",
        "x",
    )
    assert list(changes(old, new)) == [
        "~ answer: nxdomain -> refused",
        "~ rule shop: names [shop.example] -> [shop.example, *.shop.example]",
        "+ rule ads (place 3): {name: ads, action: allow, names: [ads.example]}",
        "> order: shop, games",
        "~ expectations: 0 more, 1 fewer",
    ]
    assert list(changes(new, old))[1] == "- rule ads"
    assert list(changes(old, old)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [{name: a, action: blok}]", r"rules\[0\].action"),
        ("rulez: []", "unknown field `rulez`"),
        ("rules: [", "line"),
        ("- 1", "object"),
        ("rules: [{name: a, action: block}, {name: a, action: allow}]", "'a' is there twice"),
        ("# " + "x" * (512 << 10), "longer"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse(text, "policy")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_reading_is_total(data: bytes) -> None:
    try:
        parse(data, "policy")
    except ConfigError as error:
        assert str(error).startswith("policy")


def test_one_that_nobody_wrote_can_be_shown_and_applied() -> None:
    document = parse(GAMES, "x")
    assert parse(written(document), "x") == document
    assert parse(written(PolicyDocument()), "x") == PolicyDocument()
