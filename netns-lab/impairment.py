"""What a bad link is like, as data, and how people write it: `1%`, `25ms`, `100mbit`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

UNITS_OF_TIME = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
UNITS_OF_RATE = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
SLOWEST, FASTEST = 10_000, 10**11  # bits per second
LONGEST = 60.0  # seconds that a link may hold a packet


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to each packet of a network, each way. ValueError where it makes no sense.

    `loss`, `reorder`, `duplicate`: shares, 0 to 1. `rate`: bits per second, of each card that sends (0: unlimited),
    with a queue of `queue` seconds before it that drops what comes on top. `delay`, `jitter`: seconds; a packet takes
    delay ± jitter and does not overtake; one that is reordered takes longer, and what follows overtakes it.
    `seed`: of delays, reordering and duplication; the same packets in the same order meet the same fate.
    """

    loss: float = 0.0
    rate: int = 0
    queue: float = 0.05
    delay: float = 0.0
    jitter: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("loss", "reorder", "duplicate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share of all packets: 0% to 100%")
        if self.rate and not SLOWEST <= self.rate <= FASTEST:
            raise ValueError("rate is 10kbit to 100gbit, or 0 for no limit")
        if not 0 < self.queue <= LONGEST or not 0 <= self.delay <= LONGEST:
            raise ValueError("delay is 0 to 60s, and queue more than 0 and no more than that")
        if not 0 <= self.jitter <= self.delay:
            raise ValueError("jitter is no more than the delay that it varies")

    @property
    def emulated(self) -> bool:
        """Does it need the emulator? Loss and rate are the kernel's own."""
        return bool(self.delay or self.reorder or self.duplicate)

    def __str__(self) -> str:
        """As `lab link` takes it; what is as usual is left out."""
        said = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default or (field.name == "queue" and not self.rate):
                continue
            said.append(f"{field.name} {_written(field.name, value)}")
        return ", ".join(said) or "none"


@dataclass(frozen=True, slots=True)
class Report:
    """How an impaired network has fared since it was impaired.

    `arrived`, `lost`: packets that came to the network's cards, and were dropped there on purpose. The rest is the
    emulator's: packets `held` and passed on later, of them `reordered` and `duplicated`, dropped since it held too many
    or could not pass on more (`overflowed`), and its own processor time in seconds, beside the `seconds` that it ran.
    """

    network: str
    impairment: Impairment
    arrived: int = 0
    lost: int = 0
    held: int = 0
    reordered: int = 0
    duplicated: int = 0
    overflowed: int = 0
    processor: float = 0.0
    seconds: float = 0.0


def share(text: str) -> float:
    """`1%`, `0.5 %` or `0.01`: a share of 1."""
    number, unit = _split(text, ("%", ""), "a share like 1% or 0.01")
    return number / 100 if unit == "%" else number


def seconds(text: str) -> float:
    """`25ms`, `300us`, `1.5s`."""
    number, unit = _split(text, tuple(UNITS_OF_TIME), "a time like 25ms, 300us or 1.5s")
    return number * UNITS_OF_TIME[unit]


def bits(text: str) -> int:
    """`100mbit`, `1gbit`, `56kbit`: bits per second."""
    number, unit = _split(text, tuple(UNITS_OF_RATE), "a rate like 100mbit, 1gbit or 56kbit")
    return round(number * UNITS_OF_RATE[unit])


def _split(text: str, units: tuple[str, ...], wanted: str) -> tuple[float, str]:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)\s*([a-z%]*)", text.strip().lower())
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not {wanted}")
    return float(match[1]), match[2]


def _written(name: str, value: float) -> str:
    if name in ("loss", "reorder", "duplicate"):
        return f"{value * 100:g}%"
    if name in ("delay", "jitter", "queue"):
        return f"{value * 1000:g}ms"
    if name == "rate":
        return f"{value / 1e6:g}mbit"
    return f"{value}"
