"""A quick exit for short commands, which skips the teardown of the interpreter."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn


def end_at_once(code: int) -> NoReturn:
    """End the process: run the registered exit handlers and flush the streams, but skip the teardown of modules and engines,
    whose memory the system frees anyway. If another thread is running, exit normally, so that Python waits for it."""
    others = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    if others or threading.current_thread() is not threading.main_thread():
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)
