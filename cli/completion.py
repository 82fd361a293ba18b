"""`octc completion SHELL`: prints the completion script of a shell; installs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError
from octc.core.options import OneOf

# shell -> command that activates completion in the current session
SHELLS = {
    "bash": 'eval "$(octc completion bash)"',
    "zsh": 'eval "$(octc completion zsh)"',
    "fish": "octc completion fish | source",
    "powershell": "octc completion powershell | Out-String | Invoke-Expression",
}


def completion(session: Session, shell: Annotated[str, OneOf(SHELLS), typer.Argument(help="Shell")]) -> int:
    """Print the completion script of a shell. To keep it, add the line printed on stderr to the shell's start file."""
    name = "pwsh" if shell == "powershell" else shell
    done = subprocess.run(
        [sys.executable, "-m", "octc.cli._app.main"],
        env={**os.environ, "_OCTC_COMPLETE": f"source_{name}"},
        cwd=sys.prefix,  # `-m` looks for modules in its folder first, and the user's may hold a queue.py
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode or not done.stdout.strip():
        raise OctcError("OCT-E407", f"no script for {shell}: {done.stderr.strip()[:200]}", hint="pip install -U typer")
    session.report({"shell": shell, "script": done.stdout, "use": SHELLS[shell]})
    session.result(done.stdout)
    session.say(f"to use it: {SHELLS[shell]}")
    return 0
