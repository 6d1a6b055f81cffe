"""Warren under fire. `make chaos` runs `python -m tests.chaos`, which makes docs/chaos.md.

kinds.py      what goes wrong, one kind at a time, and which flows it may cost
world.py      the lab: two edges, two connectors of one tunnel, an agent, and the apps
apps.py       the programs that use it all the while: streams, datagrams, idle flows
programs.py   the same with real ones: ssh, scp, psql, ping, iperf3
progress.py   when an app went on, and what that says about an event: stalls, flows lost, bytes wrong
run.py        events in their order (seeded), each with recovery after it
report.py     the page; plot.py: its picture
"""
