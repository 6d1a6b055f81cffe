"""Policy and lists: may this client have this name, and what the answer leads to?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from warren.dnsfilter.core.policy import BLOCK_TTL, Answer, CompiledPolicy, Ruling
from warren.dnsfilter.core.rules import Decision, Outcome, Rewrite, RuleSet
from warren.dnsfilter.core.safesearch import safe_name
from warren.dnsfilter.core.verdict import Asked, Kind, Resolved, Said, Verdict
from warren.dnsfilter.core.walks import Walks
from warren.fabric.core import dnswire as wire

_REWRITE_TTL: Final = 10
"""What AdGuard Home gives answers out of lists; they change with the list."""
_ZERO: Final = (bytes(4), bytes(16))
_ADDRESS: Final = "an address in the answer"


class Filter:
    """What filters: a rule set and the policy over it. Never changed: a new one takes its place as a whole."""

    def __init__(self, rules: RuleSet, policy: CompiledPolicy) -> None:
        self.rules = rules
        self.policy = policy
        self.blocks: dict[tuple[object, ...], tuple[wire.Ending, Verdict]] = {}
        """Answers for blocked names, by what they depend on: some for each pair of rule and list."""
        self._safe = any(rule.action == "safe-search" for rule in policy.policy.rules)
        apart = policy.named.union(rules.special)
        """Names of which, and of those below, something is said that is not said of others."""
        self._never = b"\x00" in apart
        self._walks = Walks(rules.shortest, apart)

    def likenesses(self, names: Sequence[bytes]) -> list[int]:
        """For each a number that two names share only if lists and policy say the same of both, to the same client
        about the same type; -1: none (see `RuleSet.likenesses`)."""
        if self._never:
            return [-1] * len(names)
        said = self.rules.likenesses(names, self._walks)
        if self._safe:
            return [-1 if safe_name(name) else number for name, number in zip(names, said, strict=True)]
        return said

    def depends_on_client(self, said: Said) -> bool:
        """Whether the same answer may be fine for one client and blocked for another."""
        return bool(said.chain) or self.rules.has_addresses


class Slot:
    """Where the filter in use stands; whoever builds a new one puts it here."""

    def __init__(self, current: Filter) -> None:
        self.current = current


class Filtering:
    """The first rule of the policy that matches decides; CNAMEs in answers are looked at too (cloaking)."""

    name = "filtering"

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def decide(self, asked: Asked) -> Resolved | None:
        current, question = self._slot.current, asked.question
        match = current.rules.match(question.name, question.type, asked.client)
        ruling = current.policy.ruling(question.name, question.type, asked.client, match, asked.wall)
        rule = ruling.rule
        if rule is None:
            return None
        if rule.action == "allow":
            asked.rule, asked.inspect = rule.name, False
            return None
        if rule.action == "resolver":
            asked.rule, asked.group = rule.name, rule.resolver
            return None
        if rule.action == "block":
            return self._listed(asked, ruling, "")
        if ruling.target:
            asked.rule, asked.alias = rule.name, ruling.target
            return None
        ttl = rule.override.ttl if rule.override is not None else BLOCK_TTL
        message = wire.answer_addresses(question, ruling.addresses, ttl, limit=asked.limit)
        return Resolved(message, Verdict(Kind.OVERRIDDEN, self.name, rule.name), question)

    def inspect(self, asked: Asked, said: Said) -> Resolved | None:
        """Blocked, if a CNAME or an address of the answer is; or what an entry dictates for such an address.

        That may be another name to resolve: then None, and `asked.alias` is set.
        """
        if not asked.inspect:
            return None
        current = self._slot.current
        for name in said.chain:
            match = current.rules.match(name, asked.question.type, asked.client)
            ruling = current.policy.ruling(name, asked.question.type, asked.client, match, asked.wall)
            if ruling.rule is not None and ruling.rule.action == "block":
                return self._listed(asked, ruling, f"leads to {wire.name_text(name)}")
        for address in said.addresses:
            match = current.rules.match_address(address, asked.question.type, asked.client)
            if match is not None:
                ruling = current.policy.address_ruling(match, asked.client, asked.wall)
                if ruling.rule is not None:
                    return self._listed(asked, ruling, _ADDRESS)
        return None

    def _listed(self, asked: Asked, ruling: Ruling, because: str) -> Resolved | None:
        decision, rule = ruling.decision, ruling.rule
        assert rule is not None  # our own callers
        if decision is not None and decision.outcome is Outcome.REWRITTEN and because in ("", _ADDRESS):
            return self._dictated(asked, decision, rule.name)
        index = -1 if decision is None else decision.list
        answer = rule.answer or self._slot.current.policy.policy.answer
        if because:
            return self._blocked(asked, rule.name, index, answer, f", {because}")
        question, blocks = asked.question, self._slot.current.blocks
        family = question.type if answer == "zero" and question.type in (wire.A, wire.AAAA) else 0
        key = (rule.name, index, answer, family, question.edns, question.dnssec_ok)
        known = blocks.get(key)
        if known is None:
            resolved = self._blocked(asked, rule.name, index, answer, "")
            if not resolved.message[2] & 2:  # nor is it cut
                blocks[key] = wire.ending_of(resolved.message, question), resolved.verdict
                asked.general = True
            return resolved
        ending, verdict = known
        if len(question.raw) + len(ending.rest) + wire.HEADER + 4 > asked.limit:
            return self._blocked(asked, rule.name, index, answer, "")
        asked.general = True
        return Resolved(wire.answer_with(question, ending), verdict, question)

    def _blocked(self, asked: Asked, rule: str, index: int, answer: Answer, because: str) -> Resolved:
        name = self._slot.current.policy.list_name(index)
        words = f"rule {rule}" + (f", list {name}" if name else "") + because
        return Resolved(blocked(asked, answer, words), Verdict(Kind.BLOCKED, self.name, rule, name), asked.question)

    def _dictated(self, asked: Asked, decision: Decision, rule: str) -> Resolved | None:
        """What entries dictate: a code wins, then a CNAME, then all records of the type (AdGuard's order)."""
        question = asked.question
        rewrites = [held.rewrite for held in decision.rewrites if held.rewrite is not None]
        verdict = Verdict(Kind.OVERRIDDEN, self.name, rule, self._slot.current.policy.list_name(decision.list))
        for rewrite in rewrites:
            if rewrite.drop:
                return Resolved(b"", verdict, question)
            if rewrite.truncate:
                if asked.limit == wire.TCP_MAX:
                    return None
                return Resolved(wire.answer(question, limit=0), verdict, question)
            if rewrite.rcode or rewrite == Rewrite():
                extended = wire.Extended(wire.EDE_BLOCKED, f"rule {rule}, list {verdict.list}")
                return Resolved(_negative(asked, rewrite.rcode, extended), verdict, question)
        for rewrite in rewrites:
            if rewrite.cname:
                alias = question.name[:-1] + rewrite.cname if rewrite.garden else rewrite.cname
                if len(alias) > wire.NAME_MAX:
                    extended = wire.Extended(wire.EDE_BLOCKED, f"rule {rule}, list {verdict.list}")
                    return Resolved(_negative(asked, wire.NXDOMAIN, extended), verdict, question)
                asked.rule, asked.alias = rule, alias
                return None
        records = [wire.Record(held.type, held.rdata, _REWRITE_TTL) for held in rewrites if held.type == question.type]
        return Resolved(wire.answer(question, records=records, limit=asked.limit), verdict, question)


def blocked(asked: Asked, answer: Answer, words: str) -> bytes:
    """The message for a blocked name, with the reason in words (RFC 8914, section 4.16)."""
    extended = wire.Extended(wire.EDE_BLOCKED, words)
    if answer == "refused":
        return wire.answer(asked.question, wire.REFUSED, extended=extended, limit=asked.limit)
    if answer == "nxdomain":
        return _negative(asked, wire.NXDOMAIN, extended)
    records = []
    if asked.question.type in (wire.A, wire.AAAA):
        records = [wire.Record(asked.question.type, _ZERO[asked.question.type == wire.AAAA], BLOCK_TTL)]
    return wire.answer(asked.question, records=records, extended=extended, limit=asked.limit)


def _negative(asked: Asked, rcode: int, extended: wire.Extended) -> bytes:
    """With an SOA of the name itself, so that it is remembered for a minute and not asked for again at once."""
    authority = [wire.soa(wire.QUESTION_NAME, BLOCK_TTL)] if rcode in (wire.NOERROR, wire.NXDOMAIN) else []
    return wire.answer(asked.question, rcode, authority=authority, extended=extended, limit=asked.limit)
