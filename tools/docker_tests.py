"""Runs the tests of the servers in containers: `make test-docker`, on the engine there is or on one of its own.

Where an engine answers, its usual images are taken. Where none does, root starts a private one in a temporary folder,
whose images are built on the spot of Debian's packages and of Kafka's jars, since it may reach no registry: that needs
dockerd and debootstrap. What is missing is said, and is no failure. All that was started ends with the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commons_events.testing.services import SERVICES, ServerProcess
from commons_events.testing.services import WayUnavailableError as Missing
from tools.services import cache
from tools.workspace import ROOT

IMAGES = ROOT / "tools" / "docker"
TESTS = "packages/commons-events-testing/tests/integration"
DEBIAN = "bookworm"
BUILT = ("kafka", "postgres", "rabbitmq")


def lacking() -> str | None:
    """Why no engine of our own can be started here; None if it can."""
    if os.geteuid() != 0:
        return "no Docker engine answers, and only root can start one"
    for program, package in {"dockerd": "docker.io", "docker": "docker.io", "debootstrap": "debootstrap"}.items():
        if shutil.which(program) is None:
            return f"no Docker engine answers, and {program} is missing (Debian: apt-get install {package})"
    if not any(cache().glob("kafka-*/*.jar")):
        return f"no jars of Kafka in {cache()} (`make services` fetches them)"
    return None


def call(*command: str | Path, **environment: str) -> None:
    subprocess.run(command, check=True, env=os.environ | environment)


@contextmanager
def own_engine(folder: Path) -> Iterator[None]:
    """A private engine, which everything that is started in the block finds."""
    door = folder / "engine.sock"
    log = folder / "dockerd.log"
    command = ["dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
    command += ["--host", f"unix://{door}", "--pidfile", str(folder / "pid")]
    engine = ServerProcess(command, log=log, stop_signal=15, grace=30)
    os.environ["DOCKER_HOST"] = f"unix://{door}"
    # Its ports are this machine's, even where this machine is a container itself.
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    try:
        for _ in range(300):
            if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
                break
            if engine.poll() is not None:
                raise Missing(f"dockerd can't run here: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        else:
            raise Missing(f"dockerd doesn't answer: {log.read_text(errors='replace')[-2000:]}")
        yield
    finally:
        engine.stop()
        # It leaves a network's name space mounted, which no removal of the folder gets past.
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", line.split()[1]], check=False)


def build(folder: Path) -> None:
    """Build the images, on a tree of Debian that is kept in the cache."""
    tree = cache() / f"{DEBIAN}.tar"
    if not tree.exists():
        print("Making a tree of Debian (a minute) …", flush=True)
        made = folder / "tree"
        subprocess.run(["debootstrap", "--variant=minbase", DEBIAN, made], check=True, stdout=subprocess.DEVNULL)
        tree.parent.mkdir(parents=True, exist_ok=True)
        call("tar", "-C", made, "-cf", folder / "debian.tar", ".")
        shutil.move(folder / "debian.tar", tree)
    call("docker", "import", tree, "commons-events/debian")
    context = folder / "context"
    shutil.copytree(IMAGES, context)
    newest = max(cache().glob("kafka-*"), key=lambda path: path.stat().st_mtime)
    shutil.copytree(newest, context / "jars")
    for name in BUILT:
        print(f"Building an image of {name} …", flush=True)
        command = ["docker", "build", "--quiet", "--network=host", "--target", name, "--tag", f"commons-events/{name}"]
        call(*command, context, DOCKER_BUILDKIT="0")
        os.environ.setdefault(f"COMMONS_EVENTS_TEST_{name.upper()}_IMAGE", f"commons-events/{name}")


def run(arguments: list[str]) -> int:
    """Run the tests on every service that the engine has, which must come by it."""
    for name, service in SERVICES.items():
        there, what = service.survey()["docker"]
        print(f"{name}: {what}", flush=True)
        if there:
            os.environ[f"COMMONS_EVENTS_TEST_{name.upper()}"] = "docker"
    return subprocess.run([sys.executable, "-m", "pytest", *(arguments or [TESTS])], check=False).returncode


def main(arguments: list[str]) -> int:
    there, reason = SERVICES["kafka"].survey()["docker"]
    if there:
        return run(arguments)
    print(f"kafka: {reason}")
    why = lacking()
    if why is not None:
        print(f"No test was run: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="commons-events-docker-") as folder:
        try:
            with own_engine(Path(folder)):
                build(Path(folder))
                return run(arguments)
        except Missing as error:
            print(f"No test was run: {error}")
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
