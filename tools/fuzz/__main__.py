"""Fuzzes every decoder: `make fuzz`. Coverage-guided by atheris where it is installed, else by plain mutation."""

from __future__ import annotations

import argparse
import gc
import random
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter, process_time
from types import FunctionType

# "python tools/fuzz" finds the folder itself on the path, whose modules must not be imported as top-level ones.
sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

SLOWEST = 2.0
"""Seconds of the processor that no input may take."""


def mutated(data: bytes, random_: random.Random, head: int) -> bytes:
    """A damaged copy: bits flipped, parts cut out, repeated or made up."""
    out = bytearray(data)
    for _ in range(random_.randint(1, 4)):
        if len(out) <= head:
            break
        position = random_.randrange(head, len(out))
        match random_.randrange(5):
            case 0:
                out[position] ^= 1 << random_.randrange(8)
            case 1:
                out[position] = random_.choice((0, 1, 2, 127, 128, 255))
            case 2:
                del out[position : position + random_.randint(1, 16)]
            case 3:
                out[position:position] = random_.randbytes(random_.randint(1, 12))
            case _:
                out[position:position] = bytes(out[position : position + random_.randint(1, 30)]) * 3
    return bytes(out)


def mutate(name: str, seconds: float, seed: int) -> int:
    """Runs one target on damaged copies of its seed; returns how many there were."""
    from tools.fuzz.targets import targets

    target, random_, count = targets()[name], random.Random(seed), 0
    end = perf_counter() + seconds
    while perf_counter() < end:
        data = mutated(target.seed, random_, target.head)
        start = process_time()
        try:
            target(data)
        except Exception:
            print(f"{name}: {data.hex()}")
            raise
        if process_time() - start > SLOWEST:
            raise AssertionError(f"{name} took {process_time() - start:.1f} s for {data.hex()}")
        count += 1
    return count


def guided(name: str, seconds: float) -> None:
    """Runs one target under atheris, which ends the process."""
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=["commons_events"]):
        from tools.fuzz.targets import targets

        target = targets()[name]
    target(target.seed)
    for function in [found for found in gc.get_objects() if isinstance(found, FunctionType)]:
        if function.__code__.co_filename.startswith("<avro "):  # made for one schema, not imported
            atheris.instrument_func(function)

    def run(data: bytes) -> None:
        target(target.seed[: target.head] + data)

    corpus = Path(mkdtemp(prefix="fuzz-"))
    (corpus / "seed").write_bytes(target.seed[target.head :])
    limits = [f"-max_total_time={int(seconds)}", f"-timeout={int(SLOWEST * 5)}", "-rss_limit_mb=1024", "-max_len=2048"]
    atheris.Setup([sys.argv[0], *limits, "-verbosity=0", "-print_final_stats=1", str(corpus)], run)
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--guided"]:  # before anything is imported that is to be instrumented
        guided(sys.argv[2], float(sys.argv[3]))
    from tools.fuzz.targets import targets

    parser = argparse.ArgumentParser(prog="tools/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each decoder (default 60)")
    parser.add_argument("--only", choices=sorted(targets()), help="one decoder")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default 0)")
    options = parser.parse_args()
    try:
        import atheris  # noqa: F401

        has_atheris = True
    except ImportError:
        has_atheris = False
        print("atheris is not installed: plain mutation alone (pip install atheris)")
    for name in [options.only] if options.only else sorted(targets()):
        each = options.seconds / 2 if has_atheris else options.seconds
        print(f"{name}: {mutate(name, each, options.seed):,} damaged inputs", flush=True)
        if has_atheris:
            command = [sys.executable, __file__, "--guided", name, str(each)]
            if subprocess.run(command, check=False).returncode:
                print(f"{name}: atheris found a fault; the file that it wrote above reproduces it")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
