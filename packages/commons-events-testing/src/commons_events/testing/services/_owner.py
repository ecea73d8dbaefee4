"""Whose something is: that of an ended process may be removed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["gone", "owner"]


def owner() -> str:
    """This process, as a word that no other process of any machine has."""
    return f"{socket.gethostname()}/{os.getpid()}/{_began(os.getpid())}"


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; nothing where that isn't told or the process is gone."""
    try:
        # The name, in parentheses, may hold spaces; the 22nd field is the time (proc(5)).
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def gone(label: str) -> bool:
    """Whether what `owner` gave is a process of this machine that has ended."""
    host, _, rest = label.partition("/")
    pid, _, began = rest.partition("/")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return began != _began(int(pid))
