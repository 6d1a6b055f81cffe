"""Errors that say who is at fault.

`WireError`: the peer sent what it may not. `ConfigError`: the configuration or the command line is wrong; its text is
one line that says what to do. `DeniedError`: a decision, with its reason. Anything else that escapes is our bug.
"""

from __future__ import annotations

from warren.fabric.core.reasons import Reason


class WarrenError(Exception):
    """Base of all errors that Warren raises on purpose."""


class WireError(WarrenError):
    """The peer sent bytes that the protocol does not allow; ends that peer's connection and nothing else."""


class ConfigError(WarrenError):
    """Input of the operator's is wrong. The text is one line: what is wrong, and what is allowed or what to do."""


class DeniedError(WarrenError):
    """Something was refused by a decision; `reason` says which."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.text}{': ' + detail if detail else ''}")
        self.reason = reason
        self.detail = detail
