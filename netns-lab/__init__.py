"""The lab: a small internet on one machine, its hosts made of namespaces; see `topologies/*.yaml` for drawings.

with Lab(OFFICE) as lab:
    lab["laptop"].run(["ping", "-c1", "203.0.113.10"])
"""

from warren.lab.host import CommandError, Host
from warren.lab.impairment import Impairment
from warren.lab.lab import Lab
from warren.lab.process import Process
from warren.lab.state import LabError
from warren.lab.topologies import OFFICE, TWO_SITES
from warren.lab.topology import HostSpec, Interface, Network, Route, Topology
from warren.lab.waiting import wait_until

__all__ = [
    "OFFICE",
    "TWO_SITES",
    "CommandError",
    "Host",
    "HostSpec",
    "Impairment",
    "Interface",
    "Lab",
    "LabError",
    "Network",
    "Process",
    "Route",
    "Topology",
    "wait_until",
]
