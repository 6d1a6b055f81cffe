"""The benchmark's tools still work: the bare path's loads, and Warren's daemons with their profile."""

from __future__ import annotations

from tests.bench import accounts, path, profile
from tests.bench.loads import Loads
from tests.bench.peers import Bare, WarrenAioquic
from tests.bench.settings import QUICK
from warren.lab import Lab


def test_the_bare_path_carries_every_load() -> None:
    with Lab(path.topology()) as lab:
        peer, loads = Bare(lab), Loads(lab)
        assert not loads.reachable()
        path.bring_up(peer, loads)
        carried = loads.stream("up", 1)
        assert carried.gbits > carried.rate > 0
        assert loads.round_trip(50)["p99"] > 0
        assert loads.connections(1)["per_second"] > 0
        with loads.background("up", 20):
            assert loads.datagrams(100, 1000)["lost"] < 1
        assert loads.reachable()
        assert accounts.memory([lab["payroll"].pid]) > 0


def test_a_profile_tells_the_engine_from_the_rest() -> None:
    with Lab(path.topology()) as lab:
        peer, loads = profile.profiled(WarrenAioquic, lab), Loads(lab)
        path.bring_up(peer, loads)
        said = profile.under_load(peer, loads, "up", QUICK)
    assert set(said) == {"laptop", "hub", "site"}
    assert profile.ours_and_engine(said)[1] > 0
