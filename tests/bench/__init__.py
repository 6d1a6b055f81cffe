"""Measurements. `make bench` runs `python -m tests.bench.all`, which makes docs/benchmarks.md.

all.py          the parts in their order; settings.py: how long and how often
path.py         one peer of peers/ in a lab of its own: loads.py (iperf3, probe.py), accounts.py (/proc)
badlink.py      an impaired link; profile.py: samples of the daemons, taken by profiled.py
engines.py      QUIC engines in memory, beside library.py; machine.py: what it ran on
figures.py      medians and tables; verdicts.py: what is asked for; report.py: the page
dns/            the resolver and others beside it: docs/benchmarks-dns.md; alone by `python -m tests.bench.dns`
switch.py       the switch alone, by hand: `python -m tests.bench.switch`
"""
