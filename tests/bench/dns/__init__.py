"""The resolver over loopback, and others beside it in the same run; writes docs/benchmarks-dns.md and .json.

    python -m tests.bench.dns [entries ...] [--quick] [--alone] [--write]

A list of as many names as told (10,000, 100,000 and a million), 200 policy rules, query log, metrics and rate limit on.
Each server has one core for itself (with all its threads), dnsperf and the upstream have the others. Beside it stand
dnsmasq, Unbound, dnsdist, AdGuard Home and blocky, as far as they are there or can be built, with the same names and
the same upstream; none of them knows clients or logs queries here.
"""
