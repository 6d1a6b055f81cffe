"""The first process of a lab's host: it makes the host's namespaces and private folders, then reaps for ever.

Run as a program of its own (`python -I -S host_init.py LAB HOST`, what the host is like as JSON on standard input);
imports nothing but the standard library. When the first process is killed, the kernel ends everything in the host and
takes back its namespaces, mounts and files, for all of them live in memory that only this host can see.

1. A new PID namespace, with a child as its first process; the pid is written down before the child does anything.
   The parent, outside, waits for it. The child makes new network, mount, UTS and IPC namespaces.
2. Mounts are made private, so that none of ours is seen outside.
3. /etc is an overlay over the machine's; /run, /var/lib, /tmp ... are empty; /dev has few devices, /dev/net/tun among
   them.
4. Folders that programs need though they lie below an emptied one (this clone, its interpreter) are bound back.
5. Name, resolver, sysctls; "ready" on standard output; reaping.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import stat
import sys
import traceback
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_NAME = 15

EMPTIED = ("/tmp", "/var/tmp", "/var/lib", "/var/log", "/root", "/run")  # /run last: the overlay's upper half is in it
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
TUN_DEVICE = (10, 200)

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    spec = json.load(sys.stdin)
    released, release = os.pipe()
    _check(libc.unshare(CLONE_NEWPID), "unshare")
    pid = os.fork()
    if pid:
        _write_down(spec["record"], pid)
        os.write(release, b"go")
        _let_go_of_output()
        os.waitpid(pid, 0)  # not every machine's first process takes care of orphans
        return
    os.close(release)
    if os.read(released, 2) != b"go":
        return  # killed before the pid was written down: nobody would ever find this host again
    os.close(released)
    try:
        _become(spec)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    _reap_for_ever()


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _write_down(record: str, pid: int) -> None:
    with open(f"/proc/{pid}/stat", "rb") as file:
        started = int(file.read().rpartition(b") ")[2].split()[19])  # field 22: in ticks since the machine started
    with open(f"{record}.new", "w") as file:
        json.dump({"pid": pid, "started": started}, file)
    os.rename(f"{record}.new", record)


def _become(spec: dict[str, Any]) -> None:
    os.setsid()
    _check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET), "unshare")
    libc.prctl(PR_SET_NAME, f"lab-{spec['name']}".encode()[:15], 0, 0, 0)
    make_mounts_private()
    kept = [(path, os.open(path, os.O_PATH)) for path in spec["keep"] if _is_emptied(path)]
    _private_etc(spec["directory"])
    for path in EMPTIED:
        _mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777" if path.endswith("tmp") else "mode=755")
    _private_dev()
    for path, fd in kept:
        os.makedirs(path, exist_ok=True)
        _mount(f"/proc/self/fd/{fd}", path, None, MS_BIND | MS_REC)
        os.close(fd)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path, content in spec["files"].items():
        _write(path, content)
    socket.sethostname(spec["name"])
    for key, value in spec["sysctls"].items():
        with open("/proc/sys/" + key.replace(".", "/"), "w") as file:
            file.write(value)
    os.chdir("/")


def make_mounts_private() -> None:
    """After unshare(CLONE_NEWNS): nothing that is mounted from now on is seen outside. Also in a chroot."""
    try:
        _mount(None, "/", None, MS_REC | MS_PRIVATE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _make_mounts_private_from_a_chroot()


def _make_mounts_private_from_a_chroot() -> None:
    """In a chroot "/" is no mount of its own: go up to the one that holds it, and come back."""
    root = os.open("/", os.O_PATH)
    os.chroot("/proc")
    for _ in range(100):
        os.chdir("..")
    os.chroot(".")
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    os.fchdir(root)
    os.chroot(".")
    os.close(root)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind)]
    data = None if options is None else options.encode()
    _check(libc.mount(*texts, ctypes.c_ulong(flags), data), f"mount {target}")


def _is_emptied(path: str) -> bool:
    return any(path == emptied or path.startswith(emptied + "/") for emptied in EMPTIED)


def _private_etc(directory: str) -> None:
    """`directory` exists outside and stays empty there: what is mounted on it is this host's alone."""
    _mount("tmpfs", directory, "tmpfs", 0, "mode=700")
    upper, work = f"{directory}/upper", f"{directory}/work"
    os.mkdir(upper, 0o755)
    os.mkdir(work, 0o755)
    _mount("overlay", "/etc", "overlay", 0, f"lowerdir=/etc,upperdir={upper},workdir={work}")


def _private_dev() -> None:
    _mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755")
    os.umask(0)
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    for folder in ("net", "pts", "shm"):
        os.mkdir(f"/dev/{folder}", 0o755)
    os.mknod("/dev/net/tun", 0o666 | stat.S_IFCHR, os.makedev(*TUN_DEVICE))
    os.umask(0o022)
    _mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    _mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    os.symlink("pts/ptmx", "/dev/ptmx")
    os.symlink("/proc/self/fd", "/dev/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")


def _write(path: str, content: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)  # a symbolic link would lead into a folder that is empty here
    with open(path, "w") as file:
        file.write(content)


def _reap_for_ever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    print("ready", flush=True)
    _let_go_of_output()
    while True:
        signal.sigwaitinfo([signal.SIGCHLD])
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _let_go_of_output() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)


if __name__ == "__main__":
    main()
