"""Firewalls of the lab's hosts, by the names that topologies call them: nftables rulesets."""

from __future__ import annotations

from collections.abc import Mapping

# A workstation's firewall as ufw or firewalld set it up: nothing comes in but answers.
WORKSTATION = """
table inet firewall {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        iifname "lo" accept
    }
}
"""

# A home or office router: lan0 inside, wan0 outside; nothing comes in but answers.
NAT_ROUTER = """
table inet firewall {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
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

SILENT = """
table inet firewall {
    chain input {
        type filter hook input priority filter; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
"""

FIREWALLS: Mapping[str, str] = {"workstation": WORKSTATION, "nat-router": NAT_ROUTER, "silent": SILENT}
