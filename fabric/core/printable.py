"""Text that a peer sent, made fit for a log's line or somebody's terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with whatever does not print (line ends, escape sequences) as `\\n`, `\\x1b` and the like."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
