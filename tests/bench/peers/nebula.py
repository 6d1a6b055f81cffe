"""nebula: certificates of one authority, a lighthouse at the edge host, which relays where no direct way is allowed."""

from __future__ import annotations

import json
from typing import Any

from tests.bench.peers.peer import HUB, HUB_INSIDE, LAPTOP_INSIDE, SITE, SITE_INSIDE, UP_WITHIN, Peer
from tests.bench.peers.programs import Program, go_program
from warren.lab.host import Host
from warren.lab.waiting import wait_until

PORT = 4242
ANY = [{"port": "any", "proto": "any", "host": "any"}]
FOLDER = "/etc/nebula"


class NebulaDirect(Peer):
    """Laptop and site find each other by the lighthouse and punch through their NATs."""

    name = "nebula direct"
    path = "Noise tunnel over UDP, NATs punched"
    relayed = False

    @property
    def program(self) -> Program:
        return go_program("github.com/slackhq/nebula/cmd/nebula", "nebula", "nebula")

    @property
    def authority(self) -> Program:
        return go_program("github.com/slackhq/nebula/cmd/nebula-cert", "nebula-cert", "nebula")

    @property
    def version(self) -> str:
        return self.program.version

    def up(self) -> None:
        program = self.program
        self._certificates()
        self._start(program, "hub", self.hub, lighthouse=True)
        self._start(program, "site", self.site)
        self._start(program, "laptop", self.laptop)
        self.route_back()
        ping = ["ping", "-c1", "-W1", SITE_INSIDE]
        wait_until(lambda: self.laptop.run(ping, check=False).returncode == 0, "the site by nebula", UP_WITHIN)

    def _certificates(self) -> None:
        """All made at the hub and carried."""
        tool = self.authority.path.removesuffix("-cert") + "-cert"
        self.hub.write(f"{FOLDER}/names", "")
        authority = ["-out-crt", f"{FOLDER}/ca.crt", "-out-key", f"{FOLDER}/ca.key"]
        self.hub.run([tool, "ca", "-name", "lab", *authority])
        for where, host, address in (
            ("hub", self.hub, HUB_INSIDE),
            ("laptop", self.laptop, LAPTOP_INSIDE),
            ("site", self.site, SITE_INSIDE),
        ):
            signed = ["-ca-crt", f"{FOLDER}/ca.crt", "-ca-key", f"{FOLDER}/ca.key"]
            made = ["-out-crt", f"{FOLDER}/{where}.crt", "-out-key", f"{FOLDER}/{where}.key"]
            subnets = ["-subnets", SITE] if where == "site" else []
            self.hub.run([tool, "sign", *signed, "-name", where, "-ip", f"{address}/24", *subnets, *made])
            for name, target in ((f"{where}.crt", "own.crt"), (f"{where}.key", "own.key"), ("ca.crt", "ca.crt")):
                host.write(f"{FOLDER}/{target}", self.hub.read(f"{FOLDER}/{name}"), 0o600)

    def _start(self, program: Program, where: str, host: Host, *, lighthouse: bool = False) -> None:
        config = self._config(where, lighthouse)
        host.write(f"{FOLDER}/config.yml", json.dumps(config))  # JSON is YAML
        words = [program.path, "-config", f"{FOLDER}/config.yml"]
        process = self.started(where, host.start(words, log=f"nebula-{where}"))
        process.wait_for_output("Nebula interface is active", UP_WITHIN)

    def _config(self, where: str, lighthouse: bool) -> dict[str, Any]:
        config: dict[str, Any] = {
            "pki": {"ca": f"{FOLDER}/ca.crt", "cert": f"{FOLDER}/own.crt", "key": f"{FOLDER}/own.key"},
            "static_host_map": {HUB_INSIDE: [f"{HUB}:{PORT}"]},
            "lighthouse": {"am_lighthouse": lighthouse, "hosts": [] if lighthouse else [HUB_INSIDE]},
            "listen": {"host": "0.0.0.0", "port": PORT if lighthouse else 0},
            "punchy": {"punch": True, "respond": True},
            "cipher": "aes",
            "relay": {"am_relay": lighthouse and self.relayed, "use_relays": self.relayed},
            "tun": {"dev": "nebula0", "mtu": 1300},
            "firewall": {"outbound": ANY, "inbound": [{**ANY[0], "local_cidr": "0.0.0.0/0"}]},
        }
        if where == "laptop":
            config["tun"]["unsafe_routes"] = [{"route": SITE, "via": SITE_INSIDE}]
        if self.relayed and not lighthouse:
            config["relay"]["relays"] = [HUB_INSIDE]
            config["lighthouse"]["remote_allow_list"] = {f"{HUB}/32": True, "0.0.0.0/0": False}
        return config


class NebulaRelay(NebulaDirect):
    """No direct way is allowed: everything passes the lighthouse, encrypted end to end."""

    name = "nebula relayed"
    path = "Noise tunnel over UDP, through a relay at the hub"
    relayed = True
