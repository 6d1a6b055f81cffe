"""The edge's and the administrator's commands, as `warren` composes them. Importing this imports no web framework."""

from __future__ import annotations

from warren.edge.commands.admins import app as admin
from warren.edge.commands.devices import app as device
from warren.edge.commands.dns import app as dns
from warren.edge.commands.edges import app as edge
from warren.edge.commands.logs import app as logs
from warren.edge.commands.routes import app as route
from warren.edge.commands.tunnels import app as tunnel

__all__ = ["admin", "device", "dns", "edge", "logs", "route", "tunnel"]
