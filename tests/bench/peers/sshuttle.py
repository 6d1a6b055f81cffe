"""sshuttle: TCP only, over ssh. The site's ssh server is reached through a port that the edge host forwards."""

from __future__ import annotations

from tests.bench.peers.peer import HUB, SITE, UP_WITHIN, Peer
from tests.bench.peers.programs import debian
from warren.lab.services import serve_ssh

GATEWAY, FORWARDED = 2200, 2222
QUIET = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]


class Sshuttle(Peer):
    """The site dials out (`ssh -R`), for no port of it is open; sshuttle's own settings are left as they come."""

    name = "sshuttle"
    path = "TCP over ssh, through a forwarded port at the hub"
    udp = False

    @property
    def version(self) -> str:
        return debian("sshuttle").version

    def up(self) -> None:
        program = debian("sshuttle").path
        process, site_key = serve_ssh(self.site)
        self.started("site", process)
        _, hub_key = serve_ssh(self.hub)
        serve = [
            "/usr/sbin/sshd",
            "-D",
            "-e",
            "-f",
            "/etc/ssh-lab/config",
            "-p",
            str(GATEWAY),
            "-o",
            "GatewayPorts=yes",
        ]
        gateway = self.started("hub", self.hub.start(serve, log="gateway-sshd"))
        self.hub.wait_for_listener(GATEWAY, gateway)
        self.site.write("/root/key", hub_key.private, 0o600)
        self.laptop.write("/root/key", site_key.private, 0o600)
        back = ["-N", "-R", f"0.0.0.0:{FORWARDED}:127.0.0.1:22", "-p", str(GATEWAY), f"root@{HUB}"]
        self.started("site", self.site.start(["ssh", "-i", "/root/key", *QUIET, *back], log="site-ssh"))
        self.hub.wait_for_listener(FORWARDED)
        ssh = " ".join(["ssh", "-i", "/root/key", *QUIET])
        words = [program, "-v", "--method", "nft", "-e", ssh, "-r", f"root@{HUB}:{FORWARDED}", SITE]
        self.started("laptop", self.laptop.start(words, log="sshuttle")).wait_for_output("onnected", UP_WITHIN)
