"""The tables as the newest migration leaves them. A test compares both, and its name."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.types import JSON

VERSION = "0005"
"""The newest migration's name."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

state = Table(
    "state",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)
"""One row with id 1: the store's epoch and the revision of the last change."""

edges = Table(
    "edges",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("signed", LargeBinary, nullable=False),
)
"""One row with id 1, or none yet: the network's signed list of edges."""

tunnels = Table(
    "tunnels",
    metadata,
    Column("id", String(52), primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("authority", LargeBinary, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("signed", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("former", LargeBinary, nullable=True),
    Column("until", BigInteger, nullable=False, server_default="0"),
)

routes = Table(
    "routes",
    metadata,
    Column("id", String(52), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("value", String(255), nullable=False),
    Column("tunnel", String(52), ForeignKey("tunnels.id"), nullable=False, index=True),
    Column("vnet", String(63), nullable=False),
    Column("comment", String(255), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("servers", JSON, nullable=False, server_default="[]"),
    UniqueConstraint("vnet", "kind", "value"),
)

devices = Table(
    "devices",
    metadata,
    Column("id", String(52), primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("expires", BigInteger, nullable=False),
    Column("thumbprint", String(64), nullable=True, unique=True),
    Column("host", String(255), nullable=False),
    Column("vnet", String(63), nullable=False),
    Column("user", String(255), nullable=False),
    Column("groups", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("home", String(63), nullable=False, server_default=""),
    Column("vnets", JSON, nullable=False, server_default="[]"),
    Column("created", BigInteger, nullable=False),
    Column("enrolled", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("applied", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("note", String(255), nullable=False),
)
"""DNS policies; the highest number is in use."""

tombstones = Table(
    "tombstones",
    metadata,
    Column("id", String(52), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False, index=True),
    Column("deleted", BigInteger, nullable=False),
)
