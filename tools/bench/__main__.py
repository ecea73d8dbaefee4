"""Prints the tables. A missed target is shown, and is no failure."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

# "python tools/bench" finds the folder itself on the path, whose modules must not be imported as top-level ones.
sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from tools.bench import (  # noqa: E402
    aggregates,
    codecs,
    codecs_protobuf,
    events,
    imports,
    inprocess,
    kafka,
    kafka_consuming,
    kafka_resources,
    memory,
    rabbitmq,
    rabbitmq_resources,
    router,
    router_kafka,
    stages,
    store,
    store_growth,
)
from tools.bench.measure import Effort, Table, versions  # noqa: E402

MODULES = (
    events,
    codecs,
    codecs_protobuf,
    inprocess,
    router,
    kafka,
    kafka_consuming,
    kafka_resources,
    router_kafka,
    rabbitmq,
    rabbitmq_resources,
    store,
    store_growth,
    aggregates,
    memory,
    imports,
)
RUNS = {
    memory.table.key: 3,
    imports.table.key: 1,
    codecs.classes.key: 2,
    **{
        table.key: 5
        for module in (kafka, kafka_consuming, router_kafka, rabbitmq, store, store_growth)
        for table in module.TABLES
    },
    **{table.key: 2 for table in rabbitmq_resources.TABLES},
    kafka_resources.table.key: 2,
    kafka_resources.growth.key: 1,
    **{table.key: 1 if "large" in table.key else 5 for table in aggregates.TABLES},
}
"""Rounds of the tables that take long or repeat by themselves."""


def arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measures side by side; asserts nothing.")
    parser.add_argument(
        "--only",
        metavar="TEXT,…",
        default="",
        help="tables whose key has one of these in it: " + ", ".join(table.key for table in all_tables()),
    )
    parser.add_argument("--runs", type=int, default=7, help="rounds (default 7; memory at most 3, imports 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, 3 rounds, no million messages")
    parser.add_argument(
        "--profile", metavar="NAME", help='"stages", or part of a row\'s name for the functions it spends its time in'
    )
    return parser.parse_args(command_line)


def all_tables() -> list[Table]:
    return [table for module in MODULES for table in module.TABLES]


def main(command_line: Sequence[str] | None = None) -> int:
    options = arguments(command_line)
    effort = Effort(quick=options.quick)
    runs = max(1, min(options.runs, 3) if options.quick else options.runs)
    print(versions(*dict.fromkeys(name for module in MODULES for name in module.LIBRARIES)))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {runs} rounds; ratios to the first row")
    if options.profile == "stages":
        stages.show_stages(runs, effort)
        return 0
    if options.profile:
        if not stages.show_functions(all_tables(), options.profile, effort):
            print(f"no row has {options.profile!r} in its name")
            return 2
        return 0
    wanted = [text.strip() for text in options.only.split(",") if text.strip()]
    chosen = [table for table in all_tables() if not wanted or any(text in table.key for text in wanted)]
    if not chosen:
        print(f"no table has {' or '.join(wanted)} in its key; there are: {', '.join(t.key for t in all_tables())}")
        return 2
    start = perf_counter()
    for table in chosen:
        table.measure(min(runs, RUNS.get(table.key, runs)), effort)
        table.show()
    print(f"\nmeasured in {perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
