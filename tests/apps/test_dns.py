"""The resolver among real ones: NSD with signed, bogus, expired and insecure zones below a root of its own, Unbound and
Knot Resolver in front of it as upstreams, dig, kdig and delv as clients.

    authority 10.53.0.1      upstream 10.53.0.2       resolver 10.53.0.3       client 10.53.0.4
    NSD, all zones           Unbound :53 :853 :443,   warren dns run,          dig, kdig, delv
                             :5300 not validating,    one of each mode
                             Knot Resolver :5400
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import faults
from tests.loopback.dnsfilter.certificates import make_certificate
from warren.lab import HostSpec, Interface, Lab, Network, Topology
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.waiting import wait_until

SUBNET = Topology(
    name="resolvers",
    networks=(Network("lan", switch="authority"),),
    hosts=tuple(
        HostSpec(name, (Interface("lan", f"10.53.0.{number}/24"),))
        for number, name in enumerate(("authority", "upstream", "resolver", "client"), 1)
    ),
)
NEEDED = ("nsd", "unbound", "kresd", "dnssec-signzone", "dnssec-keygen", "dig", "kdig", "delv")
ZONES = ("signed", "bogus", "expired", "insecure")
PORTS = {"libunbound": 53, "upstream": 1053, "upstream-https": 2053, "knot": 3053, "off": 4053}
"""Of our resolver's instances, by how they validate; TLS is 10000 above, HTTPS 20000."""
AD = re.compile(r"flags: [a-z ]*\bad\b")

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)) and not os.environ.get("WARREN_REQUIRE_LAB"), reason=f"needs {', '.join(NEEDED)}"
)


def sign(directory: Path, zone: str, text: str, *options: str) -> Path:
    """Sign with fresh keys; the file. DS records go to `dsset-ZONE`."""
    name = f"{zone}." if zone else "."
    path = directory / f"{zone or 'root'}.zone"
    path.write_text(text)
    for kind in ([], ["-f", "KSK"]):
        words = ["dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", *kind, name]
        subprocess.run(words, cwd=directory, check=True, capture_output=True)
    words = ["dnssec-signzone", "-q", "-S", *options, "-o", name, "-f", f"{path.name}.signed", path.name]
    subprocess.run(words, cwd=directory, check=True, capture_output=True)
    return directory / f"{path.name}.signed"


def make_zones(directory: Path) -> dict[str, Path]:
    """Zone → file; the root's trust anchor in `anchor` (DS) and `delv.conf`."""
    found = dict[str, Path]()
    head = "$TTL 60\n@ SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 30\n@ NS ns.{zone}.\nns.{zone}. A 10.53.0.1\n"
    for zone in ZONES:
        text = head.format(zone=zone) + "www A 198.18.0.10\nalias CNAME www\nbrief 1 A 198.18.0.11\n"
        text += "".join(f"many A 198.18.1.{n}\n" for n in range(200))
        if zone == "insecure":
            found[zone] = directory / "insecure.zone"
            found[zone].write_text(f"$ORIGIN {zone}.\n{text}")
        else:
            dates = ["-P", "-s", "20200101000000", "-e", "20200201000000"] if zone == "expired" else []
            found[zone] = sign(directory, zone, f"$ORIGIN {zone}.\n{text}", *dates)
    forged = found["bogus"].read_text()
    found["bogus"].write_text(re.sub(r"198\.18\.0\.10\b", "198.18.0.66", forged))
    root = "$ORIGIN .\n$TTL 60\n. SOA a.root. hostmaster.root. 1 3600 600 86400 30\n. NS a.root.\na.root. A 10.53.0.1\n"
    for zone in ZONES:
        root += f"{zone}. NS ns.{zone}.\nns.{zone}. A 10.53.0.1\n"
        signed = directory / f"dsset-{zone}."
        root += signed.read_text() if signed.exists() else ""
    found["."] = sign(directory, "", root)
    anchor = next(path for path in directory.glob("dsset-*") if path.name in ("dsset-.", "dsset-")).read_text()
    (directory / "anchor").write_text(anchor)
    fields = anchor.split("DS", 1)[1].split()
    digest = "".join(fields[3:])
    (directory / "delv.conf").write_text(
        f'trust-anchors {{ . static-ds {fields[0]} {fields[1]} {fields[2]} "{digest}"; }};\n'
    )
    return found


@pytest.fixture(scope="module")
def subnet() -> Iterator[Lab]:
    with Lab(SUBNET) as lab:
        yield lab


@pytest.fixture(scope="module", autouse=True)
def no_fault_in_any_log(subnet: Lab) -> Iterator[None]:
    """In place of the one for the office, which is not needed here."""
    yield
    assert faults(subnet) == {}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("zones")
    make_zones(directory)
    make_certificate(directory)
    return directory


def give(host: Host, files: Path, *more: tuple[str, str]) -> None:
    for path in files.iterdir():
        host.write(f"/tmp/dns/{path.name}", path.read_bytes())
    for name, content in more:
        host.write(f"/tmp/dns/{name}", content)


@pytest.fixture(scope="module")
def authority(subnet: Lab, files: Path) -> Host:
    zones = {zone: f"{zone}.zone.signed" for zone in ZONES} | {"insecure": "insecure.zone", ".": "root.zone.signed"}
    config = (
        'server:\n ip-address: 10.53.0.1\n username: ""\n zonesdir: "/tmp/dns"\n pidfile: ""\n database: ""\n'
        ' xfrdfile: ""\n zonelistfile: "/tmp/dns/zone.list"\n cookie-secret-file: ""\n'
        "remote-control:\n control-enable: no\n"
    )
    config += "".join(f'zone:\n name: "{zone}"\n zonefile: "{name}"\n' for zone, name in zones.items())
    host = subnet["authority"]
    give(host, files, ("nsd.conf", config.replace(' cookie-secret-file: ""\n', "")))
    process = host.start(["nsd", "-d", "-c", "/tmp/dns/nsd.conf"])
    host.wait_for_listener(53, process)
    return host


@pytest.fixture(scope="module")
def upstreams(subnet: Lab, files: Path, authority: Host) -> dict[str, Process]:
    """Unbound that validates, Unbound that does not, Knot Resolver."""
    host = subnet["upstream"]
    common = (
        'server:\n username: ""\n chroot: ""\n directory: "/tmp/dns"\n pidfile: ""\n use-syslog: no\n'
        " root-hints: /tmp/dns/hints\n access-control: 10.53.0.0/24 allow\n do-ip6: no\n ede: yes\n"
        " private-address: 192.0.2.0/24\n"
    )
    validating = common + (
        " interface: 10.53.0.2@53\n interface: 10.53.0.2@853\n interface: 10.53.0.2@443\n trust-anchor-file: anchor\n"
        " tls-service-pem: /tmp/dns/cert.pem\n tls-service-key: /tmp/dns/key.pem\n"
    )
    plain = common + ' interface: 10.53.0.2@5300\n port: 5300\n module-config: "iterator"\n'
    knot = (
        "net.listen('10.53.0.2', 5400, { kind = 'dns' })\nnet.ipv6 = false\ncache.size = 10 * MB\n"
        "trust_anchors.add_file('/tmp/dns/anchor', true)\n"
        "modules = { 'hints > iterate' }\nhints.root({ ['a.root.'] = '10.53.0.1' })\n"
    )
    hints = ". 3600 IN NS a.root.\na.root. 3600 IN A 10.53.0.1\n"
    give(host, files, ("u.conf", validating), ("p.conf", plain), ("kresd.conf", knot), ("hints", hints))
    host.path("/tmp/dns/kresd").mkdir()
    started = {
        "unbound": host.start(["unbound", "-d", "-c", "/tmp/dns/u.conf"]),
        "plain": host.start(["unbound", "-d", "-c", "/tmp/dns/p.conf"]),
        "knot": host.start(["kresd", "-n", "-c", "/tmp/dns/kresd.conf", "/tmp/dns/kresd"]),
    }
    for name, port in (("unbound", 53), ("plain", 5300), ("knot", 5400)):
        host.wait_for_listener(port, started[name])
    return started


UPSTREAMS = {
    "libunbound": "10.53.0.2:5300",
    "upstream": "tls://10.53.0.2#dns.test",
    "upstream-https": "https://10.53.0.2/dns-query#dns.test",
    "knot": "10.53.0.2:5400",
    "off": "10.53.0.2:5300",
}


@pytest.fixture(scope="module")
def resolver(subnet: Lab, files: Path, upstreams: dict[str, Process]) -> Host:
    """`warren dns run`, once for each way to validate."""
    host = subnet["resolver"]
    give(host, files)
    env = {key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ}
    for name, port in PORTS.items():
        mode = {"upstream-https": "upstream", "knot": "off"}.get(name, name)
        host.write(
            f"/tmp/dns/{name}.yaml",
            f"""
listen: ["10.53.0.3:{port}"]
tls: {{listen: ["10.53.0.3:{port + 10000}"], certificate: /tmp/dns/cert.pem, key: /tmp/dns/key.pem}}
https: {{listen: ["10.53.0.3:{port + 20000}"], certificate: /tmp/dns/cert.pem, key: /tmp/dns/key.pem}}
groups: {{default: {{upstreams: ["{UPSTREAMS[name]}"], trust_ad: {"true" if name == "knot" else "false"}}}}}
upstream_ca: /tmp/dns/cert.pem
dnssec: {{mode: {mode}, anchors: [/tmp/dns/anchor]}}
state: /tmp/dns/state-{name}
""",
        )
        words = [sys.executable, "-m", "warren.dnsfilter.cli", "run", "-c", f"/tmp/dns/{name}.yaml"]
        process = host.start(words, env=env, log=f"resolver-{name}")
        host.wait_for_listener(port + 20000, process, 30)
    return host


@pytest.fixture(scope="module")
def client(subnet: Lab, files: Path, resolver: Host) -> Host:
    give(subnet["client"], files)
    return subnet["client"]


def dig(client: Host, mode: str, *words: str) -> str:
    return client.run(["dig", "@10.53.0.3", "-p", str(PORTS[mode]), "+tries=1", "+time=8", *words], check=False).stdout


@pytest.mark.parametrize("mode", ["libunbound", "upstream", "upstream-https", "knot"])
def test_what_is_signed_is_authentic(client: Host, mode: str) -> None:
    said = dig(client, mode, "www.signed", "+adflag")
    assert "198.18.0.10" in said and AD.search(said), said
    assert "RRSIG" not in said
    assert "RRSIG" in dig(client, mode, "www.signed", "+dnssec")
    missing = dig(client, mode, "nosuch.signed", "+adflag")
    assert "NXDOMAIN" in missing and AD.search(missing), missing


@pytest.mark.parametrize("mode", ["libunbound", "upstream", "upstream-https", "knot"])
@pytest.mark.parametrize("zone", ["bogus", "expired"])
def test_what_is_forged_or_expired_is_refused_with_words(client: Host, mode: str, zone: str) -> None:
    said = dig(client, mode, f"www.{zone}")
    assert "SERVFAIL" in said and "198.18" not in said, said
    if mode == "libunbound":
        assert "EDE: 6 (DNSSEC Bogus)" in said, said
    elif mode != "knot":  # what Unbound says is handed on
        assert "EDE:" in said, said
    assert "198.18" in dig(client, mode, f"www.{zone}", "+cdflag")


@pytest.mark.parametrize("mode", list(PORTS))
def test_what_is_not_signed_is_answered_without_the_claim(client: Host, mode: str) -> None:
    said = dig(client, mode, "alias.insecure", "+adflag")
    assert "198.18.0.10" in said and not AD.search(said), said


def test_who_is_not_believed_says_nothing_about_authenticity(client: Host) -> None:
    said = dig(client, "off", "www.signed", "+adflag")
    assert "198.18.0.10" in said and not AD.search(said)
    assert "198.18.0.66" in dig(client, "off", "www.bogus")


@pytest.mark.parametrize("mode", ["libunbound", "upstream"])
def test_delv_validates_what_we_pass_on(client: Host, mode: str) -> None:
    words = ["delv", "@10.53.0.3", "-p", str(PORTS[mode]), "-a", "/tmp/dns/delv.conf", "+root=."]
    said = client.run([*words, "www.signed"], check=False)
    assert "; fully validated" in said.stdout, said.stdout + said.stderr
    said = client.run([*words, "www.bogus"], check=False)
    assert "fully validated" not in said.stdout


@pytest.mark.parametrize("mode", ["libunbound", "upstream"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "https"])
def test_kdig_over_every_transport(client: Host, mode: str, transport: str) -> None:
    port = PORTS[mode] + {"tls": 10000, "https": 20000}.get(transport, 0)
    options = {"udp": list[str](), "tcp": ["+tcp"], "tls": ["+tls", "+padding=128"], "https": ["+https"]}[transport]
    words = ["kdig", "@10.53.0.3", "-p", str(port), "+timeout=8", "+retry=0", *options]
    assert "198.18.0.10" in client.run([*words, "www.signed"]).stdout
    many = client.run([*words, "many.signed"]).stdout
    assert many.count("198.18.1.") == 200


def test_cookies_with_dig(client: Host) -> None:
    said = dig(client, "off", "www.insecure", "+qr", "+cookie")
    assert re.search(r"COOKIE: [0-9a-f]{48} \(good\)", said), said


def test_an_upstream_that_died_is_answered_for_with_what_was_kept(client: Host, upstreams: dict[str, Process]) -> None:
    assert "198.18.0.11" in dig(client, "off", "brief.insecure")
    upstreams["plain"].freeze()
    try:

        def stale() -> bool:
            said = dig(client, "off", "brief.insecure")
            assert "198.18.0.11" in said, said
            return "EDE: 3 (Stale Answer)" in said

        wait_until(stale, "a stale answer", 20)
    finally:
        upstreams["plain"].thaw()

    def fresh() -> bool:
        said = dig(client, "off", "brief.insecure")
        return "198.18.0.11" in said and "EDE" not in said

    wait_until(fresh, "a fresh answer", 30)
