"""One small network for the tests: an administrator, an edge, a tunnel and its connector."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.fabric.identity import certificates, keys
from warren.fabric.identity.grants import Grant, Issuer, Revision, certify_grant_key
from warren.fabric.identity.statements import Edge, EdgeList, sign_edges, sign_tunnel
from warren.fabric.identity.tokens import EnrolmentKey, TunnelToken, new_secret

DEVICE = keys.generate()
NOW = 1_800_000_000.0


@dataclass
class World:
    network_key: Ed25519PrivateKey = field(default_factory=keys.generate)
    edge_ca_key: Ed25519PrivateKey = field(default_factory=keys.generate)
    edge_key: Ed25519PrivateKey = field(default_factory=keys.generate)
    grant_key: Ed25519PrivateKey = field(default_factory=keys.generate)
    tunnel_key: Ed25519PrivateKey = field(default_factory=keys.generate)
    connector_key: Ed25519PrivateKey = field(default_factory=keys.generate)
    edge: str = field(default_factory=keys.new_id)
    tunnel: str = field(default_factory=keys.new_id)

    def __post_init__(self) -> None:
        self.network = certificates.make_network(self.network_key)
        self.edge_ca = certificates.make_edge_authority(self.network_key, self.network, keys.public(self.edge_ca_key))
        self.edge_leaf = certificates.make_edge(self.edge_ca_key, self.edge_ca, self.edge, keys.public(self.edge_key))
        self.tunnel_ca = certificates.make_tunnel_authority(self.tunnel_key, self.tunnel)
        self.connector_leaf = certificates.make_connector(
            self.tunnel_key, self.tunnel_ca, self.tunnel, keys.public(self.connector_key)
        )
        self.edges = EdgeList(1, (Edge(self.edge, "edge.example.net", 4433, "fra"),))
        self.signed_edges = sign_edges(self.network_key, self.edges)
        self.statement = sign_tunnel(self.network_key, self.tunnel, self.tunnel_ca, 1)
        self.certified = certify_grant_key(self.edge_ca_key, self.edge, keys.public(self.grant_key))
        self.issuer = Issuer(self.edge, self.grant_key, self.certified, self.edge_ca)

    def token(self) -> TunnelToken:
        return TunnelToken(
            network=self.network,
            signed_edges=self.signed_edges,
            tunnel=self.tunnel,
            name="payroll",
            authority=self.tunnel_ca,
            private=keys.private_raw(self.tunnel_key),
            statement=self.statement,
        )

    def enrolment_key(self) -> EnrolmentKey:
        return EnrolmentKey(self.network, self.signed_edges, new_secret(), int(NOW) + 3600)

    def grant(self) -> Grant:
        return Grant(
            device="d1",
            thumbprint=keys.thumbprint(keys.public(DEVICE)),
            user="ann",
            tunnel=self.tunnel,
            vnet="default",
            protocol="tcp",
            address="10.10.0.5",
            host="",
            low=443,
            high=443,
            rule="everyone",
            route="r1",
            revision=Revision(1_700_000_000_000, 7),
            issued=NOW,
            expires=NOW + 60,
            key_id=self.issuer.key_id,
            edge=self.edge,
        )


WORLD = World()
OTHER = World()
