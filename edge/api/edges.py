"""/v1/edges"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fastapi import APIRouter

from warren.edge.api.context import Body, Context
from warren.edge.store.errors import ExistsError, InvalidError
from warren.fabric.core.errors import DeniedError
from warren.fabric.identity.statements import EdgeList, verify_edges


class NewList(Body):
    """What the administrator's command has signed."""

    signed: str
    """Base64 of the list with its signature."""


def router(context: Context) -> APIRouter:
    """The paths under /v1/edges."""
    api = APIRouter(prefix="/v1/edges")
    repository = context.repository

    @api.get("", response_model=None)
    async def show() -> dict[str, Any]:
        return view(context, known(context))

    @api.post("", response_model=None)
    async def replace(body: NewList) -> dict[str, Any]:
        try:
            signed = base64.b64decode(body.signed, validate=True)
            said = verify_edges(signed, context.identity.certificate)
        except (binascii.Error, ValueError):
            raise InvalidError("signed: this is not base64") from None
        except DeniedError as error:
            raise InvalidError(f"signed: {error}") from None
        if len(said.edges) > 1 and repository.shared is None:
            raise InvalidError("edges share a store in PostgreSQL, and this edge's is a file: make one with --store")
        before = repository.snapshot.edges
        current = known(context)
        newer = current is None or said.revision > current.revision
        if not newer or not await repository.set_edges(signed, before):
            raise ExistsError("the network has a newer list of edges: run this where that was made")
        return view(context, said)

    return api


def known(context: Context) -> EdgeList | None:
    """The list in the store; None before a running edge has put its own there."""
    signed = context.repository.snapshot.edges
    return verify_edges(signed, context.identity.certificate) if signed else None


def view(context: Context, edges: EdgeList | None) -> dict[str, Any]:
    """The list as JSON. `own`: the edge that answers."""
    return {
        "revision": edges.revision if edges else 0,
        "signed": base64.b64encode(context.repository.snapshot.edges).decode(),
        "edges": [
            {"id": edge.id, "name": edge.name, "address": str(edge), "own": edge.id == context.identity.own}
            for edge in (edges.edges if edges else ())
        ],
    }
