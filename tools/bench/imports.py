"""What importing costs, above starting Python."""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter

from tools.bench.measure import Contender, Effort, Table, at_most

LIBRARIES = ("commons-events-core", "pydantic")
STARTS = 20

table = Table(
    "imports",
    "Importing, ms above bare Python",
    f"The median of {STARTS} starts with the import, less that of {STARTS} without, taking turns.",
    "ms",
    ratios=False,
)


def milliseconds(statement: str) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (perf_counter() - start) * 1000


def above_bare(statement: str) -> Contender:
    def run(effort: Effort) -> float:
        milliseconds(statement)  # so that it is compiled and in the file cache
        pairs = [(milliseconds("pass"), milliseconds(statement)) for _ in range(5 if effort.quick else STARTS)]
        return statistics.median(pair[1] for pair in pairs) - statistics.median(pair[0] for pair in pairs)

    return run


table.contender("import commons_events", at_most(30))(above_bare("import commons_events"))
table.contender("from commons_events import Event")(above_bare("from commons_events import Event"))
table.contender("from commons_events import EventProducer, EventConsumer")(
    above_bare("from commons_events import EventProducer, EventConsumer")
)
table.contender("from pydantic import BaseModel")(above_bare("from pydantic import BaseModel"))

TABLES = (table,)
