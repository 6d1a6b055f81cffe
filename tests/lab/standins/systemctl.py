"""systemctl, as far as Warren's own units need it: starts ExecStart and waits for READY=1, stops with SIGTERM.

Of a unit it knows Type=notify, StateDirectory, RuntimeDirectory with RuntimeDirectoryPreserve, and LoadCredential. It
takes no capability away and hides nothing: the hardening is for `systemd-analyze verify` and a real host to judge.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS, STATE = Path("/etc/systemd/system"), Path("/run/units")
READY_S, STOP_S = 40.0, 40.0


class Unit:
    def __init__(self, name: str) -> None:
        self.name = name
        lines = (UNITS / name).read_text().splitlines()
        pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
        self.settings = {key: value for key, _, value in pairs}
        self.pid = STATE / f"{name}.pid"

    def places(self, setting: str, parent: str) -> list[Path]:
        return [Path(parent, name) for name in self.settings.get(setting, "").split()]

    def start(self) -> None:
        for path in [*self.places("StateDirectory", "/var/lib"), *self.places("RuntimeDirectory", "/run")]:
            path.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
        if credential := self.settings.get("LoadCredential"):
            name, _, source = credential.partition(":")
            folder = STATE / f"{self.name}.credentials"
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)
            environment["CREDENTIALS_DIRECTORY"] = str(folder)
        notify = STATE / f"{self.name}.notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, open(STATE / f"{self.name}.log", "ab") as log:
            heard.bind(str(notify))
            heard.settimeout(READY_S)
            environment["NOTIFY_SOCKET"] = str(notify)
            process = subprocess.Popen(
                shlex.split(self.settings["ExecStart"]), env=environment, cwd="/", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            self.pid.write_text(str(process.pid))
            while b"READY=1" not in heard.recv(4096):
                pass

    def stop(self) -> None:
        if not self.pid.exists():
            return
        pid = int(self.pid.read_text())
        until = time.monotonic() + STOP_S
        try:
            os.kill(pid, signal.SIGTERM)
            while time.monotonic() < until:
                os.kill(pid, 0)
                time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.pid.unlink()
        shutil.rmtree(STATE / f"{self.name}.credentials", ignore_errors=True)
        if self.settings.get("RuntimeDirectoryPreserve") != "yes":
            for path in self.places("RuntimeDirectory", "/run"):
                shutil.rmtree(path, ignore_errors=True)


def main(verb: str, *words: str) -> None:
    STATE.mkdir(exist_ok=True)
    for unit in [Unit(word) for word in words if not word.startswith("-")]:
        if verb in ("stop", "restart", "disable"):
            unit.stop()
        if verb in ("start", "restart"):
            unit.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
