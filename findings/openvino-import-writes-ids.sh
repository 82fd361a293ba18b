#!/usr/bin/env bash
# openvino 2026.4.1 with openvino-telemetry 2025.2.0: `import openvino` alone writes an id into the home folder.
#
# Guess, written down before the run (the project had already seen it miss elsewhere): usage data belong to the
# converter, so nothing is written before a model is converted or a command of the toolkit is started.
#
# Seen on 2026-11-29: after the import in a fresh home folder there are ~/intel/openvino_ga_cid (a random id that stays)
# and ~/intel/stats. `pip install openvino` brings openvino-telemetry along; with that package removed the import leaves
# no file. The proxy variables below point nowhere, so that nothing is sent from here. A device that must not report
# leaves the package out.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 openvino==2026.4.1 openvino-telemetry==2025.2.0
cd "$dir"
HOME="$dir" https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9 venv/bin/python - <<'EOF'
import os
import subprocess
import sys
from pathlib import Path


def left_by(name):
    home = Path(name).absolute()
    home.mkdir()
    subprocess.run([sys.executable, "-c", "import openvino"], env=os.environ | {"HOME": str(home)}, check=True)
    files = sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file())
    print(name, files)
    return files


present = left_by("present")
subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "openvino-telemetry"], check=True)
removed = left_by("removed")
assert removed == []
assert "intel/openvino_ga_cid" in present, "the behaviour changed"
EOF
