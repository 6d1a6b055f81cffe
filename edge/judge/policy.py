"""May this device open flows over this route? For now every enrolled device may; rules will replace `EveryDevice`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from warren.edge.store.records import Device, Route
from warren.fabric.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says. `rule`: id of the rule that decided; `reason`: why not, None if it is allowed."""

    allowed: bool
    reason: Reason | None
    rule: str


class Policy(Protocol):
    """A set of rules, finished and frozen."""

    def judge(self, device: Device, route: Route, protocol: str, port: int, now: float) -> Verdict:
        """`port`: of the destination, 0 for ICMP; `now`: Unix time in seconds."""


class EveryDevice:
    """Every enrolled device may open every route."""

    RULE = "every-device"

    def judge(self, device: Device, route: Route, protocol: str, port: int, now: float) -> Verdict:
        """Yes."""
        return Verdict(allowed=True, reason=None, rule=self.RULE)


EVERY_DEVICE = EveryDevice()
