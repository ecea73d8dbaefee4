"""Installs the servers that the packages' tests use and the machine lacks: `make services`, never by itself.

A package names its servers in its pyproject.toml, with what brings each; what one package says serves all that name
the same server, so that a table may be empty:

    [tool.commons-events.services.kafka]
    apt = ["openjdk-17-jre-headless", "maven"]
    maven = ["org.apache.kafka:kafka_2.13:4.4.0", "org.slf4j:slf4j-simple:1.7.36"]

Debian packages come first, as root. The jars of the Maven artifacts, with all they need at run time, go into
~/.cache/commons-events/kafka-4.4.0, where the version is the first artifact's. What the machine has is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from tools.workspace import Package, packages

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion>
<groupId>commons-events</groupId><artifactId>services</artifactId><version>0</version>
<dependencies>{dependencies}</dependencies>
</project>
"""
DEPENDENCY = (
    "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
    "<scope>runtime</scope></dependency>"
)
# Programs that serve as well as the Debian package that would bring them.
PROGRAMS = {"openjdk-17-jre-headless": "java", "maven": "mvn"}


def chosen(only: list[str], tree: list[Package] | None = None) -> dict[str, dict[str, list[str]]]:
    """The servers that all packages name, or the named ones alone, with everything that any package says of each."""
    every = packages() if tree is None else tree
    names = sorted({name for package in every if not only or package.short in only for name in package.services})
    found: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for package in every:
        for name, sources in package.services.items():
            for kind, wanted in sources.items():
                if name in found:
                    known = found[name].setdefault(kind, [])
                    known += [one for one in wanted if one not in known]
    return found


def installed(deb: str) -> bool:
    if deb in PROGRAMS:
        return shutil.which(PROGRAMS[deb]) is not None
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", deb]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


def install_debs(debs: list[str]) -> bool:
    """Whether all these Debian packages are there, after having asked apt for the missing ones."""
    if not debs:
        return True
    if shutil.which("apt-get") is None:
        print(f"This machine has no apt-get; the tests can use: {' '.join(debs)}")
        return False
    missing = [deb for deb in debs if not installed(deb)]
    if not missing:
        print(f"Already installed: {' '.join(debs)}")
        return True
    if os.geteuid() != 0:
        print(f"Missing; as root: apt-get install --no-install-recommends {' '.join(missing)}")
        return False
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        if subprocess.run(["apt-get", "--quiet", *command], check=False, env=environment).returncode:
            print(f"apt-get couldn't bring {' '.join(missing)}")
            return False
    return True


def cache() -> Path:
    """Where the tests' fixtures look for jars: outside the clone, so that a new clone finds them."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "commons-events"


def pom(artifacts: list[str]) -> str:
    """A project whose only content is that it needs these artifacts."""
    dependencies = "".join(DEPENDENCY.format(*map(escape, artifact.split(":"))) for artifact in artifacts)
    return POM.format(dependencies=dependencies)


def fetch_jars(service: str, artifacts: list[str]) -> bool:
    """Whether the artifacts' jars are in the cache, after having fetched them if they weren't."""
    folder = cache() / f"{service}-{artifacts[0].split(':')[2]}"
    if folder.is_dir():
        print(f"Already fetched: {folder}")
        return True
    if shutil.which("mvn") is None:
        print(f"Apache Maven (mvn), which fetches {' '.join(artifacts)}, is missing")
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that the folder is there with all jars or not at all.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        project = Path(scratch) / "pom.xml"
        project.write_text(pom(artifacts), encoding="utf-8")
        jars = Path(scratch) / "jars"
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        command = ["mvn", "--batch-mode", "--quiet", f"--file={project}", *goal]
        if subprocess.run(command, check=False).returncode or not any(jars.glob("*.jar")):
            print(f"mvn couldn't fetch {' '.join(artifacts)}")
            return False
        try:
            jars.rename(folder)
        except OSError:
            # Another run was faster.
            if not folder.is_dir():
                raise
    print(f"Fetched {folder}")
    return True


def main(only: list[str]) -> int:
    services = chosen(only)
    debs = sorted({deb for sources in services.values() for deb in sources.get("apt", [])})
    jars = {name: sources["maven"] for name, sources in services.items() if sources.get("maven")}
    if not debs and not jars:
        print("No package asks for a server: nothing to install.")
        return 0
    done = [install_debs(debs), *(fetch_jars(name, artifacts) for name, artifacts in jars.items())]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
