"""The agent as a service: what it may do, and that its guardian outlives it."""

from __future__ import annotations

from pathlib import Path

from warren.agent.config import AgentConfig
from warren.fabric.daemon.service import Unit, run_arguments

CAPABILITIES = (
    "CAP_NET_ADMIN",  # the TUN device, routes, rules, marks
    "CAP_NET_RAW",  # transparent listeners
    "CAP_SYS_ADMIN",  # the private network namespace
    "CAP_CHOWN",  # resolv.conf goes back to its owner
    "CAP_FOWNER",
)


def unit(config: AgentConfig, file: Path | None) -> Unit:
    """Its unit. `file`: the settings, if they are not in the usual place."""
    lines = (
        # A guardian takes back what an agent that was killed has changed on the host: systemd must leave it alone.
        "KillMode=process",
        "DevicePolicy=closed",
        "DeviceAllow=/dev/net/tun rw",
        "RestrictNamespaces=net",
    )
    writes = (config.state, config.socket.parent, Path("/etc"))  # resolv.conf is replaced by renaming
    return Unit("agent", run_arguments("agent", "up", config=file), CAPABILITIES, lines, writes, config.log.file)
