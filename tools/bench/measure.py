"""Contenders, rounds, and tables with ratios and verdicts.

A table's contenders take turns, each round in the reverse order of the one before, so that a busy machine hits all
of them alike. A ratio is the median of the ratios of each round: what slows down a whole round cancels out.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from platform import python_implementation, python_version
from timeit import timeit


class LeftOutError(Exception):
    """A contender cannot run here; the text says why, and what to type."""


@dataclass(frozen=True)
class Effort:
    """How much is done a round."""

    quick: bool = False

    def count(self, full: int) -> int:
        """How many of something, given how many in a full run."""
        return max(full // 10, 1) if self.quick else full


Contender = Callable[[Effort], float | Mapping[str, float]]
"""Does its work once and returns the cost in the table's unit; one a metric where the table has several."""


@dataclass(frozen=True)
class Target:
    """What a row should reach.

    ``than`` names the rows that the cost is divided by, or divides with ``at_least``; of several, the cheapest counts.
    Without any, the limit is for the cost itself.
    """

    limit: float
    than: tuple[str, ...] = ()
    name: str = ""
    """What the other rows are called in the verdict."""
    at_least: bool = False
    """Whether ``limit`` is how many times as fast the row should be, instead of how many times the cost it may have."""
    metric: str | None = None
    """The metric it is for, where the table has several."""


def at_most(limit: float, than: str | None = None, *, name: str = "", metric: str | None = None) -> Target:
    """A cost of at most ``limit`` times that of the row ``than``, or of ``limit`` where there is none."""
    return Target(limit, () if than is None else (than,), name or than or "", metric=metric)


def times_as_fast(limit: float, than: tuple[str, ...], *, name: str) -> Target:
    """At least ``limit`` times as fast as the fastest of the rows ``than``."""
    return Target(limit, than, name, at_least=True)


@dataclass
class Row:
    name: str
    run: Contender
    targets: tuple[Target, ...]
    rounds: list[Mapping[str, float]] = field(default_factory=list)
    left_out: str | None = None

    def costs(self, metric: str) -> list[float]:
        return [costs[metric] for costs in self.rounds]


class Table:
    """Rows that are measured together; the first one is what the ratios are of.

    Args:
        key: what ``--only`` looks at, beside the rows' names.
        title: the heading.
        note: what has to be known to read the table.
        metrics: the units that a contender returns, one column each.
        ratios: whether the rows can be compared.
        rate: whether to show thousands a second, of costs in µs.
    """

    def __init__(self, key: str, title: str, note: str, *metrics: str, ratios: bool = True, rate: bool = False) -> None:
        self.key = key
        self.title = title
        self.note = note
        self.metrics = metrics
        self.ratios = ratios
        self.rate = rate
        self.rows: list[Row] = []

    def contender(self, name: str, *targets: Target) -> Callable[[Contender], Contender]:
        """Decorates a function that becomes a row of this table."""

        def register(run: Contender) -> Contender:
            self.rows.append(Row(name, run, targets))
            return run

        return register

    def measure(self, runs: int, effort: Effort) -> None:
        """Runs the contenders in turns."""
        for number in range(runs):
            for row in self.rows if number % 2 == 0 else reversed(self.rows):
                if row.left_out is None:
                    gc.collect()
                    self._turn(row, effort)

    def _turn(self, row: Row, effort: Effort) -> None:
        try:
            costs = row.run(effort)
        except LeftOutError as reason:
            row.left_out = f"left out: {reason}"
        except Exception as error:  # noqa: BLE001  # the others go on, and the table shows it
            row.left_out = f"failed: {type(error).__name__}: {error}"
        else:
            row.rounds.append(costs if isinstance(costs, Mapping) else {self.metrics[0]: costs})

    def show(self) -> None:
        """Prints what was measured."""
        print(f"\n## {self.title}\n{self.note}\n")
        header = ["", *self._header(), "verdict"]
        lines = [[row.name, *self._cells(row), row.left_out or self._verdicts(row)] for row in self.rows]
        widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header) - 1)]
        for line in [header, *lines]:
            cells = [line[0].ljust(widths[0]), *map(str.rjust, line[1:-1], widths[1:])]
            print("  ".join([*cells, line[-1]]).rstrip())
        sys.stdout.flush()

    def _header(self) -> list[str]:
        columns: list[str] = []
        for metric in self.metrics:
            columns += [metric, "spread", *(["ratio"] if self.ratios else [])]
        return [*columns, *(["1,000/s"] if self.rate else [])]

    def _cells(self, row: Row) -> list[str]:
        if not row.rounds:
            return ["-", *[""] * (len(self._header()) - 1)]
        cells: list[str] = []
        for metric in self.metrics:
            costs = row.costs(metric)
            median = statistics.median(costs)
            spread = (max(costs) - min(costs)) / median if median else 0.0
            cells += [f"{median:,.2f}", f"{spread:.0%}"]
            if self.ratios:
                ratio = self._ratio(row, self.rows[0], metric)
                cells.append("" if ratio is None else f"{ratio:.2f}")
        if self.rate:
            cells.append(f"{1000 / statistics.median(row.costs(self.metrics[0])):,.1f}")
        return cells

    def _verdicts(self, row: Row) -> str:
        verdicts = "; ".join(self._verdict(row, target) for target in row.targets)
        return f"target {verdicts}" if verdicts else ""

    def _verdict(self, row: Row, target: Target) -> str:
        metric = target.metric or self.metrics[0]
        what = f"{target.metric} " if target.metric else ""
        sign = "≥" if target.at_least else "≤"
        wanted = f"{what}{sign} {target.limit:g}" + (f" × {target.name}" if target.than else f" {metric}")
        if not target.than:
            reached: float | None = statistics.median(row.costs(metric))
        else:
            ratios = [
                ratio
                for other in self.rows
                if other.name in target.than and (ratio := self._ratio(row, other, metric)) is not None
            ]
            reached = max(ratios, default=None)
            if reached is not None and target.at_least:
                reached = 1 / reached
        if reached is None:
            return f"{wanted}: nothing to compare with"
        met = reached >= target.limit if target.at_least else reached <= target.limit
        return f"{wanted}: {reached:.3g} {'met' if met else 'MISSED'}"

    @staticmethod
    def _ratio(row: Row, other: Row, metric: str) -> float | None:
        pairs = zip(row.costs(metric), other.costs(metric), strict=False)
        ratios = [cost / base for cost, base in pairs if base]
        return statistics.median(ratios) if ratios else None


def microseconds(work: Callable[[], object], count: int) -> float:
    """What one call costs: the best of three goes, so that what else runs on the machine counts least."""
    return min(timeit(work, number=count) for _ in range(3)) / count * 1e6


def versions(*distributions: str) -> str:
    """What the figures belong to."""
    found = [f"{python_implementation()} {python_version()}"]
    for name in distributions:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)
