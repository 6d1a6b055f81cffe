"""Why a query ends as it does, in words: made of what the chain decided, for `warren dns test`."""

from __future__ import annotations

from warren.dnsfilter.core.config import ResolverConfig
from warren.dnsfilter.core.records import type_of
from warren.dnsfilter.core.verdict import Asked, Client, Resolved
from warren.dnsfilter.resolver import Resolver
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError


def question(name: str, kind: str) -> bytes:
    """A query as a client would send it. ConfigError: no name, no type."""
    number = type_of(kind)
    if number is None:
        raise ConfigError(f"{kind!r} is no query type; give one as in A, AAAA or HTTPS")
    try:
        return wire.build_query(0, wire.name_wire(name), number)
    except ValueError as error:
        raise ConfigError(f"{error}; give a name as in www.example.org") from None


async def explain(
    resolver: Resolver, query: bytes, client: Client, config: ResolverConfig, *, ask: bool
) -> dict[str, str]:
    """What would happen. `ask`: ask the upstreams too, and look at where the answer leads."""
    decided = resolver.decide(query, client, "tcp")
    if isinstance(decided, Asked):
        if not ask:
            return _forwarded(decided, config)
        decided = await resolver.forward(decided)
    return _ended(resolver, decided, client)


def _forwarded(asked: Asked, config: ResolverConfig) -> dict[str, str]:
    group = config.groups.get(asked.group)
    servers = ", ".join(upstream.text for upstream in group.upstreams) if group is not None else "nobody: refused"
    behind = f" about {wire.name_text(asked.alias)}" if asked.alias else ""
    return {"verdict": "forward", "rule": asked.rule, "upstream": f"{asked.group}{behind} ({servers})"}


def _ended(resolver: Resolver, resolved: Resolved, client: Client) -> dict[str, str]:
    verdict, entry = resolved.verdict, ""
    if verdict.list and resolved.question is not None:
        rules = resolver.slot.current.rules
        index = rules.names.index(verdict.list)
        entry = rules.explain(resolved.question.name, resolved.question.type, client, index)
    return {
        "verdict": verdict.kind.value,
        "stage": verdict.stage,
        "rule": verdict.rule,
        "list": verdict.list,
        "entry": entry,
        "upstream": verdict.upstream,
        "route": verdict.route,
    }
