"""The edge as a service: root, whose files it reads, without any of root's powers."""

from __future__ import annotations

from pathlib import Path

from warren.edge.config import EdgeConfig
from warren.fabric.daemon.service import NO_DEVICES, Unit, run_arguments

CAPABILITIES = ("CAP_NET_BIND_SERVICE",)
"""For port 443."""


def unit(config: EdgeConfig, file: Path | None) -> Unit:
    """Its unit. `file`: the settings, if they are not in the usual place."""
    writes = (config.state_dir, config.admin_socket.parent)
    return Unit("edge", run_arguments("edge", "run", config=file), CAPABILITIES, NO_DEVICES, writes, config.log.file)
