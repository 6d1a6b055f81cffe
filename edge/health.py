"""What the edge tells of itself: whether it is ready, and its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from warren.fabric.daemon.metrics import Family, counted, gauge

if TYPE_CHECKING:
    from warren.edge.app import Edge


async def ready(edge: Edge) -> tuple[bool, dict[str, Any]]:
    """Ready: the UDP socket is bound, and the store can be read."""
    bound = edge.socket.fileno() >= 0
    try:
        await edge.repository.refresh()
        store = "open"
    except (SQLAlchemyError, OSError) as error:
        store = f"can't be read ({type(error).__name__})"
    more = {
        "socket": "bound" if bound else "closed",
        "store": store,
        "engine": edge.engine.name,
        "controller": edge.engine.controller,
    }
    return bound and store == "open", more


def families(edge: Edge) -> list[Family]:
    judge, switch = edge.sessions.counters, edge.circuits.counters
    attachments = edge.connections.attachments.counters
    members = Counter(member.role for member in edge.circuits.members)
    decisions = {**{"granted": judge["granted"]}, **_after("denied_", judge)}
    attached = tuple(({"role": role}, members[role]) for role in ("agent", "connector"))
    dropped: Mapping[str, int] = getattr(edge.endpoint, "dropped", {})
    return [
        Family("warren_edge_attached", "gauge", "Nodes at the switch.", attached),
        gauge("warren_edge_connections", "QUIC connections of nodes.", len(edge.connections)),
        gauge("warren_edge_circuits", "Circuits that are open.", len(edge.circuits.table)),
        counted("warren_edge_decisions_total", "What the judge decided about flows.", "reason", decisions),
        counted("warren_edge_sessions_refused_total", "Sessions refused.", "reason", _after("refused_", judge)),
        counted("warren_edge_attached_total", "Nodes attached.", "role", _after("attached_", attachments)),
        counted("warren_edge_attach_refused_total", "Nodes turned away.", "reason", _after("rejected_", attachments)),
        counted("warren_edge_circuits_refused_total", "Circuits refused.", "reason", _after("no_circuit_", switch)),
        counted("warren_edge_switch_total", "What else the switch did.", "event", _others("no_circuit_", switch)),
        counted("warren_edge_packets_dropped_total", "Packets not sent on.", "reason", edge.forwarder.dropped),
        counted("warren_edge_control_dropped_total", "Bindings not taken.", "reason", edge.circuits.bindings_dropped),
        counted("warren_edge_quic_dropped_total", "Datagrams that QUIC did not take.", "reason", dropped),
        counted("warren_edge_connections_total", "About connections.", "event", edge.connections.counters),
    ]


def _after(prefix: str, counters: Mapping[str, int]) -> dict[str, int]:
    return {word.removeprefix(prefix): count for word, count in counters.items() if word.startswith(prefix)}


def _others(prefix: str, counters: Mapping[str, int]) -> dict[str, int]:
    return {word: count for word, count in counters.items() if not word.startswith(prefix)}
