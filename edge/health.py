"""What the edge tells of itself: whether it is ready, and its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from warren.dnsfilter.core.verdict import Kind
from warren.fabric.daemon.metrics import Family, counted, counter, gauge

if TYPE_CHECKING:
    from warren.edge.app import Edge
    from warren.edge.dns.service import DnsService


async def ready(edge: Edge) -> tuple[bool, dict[str, Any]]:
    """Ready: the UDP socket is bound, and the store is, or was within the lease, as this edge has it in memory."""
    bound = edge.socket.fileno() >= 0
    follower, shared = edge.follower, edge.repository.shared is not None
    if not shared:
        await follower.look()
    able = follower.fresh() if shared else not follower.fault
    store = "open"
    if follower.fault:
        since = f"away for {follower.age():.0f} s" if shared else "can't be read"
        store = f"{since}: {'decided from memory' if able else 'no flow is granted'} ({follower.fault})"
    more = {
        "socket": "bound" if bound else "closed",
        "store": store,
        "engine": edge.engine.name,
        "controller": edge.engine.controller,
    }
    return bound and able, more


def families(edge: Edge) -> list[Family]:
    judge, switch = edge.sessions.counters, edge.circuits.counters
    attachments = edge.connections.attachments.counters
    members = Counter(member.role for member in edge.circuits.members)
    decisions = {**{"granted": judge["granted"]}, **_after("denied_", judge)}
    attached = tuple(({"role": role}, members[role]) for role in ("agent", "connector"))
    dropped: Mapping[str, int] = getattr(edge.endpoint, "dropped", {})
    return [
        *_dns(edge.dns),
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


def _dns(dns: DnsService) -> list[Family]:
    """Labels: verdicts, and lists of the edge's own settings."""
    judge, cache = dns.judge, dns.judge.resolver.cache
    lists = dns.lists()
    verdicts = {kind.value: judge.verdicts[kind] for kind in Kind}
    unwritten = dns.log.dropped if dns.log is not None else 0
    return [
        counted("warren_edge_dns_queries_total", "DNS queries, by how they ended.", "verdict", verdicts),
        counted("warren_edge_dns_refused_total", "DNS queries not looked at.", "reason", judge.refused),
        counted("warren_edge_dns_blocked_total", "DNS queries blocked by a list.", "list", judge.blocked),
        gauge("warren_edge_dns_cache_bytes", "Bytes of the DNS cache.", cache.bytes),
        gauge("warren_edge_dns_cache_entries", "Answers in the DNS cache.", len(cache)),
        counter("warren_edge_dns_log_dropped_total", "Lines that the query log did not take.", unwritten),
        _of_lists("warren_edge_dns_list_entries", "Entries of a list.", lists, "entries"),
        _of_lists("warren_edge_dns_list_fetched_seconds", "When a list was had, Unix time.", lists, "fetched"),
        Family(
            "warren_edge_dns_list_failed",
            "gauge",
            "1 if the last attempt to fetch a list failed.",
            tuple(({"list": entry["name"]}, int(bool(entry["error"]))) for entry in lists),
        ),
    ]


def _of_lists(name: str, help: str, lists: list[dict[str, Any]], field: str) -> Family:
    return Family(name, "gauge", help, tuple(({"list": entry["name"]}, entry[field]) for entry in lists))


def _after(prefix: str, counters: Mapping[str, int]) -> dict[str, int]:
    return {word.removeprefix(prefix): count for word, count in counters.items() if word.startswith(prefix)}


def _others(prefix: str, counters: Mapping[str, int]) -> dict[str, int]:
    return {word: count for word, count in counters.items() if not word.startswith(prefix)}
