"""Where an edge is, unless its settings say otherwise. Every command needs these: nothing else is imported here."""

from __future__ import annotations

from pathlib import Path

STATE_DIRECTORY = Path("/var/lib/warren/edge")
ADMIN_SOCKET = Path("/run/warren/edge.sock")
STORE_FILE = "store.sqlite"
"""In the state directory, unless the settings say where the store is."""
PORT = 4433
"""UDP port of an edge unless `--public` says another: what QUIC is often tried on, and free of privileges."""
