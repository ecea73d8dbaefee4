"""What work costs in processor time and memory, measured in a process of its own."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time

from tools.bench.measure import LeftOutError

CPU, PEAK = "CPU s", "peak MB"


def costs(work: Callable[[], None], count: int) -> dict[str, float]:
    """What ``work`` on ``count`` messages costs, less what the process took before; the time a million of them."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    before, cpu = resident("VmRSS"), process_time()
    work()
    return {CPU: (process_time() - cpu) / count * 1e6, PEAK: resident("VmHWM") - before}


def resident(which: str) -> float:
    """Megabytes of the process's memory, as Linux tells them."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{which}:\s*(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def needs_linux() -> None:
    """Leave the contender out where it can't be measured."""
    if not Path("/proc/self/clear_refs").exists():
        raise LeftOutError("the peak of a process's memory is read from Linux's /proc")


def in_its_own_process(script: str, *arguments: str) -> Mapping[str, float]:
    """The figures that ``script`` prints as JSON."""
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
