"""What the agent is doing, as JSON and as a screen for people: which flow goes where, and what does not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from warren.agent.app import Agent
    from warren.agent.peer_state import PeerState
    from warren.agent.tcp import TcpFlow
    from warren.agent.udp import UdpFlow
    from warren.fabric.aio.peer_path import PeerPath

FLOWS = 1000
"""Flows that one status tells of."""
SHOWN = 20
"""Flows on the screen, those that are open last."""


def describe(agent: Agent, resolver: str) -> dict[str, Any]:
    """Everything, as plain values. `resolver`: how the system's is set, in words."""
    return {
        "device": {"id": agent.device.id, "name": agent.device.name},
        "vnet": agent.told.vnet if agent.told else "",
        "vnet_choices": list(agent.told.vnets) if agent.told else [],
        "engine": agent.engine.name,
        "controller": agent.engine.controller,
        "interface": agent.config.interface,
        "edges": [{"edge": str(node.edge), "state": node.state, "reason": node.reason} for node in agent.nodes],
        "routes": {
            "installed": [str(network) for network in agent.routes.plan.install],
            "suspended": [
                {"route": str(s.included), "part": str(s.part), "interface": s.interface}
                for s in agent.routes.plan.suspended
            ],
            "lacking": [str(network) for network in agent.routes.plan.lacking],
            "excluded": [str(network) for network in agent.routes.plan.excluded],
        },
        "dns": {
            "resolver": str(agent.resolver_address),
            "system": resolver,
            "zones": list(agent.told.zones) if agent.told else [],
            "before": list(agent.upstreams),
            "scope": agent.config.dns.scope,
            "local": list(agent.config.dns.local),
            "search": list(agent.told.search) if agent.told else [],
        },
        "tunnels": [_tunnel(agent, state, state.path) for state in agent.peers.states() if state.path is not None],
        "flows": [_flow(flow) for flow in [*agent.tcp.ended, *agent.tcp.flows.values()][:FLOWS]]
        + [_udp_flow(flow) for flow in list(agent.udp.flows.values())[:FLOWS]],
        "refused": [
            {
                "at": r.at,
                "destination": r.destination,
                "reason": r.reason.word,
                "text": r.reason.text,
                "detail": r.detail,
            }
            for r in agent.tcp.refusals
        ],
        "opened": agent.tcp.opened,
        "counters": {**agent.capture.counters, **{f"udp_{word}": n for word, n in agent.udp.counters.items()}},
    }


def _tunnel(agent: Agent, state: PeerState, path: PeerPath) -> dict[str, Any]:
    statistics = path.drive.connection.statistics()
    return {
        "tunnel": state.tunnel_name,
        "connector": state.boot.hex()[:8],
        "circuit": path.circuit.hex(),
        "edge": _edge_of(agent, path),
        "standby": [way.circuit.hex() for way in path.ways[1:]],
        "round_trip_ms": round(statistics.round_trip * 1000, 2),
        "lost": statistics.lost,
        "phase": statistics.phase,
        "carries": state.carries,
        "flows": len(state.openings),
    }


def _edge_of(agent: Agent, path: PeerPath) -> str:
    """The edge that its leading circuit goes through; "" for one that has left the list."""
    return next((str(node.edge) for node in agent.nodes if path.socket in node.sockets), "")


def _way(flow: TcpFlow | UdpFlow, carrier: PeerState | None = None) -> dict[str, Any]:
    """Where a flow goes, and through what. `carrier`: what it went through, if it is over."""
    state = flow.opening.state if flow.opening is not None else carrier
    return {
        "destination": flow.destination,
        "origin": flow.origin,
        "tunnel": flow.granted.tunnel_name if flow.granted else "",
        "route": flow.granted.route if flow.granted else "",
        "connector": state.boot.hex()[:8] if state else "",
        "circuit": state.path.circuit.hex() if state and state.path else "",
    }


def _udp_flow(flow: UdpFlow) -> dict[str, Any]:
    return {
        **_way(flow),
        "state": "opening" if flow.waiting is not None else "open",
        "lasted": round(time.time() - flow.began, 3),
        "since": flow.began,
        "sent": flow.sent,
        "received": flow.received,
    }


def _flow(flow: TcpFlow) -> dict[str, Any]:
    return {
        **_way(flow, flow.carrier),
        "state": "ended" if flow.over else "open" if flow.pump else "opening",
        "lasted": round((flow.over or time.time()) - flow.began, 3),
        "since": flow.began,
        "sent": flow.pump.bytes_out if flow.pump else flow.sent,
        "received": flow.pump.bytes_in if flow.pump else flow.received,
    }


def screen(said: dict[str, Any]) -> RenderableType:
    """The status as a person reads it."""
    parts: list[RenderableType] = [_head(said)]
    if said["tunnels"]:
        parts.append(_tunnels(said))
    if said["flows"]:
        parts.append(_flows(said))
    if excluded := said["routes"]["excluded"]:
        parts.append(Text(f"excluded: {', '.join(excluded)}", style="yellow"))
    if lacking := said["routes"].get("lacking"):
        parts.append(Text(f"not captured: {', '.join(lacking)}: IPv6 is switched off on this host", style="yellow"))
    for suspended in said["routes"]["suspended"]:
        text = f"suspended: {suspended['part']} of route {suspended['route']} is also the local network on "
        parts.append(Text(text + suspended["interface"], style="yellow"))
    for refused in said["refused"][-5:]:
        when = time.strftime("%H:%M:%S", time.localtime(refused["at"]))
        detail = f" ({refused['detail']})" if refused["detail"] else ""
        parts.append(Text(f"{when} {refused['destination']}: {refused['text']}{detail}", style="yellow"))
    return Group(*parts)


def _head(said: dict[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("device", f"{said['device']['name']}  (virtual network {said['vnet'] or '?'})")
    for edge in said["edges"]:
        state = edge["state"] + (f": {edge['reason']}" if edge["reason"] else "")
        grid.add_row("edge", Text(f"{edge['edge']}  {state}", style="green" if edge["state"] == "connected" else "red"))
    grid.add_row("routes", ", ".join(said["routes"]["installed"]) or "none")
    dns = said["dns"]
    zones = "everything" if dns["scope"] == "everything" else ", ".join(dns["zones"]) or "none"
    grid.add_row("names", f"{zones}  (resolver {dns['resolver']}, {dns['system']})")
    grid.add_row("engine", f"{said['engine']}  (controller {said['controller']})")
    return grid


def _tunnels(said: dict[str, Any]) -> RenderableType:
    table = Table(
        "tunnel", "carries", "connector", "circuit", "round trip", "lost", "phase", "flows", box=None, pad_edge=False
    )
    for t in said["tunnels"]:
        table.add_row(
            t["tunnel"], t["carries"], t["connector"], t["circuit"], f"{t['round_trip_ms']} ms", str(t["lost"]),
            t["phase"], str(t["flows"]),
        )  # fmt: skip
    return table


def _flows(said: dict[str, Any]) -> RenderableType:
    columns = ("flow", "origin", "tunnel", "connector", "circuit", "state", "seconds", "sent", "received")
    table = Table(*columns, box=None, pad_edge=False)
    for f in said["flows"][-SHOWN:]:
        table.add_row(
            f["destination"], f["origin"], f["tunnel"], f["connector"], f["circuit"], f["state"], str(f["lasted"]),
            str(f["sent"]), str(f["received"]),
        )  # fmt: skip
    return table
