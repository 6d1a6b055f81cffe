"""wireguard-go: a hub at the edge host forwards between the laptop and the site."""

from __future__ import annotations

from tests.bench.peers.peer import HUB, HUB_INSIDE, LAPTOP_INSIDE, OVERLAY, SITE, SITE_INSIDE, UP_WITHIN, Missing, Peer
from tests.bench.peers.programs import Program, debian, go_program
from warren.lab.host import Host
from warren.lab.waiting import wait_until

PORT = 51820
MTU = 1420
KEY_FILE = "/root/wg.key"


class WireguardGo(Peer):
    """Keys and peers go in through `wg`, as an administrator would."""

    name = "wireguard-go"
    path = "WireGuard in user space, through a hub"

    @property
    def program(self) -> Program:
        return go_program("golang.zx2c4.com/wireguard", "wireguard", "wireguard-go")

    @property
    def version(self) -> str:
        return self.program.version

    def up(self) -> None:
        program = self.program
        debian("wireguard-tools", "wg")
        keys = {where: self._key(host) for where, host in self._hosts().items()}
        to_hub = f"[Peer]\nPublicKey = {keys['hub']}\nEndpoint = {HUB}:{PORT}\nPersistentKeepalive = 25\n"
        laptop = f"[Peer]\nPublicKey = {keys['laptop']}\nAllowedIPs = {LAPTOP_INSIDE}/32\n"
        site = f"[Peer]\nPublicKey = {keys['site']}\nAllowedIPs = {SITE_INSIDE}/32, {SITE}\n"
        self._start(program, "hub", HUB_INSIDE, f"ListenPort = {PORT}\n", laptop + site)
        self._start(program, "laptop", LAPTOP_INSIDE, "", f"{to_hub}AllowedIPs = {OVERLAY}, {SITE}\n")
        self._start(program, "site", SITE_INSIDE, "", f"{to_hub}AllowedIPs = {OVERLAY}\n")
        self.hub.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        for host in (self.hub, self.laptop):
            host.run(["ip", "route", "add", SITE, "dev", "wg0"])
        self.route_back()
        ping = ["ping", "-c1", "-W1", HUB_INSIDE]
        wait_until(lambda: self.site.run(ping, check=False).returncode == 0, "the site at the hub", UP_WITHIN)

    def _hosts(self) -> dict[str, Host]:
        return {"laptop": self.laptop, "hub": self.hub, "site": self.site}

    def _key(self, host: Host) -> str:
        """Makes the private key; the public one."""
        private = host.run(["wg", "genkey"]).stdout
        host.write(KEY_FILE, private, 0o600)
        return host.run(["wg", "pubkey"], input=private).stdout.strip()

    def _start(self, program: Program, where: str, address: str, more: str, peers: str) -> None:
        host = self._hosts()[where]
        process = self.started(where, host.start([program.path, "-f", "wg0"], log=f"wireguard-{where}"))

        def ready() -> bool:
            if not process.running:
                raise Missing(f"wireguard-go ended: {process.tail()[-200:]}")
            return host.path("/run/wireguard/wg0.sock").exists()

        wait_until(ready, f"wireguard-go on {where}", UP_WITHIN)
        host.write("/root/wg.conf", f"[Interface]\nPrivateKey = {host.read(KEY_FILE)}{more}{peers}", 0o600)
        host.run(["wg", "setconf", "wg0", "/root/wg.conf"])
        host.run(["ip", "addr", "add", f"{address}/24", "dev", "wg0"])
        host.run(["ip", "link", "set", "wg0", "mtu", str(MTU), "up"])
