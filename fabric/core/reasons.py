"""Every reason, once: wire code = log field = metric label = what the user reads.

Codes are never reused. An unknown code from a newer peer reads as `Reason.UNKNOWN`.
"""

from __future__ import annotations

import enum


class Reason(enum.Enum):
    """Why something was refused, ended or dropped. Value: (wire code, word for logs and metrics, text for the user)."""

    UNKNOWN = (0, "unknown", "the other side gave a reason that this version does not know")

    # the origin
    REFUSED = (1, "refused", "the origin refused the connection")
    HOST_UNREACHABLE = (2, "host_unreachable", "the origin's host can't be reached from the connector")
    NET_UNREACHABLE = (3, "net_unreachable", "the origin's network can't be reached from the connector")
    TIMED_OUT = (4, "timed_out", "the origin did not answer")
    NO_SUCH_NAME = (5, "no_such_name", "the private network's resolver does not know that name")
    RESOLVER_FAILED = (6, "resolver_failed", "the private network's resolver did not answer")
    PROHIBITED = (7, "prohibited", "a router or firewall of the private network does not allow it")

    # the judge
    NO_ROUTE = (20, "no_route", "no route leads to that destination")
    POLICY = (21, "policy", "the policy does not allow it")
    DEVICE_UNKNOWN = (22, "device_unknown", "the device is not enrolled, or was deleted")
    TUNNEL_DOWN = (23, "tunnel_down", "no connector of the tunnel is attached")
    JUDGE_AWAY = (24, "judge_away", "no edge can be asked right now")
    ENROLMENT_KEY = (25, "enrolment_key", "the enrolment key was used already, has expired or was deleted")
    VNET_NOT_ALLOWED = (30, "vnet_not_allowed", "the administrator has not allowed this device that virtual network")

    # proof and grants
    BAD_PROOF = (40, "bad_proof", "the key that was shown is not the one that was expected")
    BAD_GRANT = (41, "bad_grant", "the grant is not signed by an edge of this network")
    GRANT_EXPIRED = (42, "grant_expired", "the grant has expired")
    GRANT_MISMATCH = (43, "grant_mismatch", "the grant is for another device, tunnel, destination or port")
    STALE_GRANT = (44, "stale_grant", "the grant is older than a change of routes or devices")
    CEILING = (45, "ceiling", "the connector's own --allow list does not contain that destination")
    RESERVED_ADDRESS = (46, "reserved_address", "loopback, link-local and metadata addresses are refused unless named")
    WRONG_TUNNEL = (47, "wrong_tunnel", "the network key did not sign that tunnel, or signed a newer one")

    # bounds and ends
    LIMIT = (60, "limit", "too many at once; the bound is in docs/memory.md")
    DRAINING = (61, "draining", "the connector is being stopped")
    CANCELLED = (62, "cancelled", "the app gave up")
    PEER_GONE = (63, "peer_gone", "the other end of the tunnel is gone")
    PROTOCOL = (64, "protocol", "the other side broke the protocol")
    VERSION = (65, "version", "the other side speaks a version that this one does not")
    INTERNAL = (66, "internal", "a fault in Warren; the log has more")
    UNSUPPORTED = (67, "unsupported", "this kind of traffic is not carried")

    def __init__(self, code: int, word: str, text: str) -> None:
        self.code = code
        self.word = word
        self.text = text

    @classmethod
    def of(cls, code: int) -> Reason:
        """The reason with this wire code; UNKNOWN if there is none."""
        return _BY_CODE.get(code, cls.UNKNOWN)

    @property
    def close_code(self) -> int:
        """The application error code of a QUIC connection that is closed for this reason (RFC 9000, 20.2)."""
        return CLOSE_CODES + self.code

    @classmethod
    def of_close(cls, code: int) -> Reason:
        """Why a connection was closed: by one of Warren's own codes, or by one of QUIC's (RFC 9000, 20.1)."""
        if code >= CLOSE_CODES:
            return cls.of(code - CLOSE_CODES)
        if code in TLS_ALERTS:
            return cls.BAD_PROOF
        return _OF_TRANSPORT.get(code, cls.PROTOCOL)


CLOSE_CODES = 0x5700_0000
"""Where our application error codes begin: far above QUIC's own codes, from which they must be told apart."""
TLS_ALERTS = range(0x100, 0x200)
"""QUIC's codes for an alert of TLS (RFC 9001, section 4.8)."""
_OF_TRANSPORT = {
    0x0: Reason.PEER_GONE,  # NO_ERROR: also what engines give for an idle time-out and a stateless reset
    0x1: Reason.INTERNAL,
    0x2: Reason.LIMIT,  # CONNECTION_REFUSED
    0xC: Reason.UNKNOWN,  # APPLICATION_ERROR: closed before the handshake was done, so the reason stays hidden
}

_BY_CODE = {reason.code: reason for reason in Reason}
