#!/usr/bin/env bash
# onnxruntime 1.32.0 (Linux wheel): `import onnxruntime` alone leaves a device id and a store for usage events in the
# home folder.
#
# Guess, written down before the run (the project had already seen it miss elsewhere): importing the package writes
# nothing outside of it (1.23.2 does not); and if it collects usage events, disable_telemetry_events() right after the
# import stops that before anything is on the disk.
#
# Seen on 2026-11-29: with a fresh home folder the import makes files below ~/.cache/Microsoft (a device id, an event
# store), also with disable_telemetry_events() as the next statement. ORT_DISABLE_TELEMETRY=1 in the environment before
# the import prevents all of it. The first wheel with it is 1.29.0. So a clinic's box must set the variable before
# Python starts (or the program before the import). No session is opened here.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnxruntime==1.32.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import os
import subprocess
import sys
from pathlib import Path


def left_by(name, code, **extra):
    home = Path(name).absolute()
    (home / "tmp").mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(home / "tmp")} | extra
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    files = sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file() and "tmp" not in p.relative_to(home).parts)
    print(name, files)
    return files


plain = left_by("plain", "import onnxruntime")
late = left_by("late", "import onnxruntime; onnxruntime.disable_telemetry_events()")
early = left_by("early", "import onnxruntime", ORT_DISABLE_TELEMETRY="1")
assert early == [], "the behaviour changed"
for files in (plain, late):
    assert any("deviceid" in f for f in files) and any(f.endswith(".db") for f in files), "the behaviour changed"
EOF
