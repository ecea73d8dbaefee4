"""Writes the lists that are generated from packages/ where they are needed; `--check` only tells of drift.

Written: the extras of the bundle, members and matrix in hatch.toml, the siblings' layer of import-linter,
docs/packages.md. They are committed, so that every file can be read, and an sdist built, without the rest.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tools.workspace import (
    BUNDLE,
    CORE,
    NAMESPACE,
    PYTHONS,
    ROOT,
    TESTING,
    package_named,
    packages,
    siblings,
    with_modules,
)

BLOCK = re.compile(r"(# <generated [^\n]*>\n).*?( *# </generated>)", re.DOTALL)


def toml_list(items: list[str]) -> str:
    return "[\n" + "".join(f"  {json.dumps(item)},\n" for item in items) + "]"


def bundle_extras() -> str:
    """One extra for each sibling, `all` of them, and `dev` for those who develop on the framework."""
    core, testing = package_named(CORE), package_named(TESTING)
    command_line = core.compatible.replace("~=", "[cli]~=")
    contracts = testing.compatible.replace("~=", "[contracts]~=")
    extras = {package.short: [package.compatible] for package in siblings()}
    extras["all"] = [command_line, *(package.compatible for package in siblings())]
    extras["dev"] = [command_line, contracts]
    return "".join(f"{name} = {toml_list(requirements)}\n" for name, requirements in extras.items())


def hatch_packages() -> str:
    """The members that developers get with all their extras, and the matrix of packages tested alone."""
    extras = sorted({extra for package in with_modules() for extra in package.extras})
    matrix = {
        "package": [package.short for package in with_modules()],
        "python": PYTHONS,
        "deps": ["oldest", "latest"],
    }
    lines = [
        "[envs.default.workspace]",
        f'members = [{{ path = "packages/*", features = {json.dumps(extras)} }}]',
        "",
        "[[envs.alone.matrix]]",
        *(f"{name} = {json.dumps(values)}" for name, values in matrix.items()),
    ]
    return "\n".join(lines) + "\n"


def sibling_layer() -> str:
    """The topmost layer; `|` says that none of its modules imports another."""
    names = [package.module.removeprefix(f"{NAMESPACE}.") for package in siblings()]
    return f"  {json.dumps(' | '.join(names))},\n"


def package_table() -> str:
    """docs/packages.md."""
    lines = [
        "# Packages",
        "",
        "Each is published by itself and depends on `commons-events-core` alone; install what you use.",
        "",
        "| package | import | what it is | extras |",
        "| --- | --- | --- | --- |",
    ]
    for package in packages():
        imported = "" if package.name == BUNDLE else f"`{package.module}`"
        extras = ", ".join(f"`{extra}`" for extra in package.extras)
        description = package.project["description"]
        lines.append(f"| `{package.name}` | {imported} | {description} | {extras} |")
    return "\n".join(lines) + "\n"


def within_block(path: Path, body: str) -> str:
    """The file's text with the body between its markers."""
    text, count = BLOCK.subn(lambda match: match[1] + body + match[2], path.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{path}: expected one generated block, found {count}")
    return text


def generated() -> dict[Path, str]:
    """What each file with a generated list has to hold."""
    blocks = {
        ROOT / "packages" / BUNDLE / "pyproject.toml": bundle_extras(),
        ROOT / "hatch.toml": hatch_packages(),
        ROOT / "pyproject.toml": sibling_layer(),
    }
    return {path: within_block(path, body) for path, body in blocks.items()} | {
        ROOT / "docs/packages.md": package_table()
    }


def drifted() -> list[Path]:
    """The files whose generated lists don't say what packages/ says."""
    return [path for path, text in generated().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str]) -> int:
    paths = drifted()
    if arguments == ["--check"]:
        for path in paths:
            print(f"{path.relative_to(ROOT)} differs from packages/: run `python -m tools.sync`")
        return 1 if paths else 0
    for path in paths:
        path.write_text(generated()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
