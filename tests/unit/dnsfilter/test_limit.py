"""Token buckets."""

from __future__ import annotations

from warren.dnsfilter.core import limit
from warren.dnsfilter.core.limit import Limiter


def test_a_burst_and_then_the_rate() -> None:
    limiter = Limiter(10, 5)
    assert [limiter.allows("a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limiter.refused == 2
    assert [limiter.allows("a", 0.1) for _ in range(2)] == [True, False]
    assert [limiter.allows("a", 100.0) for _ in range(6)] == [True] * 5 + [False]


def test_as_many_as_there_are() -> None:
    limiter = Limiter(10, 5)
    assert [limiter.takes("a", wanted, 0.0) for wanted in (3, 0, 4, 1)] == [3, 0, 2, 0]
    assert limiter.refused == 3
    assert limiter.takes("a", 5, 0.25) == 2 and limiter.takes("a", 9, 0.35) == 1


def test_each_client_has_its_own() -> None:
    limiter = Limiter(1, 1)
    assert limiter.allows("a", 0.0) and limiter.allows("b", 0.0) and not limiter.allows("a", 0.0)


def test_the_table_is_bounded_and_forgets_the_quiet_first() -> None:
    limiter = Limiter(1, 100)
    for _ in range(100):
        limiter.allows("noisy", 0.0)
    for number in range(3 * limit.CLIENTS_MAX):
        limiter.allows(f"c{number}", 0.0)
    assert len(limiter._buckets) <= limit.CLIENTS_MAX
    assert not limiter.allows("noisy", 0.0)
