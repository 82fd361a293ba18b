"""A separate process that reads power at least ten times per second without disturbing the timed process.

Output on stdout: a line `sources` with their names, then one line per reading: source, monotonic clock in ns, value.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from octc.bench.timing.power.sources import READ_S, first_line, open_sources, parse_tegrastats, tegrastats_command


def main() -> None:
    """Read until stdin ends. Arguments: the root of /sys, the processor to run on (or -1)."""
    root, cpu = Path(sys.argv[1]), int(sys.argv[2])
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
    os.set_blocking(sys.stdin.fileno(), False)
    sources = open_sources(root)
    command = None if any(one.name == "tegra" for one in sources) else tegrastats_command()
    names = [one.name for one in sources] + (["tegra"] if command else [])
    _say("sources", *names)
    tool = first_line(command) if command else None
    try:
        while _parent_is_there():
            for one in sources:
                value = one.read()
                if value is not None:
                    _say(one.name, time.monotonic_ns(), value)
            if tool is not None and tool.stdout is not None:  # tegrastats determines the interval
                line = tool.stdout.readline()
                watts = parse_tegrastats(line)
                if watts is not None:
                    _say("tegra", time.monotonic_ns(), watts)
                tool = tool if line else None
            else:
                time.sleep(READ_S * 0.8)
    finally:
        if tool is not None:
            tool.kill()


def _parent_is_there() -> bool:
    try:
        return os.read(sys.stdin.fileno(), 1) != b""
    except BlockingIOError:
        return True


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
