"""The lab's topologies. Public addresses are those set aside for documentation (RFC 5737).

laptop ────────── home ─────────── internet ─────────── edge
192.168.77.10     NAT              name server          203.0.113.10
default-drop      192.0.2.2        192.0.2.53
input firewall                        │
                                    office              198.51.100.2, NAT, lets nothing in
                                      │ 10.10.0.1       10.10.66.0/24 unreachable, 10.10.77.0/24 prohibited
           ┌─────────────┬────────────┼────────────┬─────────────┐        10.10.0.0/24
       connector      payroll         db       nameserver      silent
       10.10.0.2      10.10.0.10   10.10.0.20  10.10.0.53    10.10.0.66, answers nothing at all
"""

from __future__ import annotations

from collections.abc import Mapping

from warren.lab.topology import HostSpec, Interface, Network, Route, Topology

# A workstation's firewall as ufw or firewalld set it up: nothing comes in but answers.
WORKSTATION_FIREWALL = """
table inet firewall {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname "lo" accept
    }
}
"""

# A router for one household or office: its own side may go out, translated; what comes from outside may not come in.
NAT_ROUTER_FIREWALL = """
table inet firewall {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname { "lo", "lan0" } accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan0" oifname "wan0" accept
        iifname "lan0" oifname "lan0" accept
    }
}
table ip translation {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan0" masquerade
    }
}
"""

SILENT_FIREWALL = """
table inet firewall {
    chain input { type filter hook input priority filter; policy drop; }
}
"""

PUBLIC_NAMESERVER = "192.0.2.53"
SITE_NAMESERVER = "10.10.0.53"

# Names of the site, known to its own name server only, and names that everybody may ask for.
SITE_NAMES: Mapping[str, str] = {
    "payroll.internal": "10.10.0.10",
    "db.internal": "10.10.0.20",
    "silent.internal": "10.10.0.66",
    "nowhere.internal": "10.10.66.1",
}
PUBLIC_NAMES: Mapping[str, str] = {
    "edge.example.net": "203.0.113.10",
    "www.example.com": "203.0.113.1",
}


def _site_host(name: str, address: str, firewall: str = "") -> HostSpec:
    return HostSpec(
        name=name,
        interfaces=(Interface("site", f"{address}/24"),),
        routes=(Route("default", via="10.10.0.1"),),
        firewall=firewall,
        nameserver=SITE_NAMESERVER,
    )


OFFICE = Topology(
    name="office",
    networks=(
        Network("home-lan"),
        Network("home-line"),
        Network("hosting"),
        Network("office-line"),
        Network("site", switch="office"),
    ),
    hosts=(
        HostSpec(
            name="laptop",
            interfaces=(Interface("home-lan", "192.168.77.10/24"),),
            routes=(Route("default", via="192.168.77.1"),),
            firewall=WORKSTATION_FIREWALL,
            nameserver=PUBLIC_NAMESERVER,
        ),
        HostSpec(
            name="home",
            interfaces=(
                Interface("home-lan", "192.168.77.1/24", "lan0"),
                Interface("home-line", "192.0.2.2/30", "wan0"),
            ),
            routes=(Route("default", via="192.0.2.1"),),
            forwards=True,
            firewall=NAT_ROUTER_FIREWALL,
            nameserver=PUBLIC_NAMESERVER,
        ),
        HostSpec(
            name="internet",
            interfaces=(
                Interface("home-line", "192.0.2.1/30", "home0"),
                Interface("hosting", "203.0.113.1/24", "hosting0"),
                Interface("office-line", "198.51.100.1/30", "office0"),
            ),
            loopback=(f"{PUBLIC_NAMESERVER}/32",),
            forwards=True,
            nameserver=PUBLIC_NAMESERVER,
        ),
        HostSpec(
            name="edge",
            interfaces=(Interface("hosting", "203.0.113.10/24"),),
            routes=(Route("default", via="203.0.113.1"),),
            nameserver=PUBLIC_NAMESERVER,
        ),
        HostSpec(
            name="office",
            interfaces=(
                Interface("site", "10.10.0.1/24", "lan0"),
                Interface("office-line", "198.51.100.2/30", "wan0"),
            ),
            routes=(
                Route("default", via="198.51.100.1"),
                Route("10.10.66.0/24", kind="unreachable"),
                Route("10.10.77.0/24", kind="prohibit"),
            ),
            forwards=True,
            sysctls={"net.ipv4.icmp_ratelimit": "0"},  # each refusal is answered, also the fifth in a second
            firewall=NAT_ROUTER_FIREWALL,
            nameserver=PUBLIC_NAMESERVER,
        ),
        _site_host("connector", "10.10.0.2"),
        _site_host("payroll", "10.10.0.10"),
        _site_host("db", "10.10.0.20"),
        _site_host("nameserver", SITE_NAMESERVER),
        _site_host("silent", "10.10.0.66", SILENT_FIREWALL),
    ),
)

TOPOLOGIES: Mapping[str, Topology] = {topology.name: topology for topology in (OFFICE,)}
