"""Who validates which group's answers: libunbound, the upstreams themselves, or nobody."""

from __future__ import annotations

import msgspec
import structlog

from warren.dnsfilter import validator
from warren.dnsfilter.core.cache import Key
from warren.dnsfilter.core.config import DEFAULT_GROUP, ResolverConfig
from warren.dnsfilter.validator import Validator
from warren.fabric.core import dnswire as wire
from warren.fabric.core.dnsprivate import PRIVATE_ZONES
from warren.fabric.core.dnsrecords import read_sections
from warren.fabric.core.dnsreply import Reply, read_reply

_SIGNATURES = frozenset({46, 47, 50})
"""RRSIG, NSEC, NSEC3: for who asked with DO, or for them (RFC 4035, section 3.2.1)."""

log = structlog.get_logger()


class Validation:
    """The validators of the groups, and the groups whose AD bit is believed."""

    def __init__(self) -> None:
        self._validators: dict[str, Validator] = {}
        self._believed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, config: ResolverConfig, ca: str = "") -> Validation:
        """As the configuration says. `ca`: PEM file for upstreams over TLS. ConfigError: it can't be done.

        Groups of private zones are left alone: nobody signed those for the world.
        """
        validation, dnssec = cls(), config.dnssec
        private = {zone.group for zone in config.zones}
        groups = {name: group for name, group in config.groups.items() if name not in private or name == DEFAULT_GROUP}
        mode = _best(config) if dnssec.mode == "auto" else dnssec.mode
        if dnssec.mode == "auto":
            log.info("dnssec", mode=mode)
        if mode == "upstream":
            validation._believed = frozenset(name for name, group in groups.items() if group.can_be_believed)
        elif mode == "libunbound":
            insecure = [*PRIVATE_ZONES, *(zone.name for zone in config.zones), *dnssec.insecure]
            for name, group in groups.items():
                validation._validators[name] = Validator(group.upstreams, dnssec.anchors, insecure, ca)
        return validation

    def covers(self, group: str, *, checking_disabled: bool) -> bool:
        """Whether libunbound asks for that group. Who sets CD wants to check for itself (RFC 4035, section 3.2.2)."""
        return group in self._validators and not checking_disabled

    def believes(self, group: str) -> bool:
        """Whether the AD bit of its upstreams is."""
        return group in self._believed

    async def ask(self, key: Key) -> Reply | str | None:
        """The answer, with AD if it is secure; why it is bogus; None: there was none. OSError: the library failed."""
        name, kind, flags, group = key
        said = await self._validators[group].ask(name, kind)
        if said.bogus:
            return said.bogus
        reply = read_reply(said.message if flags & 1 else _without_signatures(said.message, name, kind))
        if reply is None:
            return None
        set_flags = (reply.flags | wire.AD) if said.secure else (reply.flags & ~wire.AD)
        body = reply.body[:2] + set_flags.to_bytes(2, "big") + reply.body[4:]
        return msgspec.structs.replace(reply, flags=set_flags, body=body)

    def close(self) -> None:
        for known in self._validators.values():
            known.close()
        self._validators.clear()


def _best(config: ResolverConfig) -> str:
    default = config.groups.get(DEFAULT_GROUP)
    if default is None:
        return "off"
    alike = len({bool(upstream.tls_name) for upstream in default.upstreams}) == 1
    if validator.available() and alike and not any(upstream.path for upstream in default.upstreams):
        return "libunbound"
    return "upstream" if default.can_be_believed else "off"


def _without_signatures(message: bytes, name: bytes, kind: int) -> bytes:
    """The same answer for who did not ask for signatures: built anew, as others may point into what goes."""
    sections, question = read_sections(message), wire.read_question(wire.build_query(0, name, kind, edns=False))
    if sections is None or isinstance(question, wire.Unreadable):
        return b""
    gone = _SIGNATURES - {kind}
    return wire.answer(
        question,
        sections.rcode,
        [record for record in sections.answers if record.type not in gone],
        [record for record in sections.authority if record.type not in gone],
    )
