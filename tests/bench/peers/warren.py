"""Warren itself, as a user would set it up, on one engine or the other."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import ClassVar

from tests.bench import engines
from tests.bench.peers.peer import Missing, Peer
from warren.fabric.core.errors import ConfigError
from warren.fabric.engines import EngineName, engine
from warren.lab import Lab
from warren.lab.deployment import UP_WITHIN, Deployment
from warren.lab.host import Host
from warren.lab.process import Process

WHERE = {"agent": "laptop", "edge": "hub", "connector": "site"}


class Deployed(Deployment):
    """With an engine, flags for every daemon, and (to profile them) words before each daemon's command."""

    def __init__(self, lab: Lab, engine: EngineName, flags: tuple[str, ...], before: tuple[str, ...]) -> None:
        super().__init__(lab)
        self._env = {"WARREN_ENGINE": engine}
        self._flags, self._before = flags, before

    def start(self, role: str, host: Host, *words: str) -> Process:
        command = [*(self._before or ("warren",)), *words, *self._flags]
        process = self.daemons[role] = host.start(command, log=f"warren-{role}", env=self._env)
        return process


class WarrenNative(Peer):
    """`flags` go to every daemon; `before`: words instead of `warren` that run it, and what follows, in another way."""

    name = "Warren native"
    path = "end-to-end QUIC, switched at the hub"
    engine: ClassVar[EngineName] = "native"

    def __init__(self, lab: Lab, flags: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> None:
        super().__init__(lab)
        self._deployed = Deployed(lab, self.engine, flags, before)

    @property
    def version(self) -> str:
        library = {"native": "warren-quic", "aioquic": "aioquic"}[self.engine]
        return f"{_version('warren', 'this tree')}, {library} {_version(library, 'in place')}"

    def up(self) -> None:
        try:
            engine(self.engine)
        except ConfigError as error:
            raise Missing(str(error)) from None
        self._deployed.up()

    def renew(self) -> None:
        self._deployed.daemons["agent"].stop()
        self._deployed.run_agent()

    def daemons(self) -> Mapping[str, list[int]]:
        return {WHERE[role]: [process.pid] for role, process in self._deployed.daemons.items()}

    @property
    def deployed(self) -> Deployed:
        return self._deployed


class WarrenAioquic(WarrenNative):
    """The same on the pure-Python engine."""

    name = "Warren aioquic"
    engine = "aioquic"

    def bare_core(self) -> float | None:
        return min(engines.bare())


def _version(distribution: str, otherwise: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return otherwise


__all__ = ["UP_WITHIN", "WHERE", "Deployed", "WarrenAioquic", "WarrenNative"]
