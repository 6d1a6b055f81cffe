"""Safe search, as the search engines document it: their names lead to the name that only answers safely.

Google: "Lock SafeSearch for accounts, devices & networks you manage"; YouTube: "Restricted Mode, DNS"; Bing: "Block
adult content with SafeSearch"; DuckDuckGo: "Safe Search"; the others publish the same kind of name.
"""

from __future__ import annotations

from typing import Final

from warren.fabric.core import dnswire as wire

_TARGETS: Final = {
    "forcesafesearch.google.com": (),  # see _google
    "strict.bing.com": ("bing.com", "www.bing.com"),
    "safe.duckduckgo.com": ("duckduckgo.com", "www.duckduckgo.com"),
    "restrict.youtube.com": (
        "www.youtube.com",
        "m.youtube.com",
        "youtubei.googleapis.com",
        "youtube.googleapis.com",
        "www.youtube-nocookie.com",
    ),
    "familysearch.yandex.ru": ("yandex.ru", "www.yandex.ru", "yandex.com", "www.yandex.com", "ya.ru"),
    "safesearch.pixabay.com": ("pixabay.com",),
    "strict-safe-search.ecosia.org": ("www.ecosia.org",),
    "forcesafe.search.brave.com": ("search.brave.com",),
}
_BY_NAME: Final = {wire.name_wire(name): wire.name_wire(target) for target, names in _TARGETS.items() for name in names}
_GOOGLE: Final = wire.name_wire("forcesafesearch.google.com")
_LABEL: Final = b"\x06google"


def safe_name(name: bytes) -> bytes:
    """The wire name to resolve instead of that of a search engine; empty for every other name."""
    if _LABEL in name and _is_google(name):
        return _GOOGLE
    return _BY_NAME.get(name, b"")


def _is_google(name: bytes) -> bool:
    """(www.)google.com, .CC, .co.CC and .com.CC: the domains of google.com/supported_domains."""
    name = name.removeprefix(b"\x03www")
    if not name.startswith(_LABEL):
        return False
    rest = name[len(_LABEL) :]
    if rest == b"\x03com\x00" or rest == b"\x03cat\x00":
        return True
    for second in (b"\x02co", b"\x03com"):
        rest = rest.removeprefix(second) if len(rest) > 5 else rest
    return len(rest) == 4 and rest[0] == 2
