#!/bin/bash
# Makes this clone ready for work: the Debian packages that Warren and its lab call, and .venv with the locked
# versions of requirements.txt. Doing it twice is cheap. It leaves nothing but those packages and .venv.
#
#   tools/bootstrap.sh            (PYTHON=python3.12 tools/bootstrap.sh to choose the interpreter)
#   tools/bootstrap.sh apps       the further applications of `make test-apps`, too
#   tools/bootstrap.sh bench      the programs that `make bench` measures Warren beside, too
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
    # the daemons: addresses, routes and rules; the transparent-proxy rule of the agent
    iproute2 nftables
    # the lab's hosts: namespaces, sysctls, ping
    util-linux procps iputils-ping traceroute tcpdump
    # what the lab runs: real servers and their clients
    openssh-server openssh-client postgresql postgresql-client curl dnsutils iperf3
    rsync netcat-openbsd nghttp2-server nghttp2-client
    # the resolver: DNSSEC by libunbound, kdig for queries over TLS and HTTPS
    libunbound8 knot-dnsutils
    # systemd-resolved as agents speak to it: busctl, and a bus for its stand-in
    dbus-daemon systemd
    # an edge whose clock is set
    faketime
    # to fetch the locked versions
    ca-certificates
)
APPS=( # more, for `make test-apps` only
    nmap
    # name servers and resolvers beside ours, and lists that browsers ship
    unbound nsd knot-resolver bind9-utils dns-root-data webext-ublock-origin-chromium
    # a desktop: xrdp in front of an X server, seen by xfreerdp under Xvfb; a share; a shell over UDP; a message bus
    xrdp tigervnc-standalone-server xterm freerdp2-x11 xvfb samba smbclient mosh nats-server
)
BENCH=( # more, for `make bench` only: what Warren is measured beside
    openvpn sshuttle wireguard-tools openssl dnsperf dnsmasq-base unbound dnsdist
)
command -v go >/dev/null || [ -x /usr/local/go/bin/go ] || BENCH+=(wireguard-go nebula)
POLICY=/usr/sbin/policy-rc.d
POLICY_SAVED=$POLICY.before-warren
POLICY_MARK="# of Warren's tools/bootstrap.sh; removed when the packages are installed"

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'bootstrap: %s\n' "$*" >&2
    exit 1
}

python_is_enough() { # 3.11 or newer, able to make a virtual environment with pip
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Services must not start while packages are installed: policy-rc.d says so. One that was there is put back.
suppress_services() {
    trap allow_services EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    allow_services # what a killed run left
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then mv "$POLICY" "$POLICY_SAVED"; fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

allow_services() {
    if [ -f "$POLICY" ] && grep -qF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi
    if { [ -e "$POLICY_SAVED" ] || [ -L "$POLICY_SAVED" ]; } && [ ! -e "$POLICY" ]; then mv "$POLICY_SAVED" "$POLICY"; fi
}

install_packages() {
    command -v dpkg-query >/dev/null || fail "this is no Debian: install by hand ${PACKAGES[*]} and run again"
    local name missing=()
    for name in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || fail "root is needed once, to install ${missing[*]}"
    say "Debian packages: ${missing[*]}"
    ( # a shell of its own, so that its traps end with it; one at a time on a machine
        exec 9</usr/sbin
        flock 9
        suppress_services
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q -o DPkg::Lock::Timeout=300 update
        apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}"
    )
}

choose_python() {
    local candidate
    for candidate in ${PYTHON:-python3 /usr/bin/python3}; do
        if python_is_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

make_environment() {
    local wanted python
    wanted=$(sha256sum requirements.txt | cut -d' ' -f1)
    if [ "$(cat .venv/.locked 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(choose_python)
        [ -n "$python" ] || fail "no Python 3.11 or newer with venv: name one as PYTHON=..., or use Debian 12 or newer"
        say "Python packages: .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
        .venv/bin/python -m pip --disable-pip-version-check install --progress-bar off --require-hashes -r requirements.txt
        printf '%s\n' "$wanted" >.venv/.locked
    fi
    install_warren
}

# Warren itself is used in place: its folder on the path, and the command that pyproject.toml names.
install_warren() {
    local site entry
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$PWD/src" >"$site/warren.pth"
    for entry in $(.venv/bin/python -c '
import tomllib
for name, target in tomllib.load(open("pyproject.toml", "rb"))["project"]["scripts"].items():
    print(name + "=" + target)'); do
        write_command "${entry%%=*}" "${entry#*=}"
    done
}

write_command() { # NAME MODULE:FUNCTION
    # A shebang is cut at 127 bytes by older kernels and cannot hold blanks; the shell finds the interpreter instead.
    cat >".venv/bin/$1" <<END
#!/bin/sh
'''exec' "$PWD/.venv/bin/python" "\$0" "\$@"
' '''
import sys
from ${2%%:*} import ${2#*:}
sys.exit(${2#*:}())
END
    chmod 755 ".venv/bin/$1"
}

case "${1:-}" in
"") ;;
apps) PACKAGES+=("${APPS[@]}") ;;
bench) PACKAGES+=("${BENCH[@]}") ;;
*) fail "unknown word '$1': there are apps and bench" ;;
esac
install_packages "${PACKAGES[@]}"
[ -n "$(choose_python)" ] || [ -n "${PYTHON:-}" ] || install_packages python3 python3-venv
make_environment
