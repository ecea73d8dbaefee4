"""Runs one server and ends it when the process that wanted it is gone, however that went.

`ServerProcess` runs this file as a script, with nothing but the standard library. Its standard input is a pipe whose
other end the wanting process alone holds: when that closes, or a byte comes, the server's whole process group is
ended. It answers on standard output: the server's process id, later its exit status.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading

PARENT_CHECK = 0.5
"""Seconds between looks at who the parent is: a forked child of it may keep the pipe open after its death."""


def signal_group(server: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, number)


def stop_when_told(server: subprocess.Popen[bytes], parent: int, number: int, grace: float, told: list[bool]) -> None:
    """Wait for the word, or for the end of the parent, then end the server's process group."""
    while True:
        readable, _, _ = select.select([0], [], [], PARENT_CHECK)
        if readable:
            told.append(bool(os.read(0, 1)))
            break
        if os.getppid() != parent:
            told.append(False)
            break
    signal_group(server, number)
    # A server that is stopped by SIGSTOP hears nothing but SIGKILL until it goes on.
    signal_group(server, signal.SIGCONT)
    try:
        server.wait(grace)
    except subprocess.TimeoutExpired:
        signal_group(server, signal.SIGKILL)


def say(text: str) -> None:
    # Nobody listens any more if the parent is gone.
    with contextlib.suppress(OSError):
        os.write(1, text.encode() + b"\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--folder", help="removed once the server is gone, if the parent went without a word")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        # Its output goes where this process's errors go: into the log.
        server = subprocess.Popen(options.command[1:], stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    except OSError as error:
        say(f"cannot start: {error}")
        return 1
    say(str(server.pid))
    told: list[bool] = []
    threading.Thread(
        target=stop_when_told, args=(server, options.parent, options.signal, options.grace, told), daemon=True
    ).start()
    status = server.wait()
    # What the server itself has started goes with it.
    signal_group(server, signal.SIGKILL)
    say(str(status))
    if options.folder and (told == [False] or os.getppid() != options.parent):
        shutil.rmtree(options.folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
