"""/v1/dns: policy, lists, what would happen to a query, and what happened."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from warren.dnsfilter.logreader import Wanted
from warren.dnsfilter.policies import Revision, Trial, changes, parse
from warren.edge.api.context import Body, Context
from warren.edge.dns.service import DnsService
from warren.edge.store.errors import NotFoundError
from warren.edge.store.records import DEFAULT_NETWORK, Device
from warren.edge.store.snapshot import Snapshot

LINES_MAX = 1000
"""Lines of the query log in one answer."""
TOP_MAX = 1000


class NewPolicy(Body):
    """A policy's file."""

    text: str
    note: str = ""
    dry_run: bool = False


class Back(Body):
    """The number of the policy that comes back; null: the one before."""

    number: int | None = None


class Asked(Body):
    """A query that nobody sent."""

    name: str
    type: str = "A"
    device: str = ""
    """Name or id of the device that asks; "" for one that nothing is known of."""
    ask: bool = False
    """Ask the upstreams too."""


def router(context: Context, dns: DnsService) -> APIRouter:
    """The paths under /v1/dns."""
    api = APIRouter(prefix="/v1/dns")
    _policy(api, dns)
    _seen(api, dns)

    @api.post("/test", response_model=None)
    async def test(body: Asked) -> dict[str, Any]:
        device = _device(context.repository.snapshot, body.device)
        said = await dns.explain(device, body.name, body.type, ask=body.ask)
        return {"name": body.name, "type": body.type, "device": device.name, "user": device.user, **said}

    @api.get("/lists", response_model=None)
    async def lists() -> list[dict[str, Any]]:
        return dns.lists()

    @api.post("/lists/refresh", response_model=None)
    async def refresh() -> dict[str, Any]:
        dns.refresh()
        return {"refreshing": len(dns.lists())}

    return api


def _policy(api: APIRouter, dns: DnsService) -> None:
    @api.get("/policy", response_model=None)
    async def show(number: int | None = None) -> dict[str, Any]:
        shown = dns.policies.revision if number is None else None
        return {
            "number": number if number is not None else shown.number if shown is not None else 0,
            "applied": shown.applied if shown is not None else 0,
            "text": await dns.policies.text(number),
        }

    @api.put("/policy", response_model=None)
    async def apply(body: NewPolicy) -> dict[str, Any]:
        dns.ready_for_policy()
        if body.dry_run:
            return _trial(dns.policies.attempt(parse(body.text, "policy")), None)
        return _trial(*await dns.policies.apply(body.text, body.note))

    @api.get("/policy/test", response_model=None)
    async def expectations() -> dict[str, Any]:
        dns.ready_for_policy()
        return _trial(dns.policies.attempt(dns.policies.document), dns.policies.revision)

    @api.get("/policy/history", response_model=None)
    async def history() -> list[dict[str, Any]]:
        kept = await dns.policies.history()
        documents = [parse(revision.text, f"policy {revision.number}") for revision in kept]
        shown = []
        for place, revision in enumerate(kept):
            older = documents[place + 1] if place + 1 < len(kept) else None
            differs = list(changes(older, documents[place])) if older is not None else []
            shown.append(
                {"number": revision.number, "applied": revision.applied, "note": revision.note, "changes": differs}
            )
        return shown

    @api.post("/policy/rollback", response_model=None)
    async def rollback(body: Back) -> dict[str, Any]:
        dns.ready_for_policy()
        return _trial(*await dns.policies.rollback(body.number))


def _seen(api: APIRouter, dns: DnsService) -> None:
    @api.get("/log", response_model=None)
    async def log(
        cursor: str = "",
        last: Annotated[int, Query(ge=0, le=LINES_MAX)] = 0,
        limit: Annotated[int, Query(ge=1, le=LINES_MAX)] = LINES_MAX,
        verdict: str = "",
        device: str = "",
        user: str = "",
        name: str = "",
        since: float = 0.0,
    ) -> dict[str, Any]:
        page = await dns.read_log(cursor, last, Wanted(verdict, device, user, name, since), limit)
        return {"lines": page.lines, "cursor": page.cursor, "more": page.more}

    @api.get("/top", response_model=None)
    async def top(since: float = 0.0, count: Annotated[int, Query(ge=1, le=TOP_MAX)] = 10) -> dict[str, Any]:
        return await dns.top(since, count)


def _trial(trial: Trial, revision: Revision | None) -> dict[str, Any]:
    """`number`: null where nothing was put in use."""
    return {
        "number": revision.number if revision is not None else None,
        "changes": list(trial.changes),
        "expectations": [{"holds": outcome.holds, "text": outcome.text} for outcome in trial.outcomes],
    }


def _device(snapshot: Snapshot, which: str) -> Device:
    """By name or id; one that nothing is known of without either. Raises NotFoundError."""
    if not which:
        return Device("", "", "", "", DEFAULT_NETWORK, "", (), (), 0, 0, 0, 0, 0)
    for device in snapshot.devices_by_id.values():
        if which in (device.id, device.name):
            return device
    known = ", ".join(sorted(device.name for device in snapshot.devices_by_id.values())[:10])
    raise NotFoundError(f"there is no device {which[:80]!r}: " + (f"there are {known}" if known else "there are none"))
