"""Who undoes which kind of change. What an undo needs is imported when it runs, so that the guardian stays small."""

from __future__ import annotations

from warren.agent.host.journal import Undo, Undoer

ADDRESS, ROUTE, RULE, RESOLV_CONF, RESOLVED = "address", "route", "rule", "resolv.conf", "resolved"


def _netlink(undo: Undo) -> str | None:
    from warren.agent.host import netlink

    netlink.remove(undo)
    return None


def _resolv_conf(undo: Undo) -> str | None:
    from warren.agent.host import resolver

    return resolver.restore(undo)


def _resolved(undo: Undo) -> str | None:
    from warren.agent.host import resolved

    return resolved.revert(undo)


UNDOERS: dict[str, Undoer] = {
    ADDRESS: _netlink,
    ROUTE: _netlink,
    RULE: _netlink,
    RESOLV_CONF: _resolv_conf,
    RESOLVED: _resolved,
}
