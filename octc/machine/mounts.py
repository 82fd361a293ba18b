"""Whether the locks of a file system hold between all machines that can see it, from the table of mounts."""

from __future__ import annotations

import re
from pathlib import Path

TABLE = Path("/proc/self/mountinfo")
# that one kernel alone writes to: whoever sees a file asks the same kernel
ONE_KERNEL = frozenset(
    {
        "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfsplus", "jfs", "msdos", "ntfs3", "overlay",
        "ramfs", "tmpfs", "vfat", "xfs", "zfs",
    }
)  # fmt: skip
# whose server knows the locks of flock(2) of every machine, unless an option says otherwise (nfs(5), mount.lustre(8))
SERVED = frozenset({"ceph", "fuse.ceph", "fuse.glusterfs", "gfs2", "lustre", "nfs", "nfs4", "ocfs2"})
LOCAL = frozenset({"nolock", "local_lock=all", "local_lock=flock", "localflock", "noflock", "localflocks"})
ASKED = {"lustre": "flock"}  # locks hold between machines with this option alone


def locks_reach(folder: Path, table: str | None = None) -> bool:
    """Whether a lock on a file in `folder` is known to every machine that sees the file; False also where that is not known.

    table: the text of /proc/self/mountinfo (proc(5)); None: of this machine.
    """
    try:
        text = TABLE.read_text() if table is None else table
    except OSError:
        return False
    place, best = folder.resolve(), ""
    kind, options = "", frozenset[str]()
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        mount, own, more = left.split(), left.split()[5:6], right.split()
        if len(mount) < 6 or len(more) < 3:
            continue
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), mount[4])
        if place.is_relative_to(point) and len(point) >= len(best):  # a later line covers an earlier one
            best, kind, options = point, more[0], frozenset(f"{own[0]},{more[2]}".split(","))
    if kind in ONE_KERNEL:
        return True
    return kind in SERVED and not options & LOCAL and ASKED.get(kind, "") in {"", *options}
