"""Run a command where everything that it asks the network for, and every file that it leaves, is written down. Linux.

    python tests/recorder.py REPORT [--keep DIR]... -- COMMAND...
    python tests/recorder.py REPORT [--keep DIR]... -- --each FILE

The command gets a network of its own, in which everything goes to the loopback device: a resolver there answers "no such
name", and every packet is looked at. It also gets empty folders for temporary files. REPORT then holds the "names" that were
asked for, "packets" (addresses other than this machine's), "left" (what lies in the temporary folders afterwards; a
folder ends with a slash) and "code". DIR: a place below a temporary folder that the command needs. FILE: a JSON list of
{"command", "env"}, which run one after the other in the same network and folders; REPORT is a list then, each with what it said
and with what it alone did.

Exit code 3: this machine does not permit it (it wants root, or user namespaces). Only the standard library is imported, so that
nothing here can talk itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOT_PERMITTED = 3
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")
NEW_NETWORK, NEW_MOUNTS, NEW_USER = 0x40000000, 0x00020000, 0x10000000  # unshare(2)
BIND, PRIVATE = 0x1000, 0x44000  # mount(2): MS_BIND, MS_PRIVATE | MS_REC
SET_FLAGS, ADD_ROUTE, INDEX = 0x8914, 0x890B, 0x8933  # netdevice(7): SIOCSIFFLAGS, SIOCADDRT, SIOCGIFINDEX
UP, RUNNING = 0x1, 0x40
ICMP6, UNREACHABLE = 58, 1
EVERY_PROTOCOL = 3  # ETH_P_ALL of packet(7)
LIBC = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """A network and mounts of this process's own, as root or as the root of a user namespace."""
    owner = (os.getuid(), os.getgid())
    if LIBC.unshare(NEW_NETWORK | NEW_MOUNTS):
        if LIBC.unshare(NEW_USER | NEW_NETWORK | NEW_MOUNTS):
            raise PermissionError(ctypes.get_errno(), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        for name, number in zip(("uid_map", "gid_map"), owner, strict=True):
            Path(f"/proc/self/{name}").write_text(f"0 {number} 1")
    mount("none", "/", None, PRIVATE)


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    if LIBC.mount(source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), None):
        raise PermissionError(ctypes.get_errno(), f"mount {source} on {target}")


def raise_loopback() -> None:
    """Loopback, with a route for everything: what is sent anywhere is seen there."""
    device = ctypes.create_string_buffer(b"lo")
    anywhere = struct.pack("HH4s8x", socket.AF_INET, 0, bytes(4))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh22x", b"lo", UP | RUNNING))
        # struct rtentry: pad, destination, gateway, mask, flags, pads, tos, pad, metric, device, mtu, window, timeout
        values = (0, anywhere, anywhere, anywhere, UP, 0, 0, 0, 0, ctypes.addressof(device), 0, 0, 0)
        fcntl.ioctl(control, ADD_ROUTE, struct.pack("@L16s16s16sHhLPhPLLH", *values))
        index = struct.unpack("16si20x", fcntl.ioctl(control, INDEX, struct.pack("16s24x", b"lo")))[1]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        # struct in6_rtmsg: destination, source, gateway, type, lengths of the prefixes, metric, info, flags, device
        values6 = (bytes(16), bytes(16), bytes(16), 0, 0, 0, 1, 0, UP, index)
        fcntl.ioctl(control, ADD_ROUTE, struct.pack("@16s16s16sIHHILIi", *values6))


def empty_folders(keep: list[Path]) -> None:
    """Nothing in the folders for temporary files but what must stay."""
    held = [(path, os.open(path, os.O_PATH)) for path in keep]
    for folder in filter(os.path.isdir, TEMPORARY):
        mount("tmpfs", folder, "tmpfs", 0)
        Path(folder).chmod(0o1777)
    for path, descriptor in held:
        if not path.is_dir():
            path.mkdir(parents=True)
            mount(f"/proc/self/fd/{descriptor}", str(path), None, BIND)
        os.close(descriptor)


def left_behind(keep: list[Path]) -> Iterator[str]:
    """Files and folders in the folders for temporary files, without what was kept and the way to it."""
    for place in filter(os.path.isdir, TEMPORARY):
        for folder, folders, names in os.walk(place):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name not in keep]
            yield from (str(here / name) for name in names)
            yield from (f"{here / name}/" for name in folders if not any(here / name in kept.parents for kept in keep))


def name_of(question: bytes) -> str:
    """The host name in a DNS question."""
    labels, place = [], 12
    while place < len(question) and question[place]:
        labels.append(question[place + 1 : place + 1 + question[place]].decode("ascii", "replace"))
        place += 1 + question[place]
    return ".".join(labels)


def target_of(packet: bytes) -> str | None:
    """Where an IP packet goes, if that is neither this machine nor a message of the kernel to its link."""
    version = packet[0] >> 4 if packet else 0
    raw = packet[16:20] if version == 4 else packet[24:40] if version == 6 else b""
    if len(raw) not in (4, 16) or (version == 6 and len(packet) < 41):
        return None
    if version == 6 and packet[6] == ICMP6 and packet[40] == UNREACHABLE:  # the kernel's answer holds what was sent
        return target_of(packet[48:])
    address = ipaddress.ip_address(raw)
    return None if address.is_loopback or (version == 6 and address.is_multicast) else str(address)


class Recorder(threading.Thread):
    """Answers DNS on 127.0.0.1:53 and looks at every packet until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.names: set[str] = set()
        self.packets: set[str] = set()
        self._end = os.pipe()
        self._dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._dns.bind(("127.0.0.1", 53))
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERY_PROTOCOL))
        self._wire.bind(("lo", 0))

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._dns, self._wire, self._end[0]], [], [])
            if self._dns in ready:
                question, asker = self._dns.recvfrom(4096)
                self.names.add(name_of(question))
                self._dns.sendto(question[:2] + b"\x81\x83" + question[4:6] + bytes(6) + question[12:], asker)  # NXDOMAIN
            elif self._wire in ready:
                target = target_of(self._wire.recv(65536))
                self.packets |= {target} if target else set()
            else:
                return

    def take(self) -> dict[str, list[str]]:
        """What was seen since it was taken the last time."""
        seen = {"names": sorted(self.names), "packets": sorted(self.packets)}
        self.names, self.packets = set(), set()
        return seen

    def stop(self) -> None:
        os.write(self._end[1], b"x")
        self.join()


def main(words: list[str]) -> int:
    place = words.index("--")
    report, command = Path(words[0]).absolute(), words[place + 1 :]
    keep = [Path(word) for word in words[1:place] if word != "--keep"]
    where = Path.cwd()
    try:
        enter()
        raise_loopback()
        empty_folders(keep)
        resolver = Path(TEMPORARY[0]) / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        mount(str(resolver), "/etc/resolv.conf", None, BIND)
        resolver.unlink()
        recorder = Recorder()
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return NOT_PERMITTED
    os.chdir(where)
    recorder.start()
    found: dict[str, Any] | list[dict[str, Any]]
    if command[0] == "--each":
        found = [each(recorder, keep, **step) for step in json.loads(Path(command[1]).read_text())]
    else:
        code = subprocess.run(command, check=False).returncode
        found = {"code": code, **recorder.take(), "left": sorted(left_behind(keep))}
    recorder.stop()
    report.write_text(json.dumps(found))
    return 0


def each(recorder: Recorder, keep: list[Path], command: list[str], env: dict[str, str]) -> dict[str, Any]:
    """What one of several commands did."""
    before = set(left_behind(keep))
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    left = sorted(set(left_behind(keep)) - before)
    return {"code": done.returncode, **recorder.take(), "left": left, "said": done.stdout + done.stderr}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
