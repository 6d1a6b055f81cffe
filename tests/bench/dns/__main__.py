"""`python -m tests.bench.dns`."""

from __future__ import annotations

import argparse

from tests.bench.dns import __doc__ as about
from tests.bench.dns import page
from tests.bench.dns.measuring import SIZES, measure


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.dns", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entries", nargs="*", type=int, help="names on the list")
    parser.add_argument("--quick", action="store_true", help="one round: does every row work?")
    parser.add_argument("--alone", action="store_true", help="without the others")
    parser.add_argument(
        "--write", action="store_true", help="write docs/benchmarks-dns.md and docs/benchmarks-dns.json"
    )
    given = parser.parse_args()
    said = measure(given.entries or SIZES, quick=given.quick, alone=given.alone)
    print(page.page(said))
    if given.write:
        page.write(said)


if __name__ == "__main__":
    main()
