"""The findings: tables with ratios, the same as figures, and a chart."""

import argparse
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from benchmarks import chart
from benchmarks.cases import CASES
from benchmarks.contestants import CONTESTANTS
from benchmarks.load import Load

SQL_ALONE = "sql"
TITLES = {one.name: one.title for one in CONTESTANTS} | {SQL_ALONE: "the SQL alone (pgbench)"}
KINDS = {one.name: one.kind for one in CONTESTANTS} | {SQL_ALONE: "limit"}
OURS = next(one.name for one in CONTESTANTS if one.kind == "ours")
LIMIT = next(one.name for one in CONTESTANTS if one.kind == "limit")
PYTHONS = {one.name for one in CONTESTANTS if one.kind == "peer" and one.needs == "Python"}
CASE_TITLES = {case.name: case.title for case in CASES}


@dataclass(frozen=True)
class Result:
    """A case, a contestant, and what a request cost, or the median of several such; times in seconds."""

    case: str
    contestant: str
    per_second: float
    p50: float
    p99: float
    application: float  # Processor time for each request.
    database: float
    refused: int
    broken: int
    memory: int  # Bytes of all its processes afterwards.
    spread: float = 0  # Half of what lies between the slowest round and the fastest, as a part of the median.

    @classmethod
    def of(cls, case: str, contestant: str, load: Load, application: float, database: float, memory: int) -> "Result":
        count = max(load.requests, 1)
        rate = load.requests / load.seconds
        return cls(
            case,
            contestant,
            rate,
            load.p50,
            load.p99,
            application / count,
            database / count,
            load.refused,
            load.broken,
            memory,
        )

    @property
    def cpu(self) -> float:
        """Return the processor time of application and database together."""
        return self.application + self.database

    def line(self) -> str:
        troubles = f", {self.refused} refused, {self.broken} broken" if self.refused or self.broken else ""
        costs = f"p50 {self.p50 * 1e3:.1f} ms, cpu {self.application * 1e6:.0f} + {self.database * 1e6:.0f} µs"
        return f"{self.case:<12} {self.contestant:<14} {self.per_second:>8.0f}/s, {costs}{troubles}"


@dataclass(frozen=True)
class Flood:
    """What thirty clients who sign in without pause left for four who read."""

    contestant: str
    sign_ins_per_second: float
    sign_in_p99: float
    others_per_second: float
    others_p99: float
    others_answers: dict[str, int]
    answers: dict[str, int]

    def line(self) -> str:
        signing = f"{self.sign_ins_per_second:.0f} sign-ins/s {self.answers}"
        return f"flood        {self.contestant:<14} {signing}, others p99 {self.others_p99 * 1e3:.0f} ms"


class Report:
    """All findings of a run."""

    def __init__(self, results: Sequence[Result], floods: Sequence[Flood], options: argparse.Namespace) -> None:
        self.rounds, self.floods, self.options = results, floods, options
        self.medians = {
            (case, contestant): _median([r for r in results if (r.case, r.contestant) == (case, contestant)])
            for case, contestant in dict.fromkeys((r.case, r.contestant) for r in results)
        }

    def markdown(self) -> str:
        """Return every table."""
        parts = [self._heading(), self._ratios(), *self._cases(), self._growth(), self._floods(), self._memory()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def figures(self) -> dict[str, object]:
        """Return every figure: medians, and the rounds they are of."""
        return {
            "machine": _machine(),
            "settings": {
                name: getattr(self.options, name) for name in ("rounds", "seconds", "connections", "workers", "threads")
            },
            "medians": [asdict(result) for result in self.medians.values()],
            "rounds": [asdict(result) for result in self.rounds],
            "flood": [asdict(one) for one in self.floods],
        }

    def svg(self) -> str:
        """Return a chart of requests a second, a panel for each case."""
        panels = {
            CASE_TITLES[case]: [
                chart.Bar(TITLES[r.contestant], r.per_second, KINDS[r.contestant])
                for r in self._of(case)
                if r.contestant != SQL_ALONE  # Beside it, all others would look alike.
            ]
            for case in self._case_names()
        }
        return chart.draw("Requests a second, the same work by each", panels)

    def _heading(self) -> str:
        o = self.options
        return (
            f"{_machine()}; {o.workers} workers of {o.threads} threads, {o.connections} connections, "
            f"{o.rounds} rounds of {o.seconds} s, medians. A ratio above 1 is in our favour."
        )

    def _ratios(self) -> str:
        rows = []
        for case in self._case_names():
            found = {result.contestant: result for result in self._of(case)}
            if OURS not in found:
                continue
            ours, limit = found[OURS], found.get(LIMIT)
            peers = [result for result in found.values() if KINDS[result.contestant] == "peer"]
            fastest = max(peers, key=lambda peer: peer.per_second, default=None)
            leanest = min(peers, key=lambda peer: peer.cpu, default=None)
            pythons = [peer for peer in peers if peer.contestant in PYTHONS]
            python = max(pythons, key=lambda peer: peer.per_second, default=None)
            rows.append(
                [
                    CASE_TITLES[case],
                    f"{ours.per_second:,.0f}",
                    _compared(ours.per_second, fastest and fastest.per_second, fastest),
                    _compared(ours.per_second, python and python.per_second, python),
                    _compared(leanest and leanest.cpu, ours.cpu, leanest),
                    _compared(ours.per_second, limit and limit.per_second),
                    _compared(limit and limit.cpu, ours.cpu),
                ]
            )
        columns = ["case", "ours, requests/s", "to the best peer", "to the best in Python"]
        columns += ["CPU, to the leanest peer", "to the limit", "CPU, to the limit"]
        return "## Ratios\n\n" + _table(columns, rows) if rows else ""

    def _cases(self) -> Iterable[str]:
        columns = ["", "requests/s", "±", "p50 ms", "p99 ms", "CPU µs, application", "CPU µs, database"]
        for case in self._case_names():
            rows = [_row(TITLES[result.contestant], result) for result in self._of(case)]
            yield f"## {CASE_TITLES[case]}\n\n" + _table(columns, rows)

    def _growth(self) -> str:
        """Compare the same list on tables of different sizes."""
        tables = []
        for kind in dict.fromkeys(case.growth for case in CASES if case.growth):
            cases = sorted((case for case in CASES if case.growth == kind), key=lambda case: case.rows)
            if not all((case.name, OURS) in self.medians for case in cases):
                continue
            rows = []
            for one in TITLES:
                found = [self.medians.get((case.name, one)) for case in cases]
                if all(found):
                    rows.append([TITLES[one], *(f"{result.per_second:,.0f}" for result in found if result)])
            columns = [f"{kind}, requests/s", *(f"{case.rows:,} rows" for case in cases)]
            tables.append(_table(columns, rows))
        return "## Growth\n\n" + "\n\n".join(tables) if tables else ""

    def _floods(self) -> str:
        rows = []
        for one in dict.fromkeys(flood.contestant for flood in self.floods):
            found = [flood for flood in self.floods if flood.contestant == one]
            refused = {status for flood in found for status in flood.answers if status != "200"}
            counts = [f"{sum(f.answers.get(status, 0) for f in found)} × {status}" for status in sorted(refused)]
            rows.append(
                [
                    TITLES[one],
                    f"{statistics.median(f.sign_ins_per_second for f in found):.0f}",
                    f"{statistics.median(f.sign_in_p99 for f in found) * 1e3:,.0f}",
                    f"{statistics.median(f.others_per_second for f in found):,.0f}",
                    f"{statistics.median(f.others_p99 for f in found) * 1e3:,.1f}",
                    ", ".join(counts) or "none",
                ]
            )
        columns = ["", "sign-ins/s", "their p99 ms", "get one/s", "its p99 ms", "other answers, all rounds"]
        heading = "## Sign-in flood: 30 clients sign in without pause, 4 read\n\n"
        return heading + _table(columns, rows) if rows else ""

    def _memory(self) -> str:
        rows = []
        for one in TITLES:
            sizes = [
                self.medians[case, one].memory / 2**20 for case in self._case_names() if (case, one) in self.medians
            ]
            if any(sizes):
                rows.append([TITLES[one], f"{sizes[0]:.0f}", f"{max(sizes):.0f}"])
        return (
            "## Memory of all processes\n\n" + _table(["MiB", "after the first case", "at most"], rows) if rows else ""
        )

    def _case_names(self) -> list[str]:
        return [case.name for case in CASES if any(name == case.name for name, _ in self.medians)]

    def _of(self, case: str) -> list[Result]:
        return [self.medians[case, one] for one in TITLES if (case, one) in self.medians]


def _median(results: Sequence[Result]) -> Result:
    def middle(name: str) -> float:
        return statistics.median(getattr(result, name) for result in results)

    rates = [result.per_second for result in results]
    measured = {name: middle(name) for name in ("per_second", "p50", "p99", "application", "database")}
    return Result(
        case=results[0].case,
        contestant=results[0].contestant,
        **measured,
        refused=sum(result.refused for result in results),
        broken=sum(result.broken for result in results),
        memory=round(middle("memory")),
        spread=(max(rates) - min(rates)) / 2 / (measured["per_second"] or 1),
    )


def _row(title: str, result: Result) -> list[str]:
    troubles = f" ({result.refused} refused, {result.broken} broken)" if result.refused or result.broken else ""
    return [
        title + troubles,
        f"{result.per_second:,.0f}",
        f"{result.spread:.0%}",
        f"{result.p50 * 1e3:.1f}",
        f"{result.p99 * 1e3:.1f}",
        f"{result.application * 1e6:,.0f}",
        f"{result.database * 1e6:,.0f}",
    ]


def _compared(one: float | None, other: float | None, peer: Result | None = None) -> str:
    """Return a ratio, and to whom; nothing where there is nobody to compare with."""
    if not one or not other:
        return ""
    return f"**{one / other:.2f}** ({peer.contestant})" if peer else f"{one / other:.2f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are to the right."""
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width if index == 0 else "-" * (width - 1) + ":") for index, width in enumerate(widths)]
    return "\n".join([line(columns), line(rule), *(line(row) for row in rows)])


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
