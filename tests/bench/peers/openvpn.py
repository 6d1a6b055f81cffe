"""OpenVPN over UDP, in user space: a server at the edge host passes packets between its clients."""

from __future__ import annotations

from tests.bench.peers.peer import HUB, LAPTOP_INSIDE, SITE_INSIDE, UP_WITHIN, Peer
from tests.bench.peers.programs import debian
from warren.lab.host import Host

PORT = 1194
COMMON = "dev tun0\ndev-type tun\nproto udp4\ndata-ciphers AES-128-GCM\nverb 3\ncert /root/own.pem\nkey /root/own.key\n"
SERVER = (
    "port {port}\nserver 10.99.0.0 255.255.255.0\ntopology subnet\nclient-to-client\nkeepalive 10 60\ndh none\n"
    "tls-server\nroute 10.10.0.0 255.255.0.0\nclient-config-dir /etc/openvpn-clients\n"
)
CLIENT = "client\nremote {hub} {port}\nnobind\nremote-cert-tls server\n"
UP = "Initialization Sequence Completed"


class OpenVpn(Peer):
    """Self-signed certificates, known to each other by their fingerprints."""

    name = "OpenVPN"
    path = "TLS tunnel over UDP, through a server at the hub"

    @property
    def version(self) -> str:
        return debian("openvpn").version

    def up(self) -> None:
        program = debian("openvpn").path
        marks = {
            name: self._certificate(host, name, usage)
            for name, host, usage in (
                ("hub", self.hub, "serverAuth"),
                ("laptop", self.laptop, "clientAuth"),
                ("site", self.site, "clientAuth"),
            )
        }
        stays = "ifconfig-push {} 255.255.255.0\n"  # also when the server is started again
        laptop, site = stays.format(LAPTOP_INSIDE), stays.format(SITE_INSIDE)
        self.hub.write("/etc/openvpn-clients/laptop", laptop + 'push "route 10.10.0.0 255.255.0.0"\n')
        self.hub.write("/etc/openvpn-clients/site", site + "iroute 10.10.0.0 255.255.0.0\n")
        known = f"<peer-fingerprint>\n{marks['laptop']}\n{marks['site']}\n</peer-fingerprint>\n"
        self._start(program, "hub", self.hub, SERVER.format(port=PORT) + known)
        known = f"<peer-fingerprint>\n{marks['hub']}\n</peer-fingerprint>\n"
        for where, host in (("laptop", self.laptop), ("site", self.site)):
            self._start(program, where, host, CLIENT.format(hub=HUB, port=PORT) + known)
        self.route_back()

    def _certificate(self, host: Host, name: str, usage: str) -> str:
        """Its fingerprint."""
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
        more = ["-addext", f"extendedKeyUsage={usage}", "-addext", "keyUsage=digitalSignature"]
        files = ["-keyout", "/root/own.key", "-out", "/root/own.pem"]
        host.run(["openssl", "req", "-x509", *kind, "-subj", f"/CN={name}", *more, *files])
        shown = host.run(["openssl", "x509", "-in", "/root/own.pem", "-noout", "-fingerprint", "-sha256"]).stdout
        return shown.partition("=")[2].strip()

    def _start(self, program: str, where: str, host: Host, config: str) -> None:
        host.write("/root/vpn.conf", COMMON + config)
        process = self.started(where, host.start([program, "--config", "/root/vpn.conf"], log=f"openvpn-{where}"))
        process.wait_for_output(UP, UP_WITHIN)
