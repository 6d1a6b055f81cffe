"""Servers of other people, on the same ports, with the same names: their configuration and their figures."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.dns.loads import delays, loads, memory
from tests.bench.dns.world import HTTPS, METRICS, SERVERS, TLS, UDP, UPSTREAM, World, listed, pin, wait_until_it_says
from tests.bench.peers.peer import Missing
from tests.bench.peers.programs import Program, debian, go_program, go_tree
from warren.fabric.core import dnswire as wire

ADGUARD_HOME: Final = ("v0.107.69", "v0.107.65", "v0.107.52")
"""Releases whose sources may be had, the newest first."""


@dataclass(frozen=True, slots=True)
class Other:
    name: str
    program: Callable[[], Program]
    """Raises Missing."""
    command: Callable[[World, str], list[str]]
    """Writes its configuration; how it is started."""
    encrypted: bool = False
    """It is asked over TLS and HTTPS too."""


def measure(other: Other, world: World, seconds: int, rounds: int, *, encrypted: bool) -> dict[str, Any]:
    try:
        program = other.program()
    except Missing as missing:
        return {"name": other.name, "missing": str(missing)}
    made: dict[str, Any] = {"name": other.name, "version": program.version}
    words, started = other.command(world, program.path), time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_says(process, world.names["blocked"][-1], UDP, wire.NXDOMAIN)
        made["load_s"] = round(time.monotonic() - started, 2)
        made["resident_mib"] = memory(process.pid)
        pin(process.pid, SERVERS)
        delays(world.names["cached"])
        made["delay_ms"] = {"forwarded": delays(world.fresh)}
        made["delay_ms"] |= {kind: delays(world.names[kind][:2000]) for kind in ("cached", "blocked", "once")}
        modes = ("udp", "dot", "doh") if encrypted and other.encrypted else ("udp",)
        made |= loads(world, process.pid, modes, seconds, rounds)
        made["resident_after_mib"] = memory(process.pid)
    except (OSError, RuntimeError) as error:
        made["failed"] = str(error)
    finally:
        process.kill()
        process.wait()
    return made


def _dnsmasq(world: World, program: str) -> list[str]:
    path = world.directory / "dnsmasq.conf"
    with path.open("w") as out:
        out.write(f"port={UDP}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\ncache-size=10000\n")
        out.write(f"user=root\npid-file=\nserver=127.0.0.1#{UPSTREAM}\ndns-forward-max=1000\n")
        out.writelines(f"local=/{listed(number)}/\n" for number in range(world.entries))
    return [program, "--keep-in-foreground", f"--conf-file={path}"]


def _unbound(world: World, program: str) -> list[str]:
    path, directory = world.directory / "unbound.conf", world.directory
    with path.open("w") as out:
        out.write('server:\n num-threads: 1\n username: ""\n chroot: ""\n pidfile: ""\n use-syslog: no\n')
        out.writelines(f" interface: 127.0.0.1@{port}\n" for port in (UDP, TLS, HTTPS))
        out.write(f" port: {UDP}\n tls-port: {TLS}\n https-port: {HTTPS}\n incoming-num-tcp: 100\n")
        out.write(f' tls-service-pem: "{directory}/cert.pem"\n tls-service-key: "{directory}/key.pem"\n')
        out.write(f' directory: "{directory}"\n module-config: "iterator"\n do-not-query-localhost: no\n')
        out.write(" msg-cache-size: 16m\n rrset-cache-size: 32m\n")
        out.writelines(f' local-zone: "{listed(number)}" always_nxdomain\n' for number in range(world.entries))
        out.write(f'forward-zone:\n name: "."\n forward-addr: 127.0.0.1@{UPSTREAM}\n')
    return [program, "-d", "-c", str(path)]


def _dnsdist(world: World, program: str) -> list[str]:
    directory = world.directory
    with (directory / "names.txt").open("w") as out:
        out.writelines(f"{listed(number)}\n" for number in range(world.entries))
    pair = f'"{directory}/cert.pem", "{directory}/key.pem"'
    (directory / "dnsdist.conf").write_text(
        f'setLocal("127.0.0.1:{UDP}")\naddTLSLocal("127.0.0.1:{TLS}", {pair})\n'
        f'addDOHLocal("127.0.0.1:{HTTPS}", {pair}, "/dns-query")\nsetSecurityPollSuffix("")\n'
        f'newServer({{address="127.0.0.1:{UPSTREAM}", healthCheckMode="up"}})\n'
        f'getPool(""):setCache(newPacketCache(10000))\nlocal known = newSuffixMatchNode()\n'
        f'for name in io.lines("{directory}/names.txt") do known:add(newDNSName(name)) end\n'
        "addAction(SuffixMatchNodeRule(known), RCodeAction(DNSRCode.NXDOMAIN))\n"
    )
    return [program, "--supervised", "--disable-syslog", "-C", f"{directory}/dnsdist.conf"]


def _adguard_home(world: World, program: str) -> list[str]:
    home = world.directory / "adguard-home"
    (home / "data" / "filters").mkdir(parents=True, exist_ok=True)
    shutil.copy(world.directory / "big.txt", home / "data" / "filters" / "1.txt")
    (home / "conf.yaml").write_text(
        f"""
http: {{address: "127.0.0.1:{METRICS}"}}
dns:
  bind_hosts: [127.0.0.1]
  port: {UDP}
  upstream_dns: ["127.0.0.1:{UPSTREAM}"]
  bootstrap_dns: ["127.0.0.1:{UPSTREAM}"]
  ratelimit: 0
  refuse_any: true
  cache_size: 16777216
tls:
  enabled: true
  server_name: dns.test
  port_https: {HTTPS}
  port_dns_over_tls: {TLS}
  port_dns_over_quic: 0
  certificate_path: {world.directory}/cert.pem
  private_key_path: {world.directory}/key.pem
querylog: {{enabled: false, file_enabled: false}}
statistics: {{enabled: false}}
filters: [{{enabled: true, url: "http://127.0.0.1:1/big.txt", name: big, id: 1}}]
filtering: {{protection_enabled: true, filtering_enabled: true, blocking_mode: nxdomain, filters_update_interval: 0}}
clients: {{runtime_sources: {{whois: false, arp: false, rdns: false, dhcp: false, hosts: false}}}}
schema_version: 28
"""
    )
    return [program, "--no-check-update", "-w", str(home), "-c", str(home / "conf.yaml")]


def adguard_home_program() -> Program:
    """Its web page is no part of the module: an empty one stands in its place."""
    return go_tree("github.com/AdguardTeam/AdGuardHome", ADGUARD_HOME, "AdGuardHome", {"build/static/index.html": ""})


def _blocky(world: World, program: str) -> list[str]:
    directory = world.directory
    with (directory / "wildcards.txt").open("w") as out:
        out.writelines(f"*.{listed(number)}\n" for number in range(world.entries))
    (directory / "blocky.yaml").write_text(
        f'upstreams: {{init: {{strategy: fast}}, groups: {{default: ["tcp+udp:127.0.0.1:{UPSTREAM}"]}}}}\n'
        f'ports: {{dns: "127.0.0.1:{UDP}", tls: "127.0.0.1:{TLS}", https: "127.0.0.1:{HTTPS}"}}\n'
        f"certFile: {directory}/cert.pem\nkeyFile: {directory}/key.pem\nlog: {{level: error}}\nblocking:\n"
        f'  blockType: nxDomain\n  denylists: {{ads: ["{directory}/wildcards.txt"]}}\n'
        f"  clientGroupsBlock: {{default: [ads]}}\n"
    )
    return [program, "--config", f"{directory}/blocky.yaml", "serve"]


OTHERS: Final = (
    Other("dnsmasq", lambda: debian("dnsmasq-base", "dnsmasq"), _dnsmasq),
    Other("Unbound", lambda: debian("unbound"), _unbound, encrypted=True),
    Other("dnsdist", lambda: debian("dnsdist"), _dnsdist, encrypted=True),
    Other("AdGuard Home", adguard_home_program, _adguard_home, encrypted=True),
    Other("blocky", lambda: go_program("github.com/0xERR0R/blocky", "blocky", "blocky"), _blocky, encrypted=True),
)
