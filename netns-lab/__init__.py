"""The lab: a small internet on one machine, its hosts made of namespaces; see `topologies.py` for the drawing.

with Lab(OFFICE) as lab:
    lab["laptop"].run(["ping", "-c1", "203.0.113.10"])
"""

from warren.lab.host import CommandError, Host
from warren.lab.lab import Lab
from warren.lab.process import Process
from warren.lab.state import LabError
from warren.lab.topologies import OFFICE
from warren.lab.topology import HostSpec, Interface, Network, Route, Topology
from warren.lab.waiting import wait_until

__all__ = [
    "OFFICE",
    "CommandError",
    "Host",
    "HostSpec",
    "Interface",
    "Lab",
    "LabError",
    "Network",
    "Process",
    "Route",
    "Topology",
    "wait_until",
]
