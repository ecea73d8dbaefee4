"""Prints the CI's matrices as GitHub Actions reads a job's outputs: `tests=[…]` and `brokers=[…]`."""

from __future__ import annotations

import json

from tools.workspace import PYTHONS, packages, with_modules


def tests() -> list[dict[str, str]]:
    """Every package alone, on every Python, with the oldest and the latest dependencies."""
    return [
        {"package": package.short, "python": python, "deps": deps}
        for package in with_modules()
        for python in PYTHONS
        for deps in ("oldest", "latest")
    ]


def brokers() -> list[dict[str, str]]:
    """Every real server that a package's tests use, with that package."""
    return [{"package": package.short, "service": service} for package in packages() for service in package.services]


def main() -> None:
    print(f"tests={json.dumps(tests())}")
    print(f"brokers={json.dumps(brokers())}")


if __name__ == "__main__":
    main()
