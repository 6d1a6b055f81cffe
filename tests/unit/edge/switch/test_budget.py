"""How often is too often."""

from __future__ import annotations

from warren.edge.switch.budget import PREFIXES, Bucket, HintBudget, source_prefix


def test_a_bucket_fills_again() -> None:
    bucket = Bucket(10.0, 2.0, 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]


def test_prefixes() -> None:
    assert source_prefix("10.1.2.3") == source_prefix("::ffff:10.1.2.9") == "10.1.2"
    assert source_prefix("2001:db8:1:200::1") == source_prefix("2001:db8:1:2ff::2%eth0")
    assert source_prefix("2001:db8:1:200::1") != source_prefix("2001:db8:1:300::1")
    assert source_prefix("nonsense:") == "nonsense:"


def test_each_prefix_has_its_share_and_all_have_theirs() -> None:
    budget = HintBudget(0.0)
    assert sum(budget.take(("10.0.0.1", n), 0.0) for n in range(100)) == 20
    assert budget.take(("10.0.1.1", 1), 0.0)
    assert sum(budget.take((f"10.{n // 250}.{n % 250}.1", n), 0.0) for n in range(5000)) <= 500


def test_prefixes_are_bounded() -> None:
    budget = HintBudget(0.0)
    for n in range(10_000):
        budget.take((f"10.{n // 250}.{n % 250}.1", n), float(n))
    assert len(budget) <= PREFIXES
