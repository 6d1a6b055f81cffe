"""Warren for an hour on a link that stays bad and changes all the while: `make soak-lab`.

weather.py   what happens to the link, one change after another (seeded)
visits.py    flows that open, carry, end, each byte and each end checked
memory.py    what each daemon holds, and whether that grows
report.py    the page
"""
