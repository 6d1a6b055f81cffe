"""What the agent tells of itself: whether it is ready, and its metrics. Labels never name what users do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from warren.fabric.daemon.metrics import Family, counted, counter, gauge

if TYPE_CHECKING:
    from warren.agent.app import Agent


async def ready(agent: Agent) -> tuple[bool, dict[str, Any]]:
    """Ready: an edge has told what may be captured, and can be asked now."""
    edges = [{"edge": str(node.edge), "state": node.state, "reason": node.reason} for node in agent.nodes]
    connected = any(node.state == "connected" for node in agent.nodes)
    more = {"device": agent.device.name, "resolver": await agent.resolver_state(), "edges": edges}
    return connected and agent.told is not None, more


def families(agent: Agent) -> list[Family]:
    """The agent's own, beside what every process tells."""
    up = tuple(({"edge": str(node.edge)}, int(node.state == "connected")) for node in agent.nodes)
    kinds = Counter[str](flow.protocol for flow in agent.udp.flows.values())
    kinds["tcp"] = len(agent.tcp.flows)
    flows = tuple(({"protocol": protocol}, kinds[protocol]) for protocol in ("tcp", "udp", "icmp"))
    packets = Counter[str]()
    for node in agent.nodes:
        for circuit_socket in node.sockets:
            packets.update(circuit_socket.dropped)
    plan, states = agent.routes.plan, agent.peers.states()
    proved = sum(state.peer is not None and state.peer.ready for state in states)
    return [
        Family("warren_agent_edge_connected", "gauge", "Attached to this edge, and accepted.", up),
        Family("warren_agent_flows", "gauge", "Flows that are open or opening.", flows),
        counter("warren_agent_tcp_flows_opened_total", "TCP flows that were opened.", agent.tcp.opened),
        counted(
            "warren_agent_flows_refused_total", "Flows that did not open.", "reason",
            {reason.word: count for reason, count in agent.tcp.refusal_counts.items()},
        ),
        gauge("warren_agent_peer_connections", "Connections to connectors that are proved.", proved),
        gauge("warren_agent_routes", "Routes that lead into the tunnel.", len(plan.install)),
        gauge("warren_agent_routes_suspended", "Routes that are left to a local network.", len(plan.suspended)),
        counted("warren_agent_capture_total", "What became of captured packets.", "event", agent.capture.counters),
        counted("warren_agent_datagrams_total", "What became of UDP and ICMP.", "event", agent.udp.counters),
        counted("warren_agent_packets_dropped_total", "Packets from edges that were dropped.", "reason", packets),
        counter("warren_agent_dns_dropped_total", "DNS queries beyond the bound.", agent.dns.dropped),
    ]  # fmt: skip
