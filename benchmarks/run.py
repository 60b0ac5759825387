"""`make bench`: the same work by ourselves, by the peers and by the limit, side by side."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import database, report
from benchmarks.cases import CASES, ROWS, Caller, Case, Tokens, get_one
from benchmarks.contestants import CONTESTANTS, Contestant, Running, Size, missing, running, settings
from benchmarks.equal import answers_of, differences
from benchmarks.flood import flood
from benchmarks.load import Load, Wrk, has_wrk
from benchmarks.pgbench import SCRIPTS, PgBench
from benchmarks.report import SQL_ALONE, Result
from benchmarks.usage import cpu_seconds, memory_bytes
from config.development import new_signing_key
from tests.servers import DidNotStart, PostgreSQL

SMALL = 1_000
WARM_SECONDS = 1  # Before each run,
FIRST_SECONDS = 5  # and once after the start, when just-in-time compilers know nothing yet.
WARM_NUMBER = 5_000_000_000  # Where the numbers of the warm-up begin, far from those of the run.


class Benchmark:
    """One whole run: its database, its keys and what has been found so far."""

    def __init__(self, server: PostgreSQL, options: argparse.Namespace, contestants: Sequence[Contestant]) -> None:
        self.server, self.options, self.contestants = server, options, contestants
        self.size = Size(options.workers, options.threads)
        key = new_signing_key()
        self.environment, self.tokens = settings(key), Tokens(key)
        self.results: list[Result] = []
        self.floods: list[report.Flood] = []

    def assert_equal(self) -> None:
        """Ask every contestant the same, each on a database of its own; end with status 1 where answers differ."""
        database.make_template(self.server, SMALL, self.environment)
        expected, different = None, False
        for contestant in self.contestants:
            with self.serving([contestant], SMALL) as (running_server,):
                found = answers_of(Caller(running_server, self.tokens, SMALL))
            expected = expected or found
            lines = differences(expected, found) or [f"the same {len(found)} answers"]
            different = different or found != expected
            print("\n".join(f"{contestant.name}: {line}" for line in lines), flush=True)
        if different:
            sys.exit("Answers differ, so nothing is timed.")

    def measure(self, cases: Sequence[Case]) -> None:
        """Run all rounds."""
        sizes = sorted({case.rows for case in cases} | ({ROWS} if self.options.flood else set()))
        for rows in set(sizes) - {SMALL}:
            print(f"Making {rows:,} users ...", flush=True)
            database.make_template(self.server, rows, self.environment)
        for number in range(self.options.rounds):
            turn = number % len(self.contestants)
            order = [*self.contestants[turn:], *self.contestants[:turn]]
            for rows in sizes:
                with self.serving(order, rows) as servers:
                    self._warm_up(servers, rows)
                    for case in cases:
                        if case.rows == rows:
                            self._run_case(case, servers)
                    if rows == ROWS and self.options.flood:
                        self._run_flood(servers)

    @contextlib.contextmanager
    def serving(self, contestants: Sequence[Contestant], rows: int) -> Iterator[list[Running]]:
        """Start contestants on a new copy of the database."""
        self.url = database.fresh(self.server, rows)
        environment = {**self.environment, "DATABASE_URL": self.url}
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(running(one, self.size, environment)) for one in contestants]

    def _warm_up(self, servers: Sequence[Running], rows: int) -> None:
        for server in servers:
            requests = get_one(Caller(server, self.tokens, rows))
            Wrk(server.host, requests, connections=self.options.connections, seconds=FIRST_SECONDS).result()

    def _run_case(self, case: Case, servers: Sequence[Running]) -> None:
        for server in servers:
            requests = case.prepare(Caller(server, self.tokens, case.rows))
            load = {"connections": self.options.connections}
            Wrk(server.host, requests, seconds=WARM_SECONDS, first_number=WARM_NUMBER, **load).result()
            before = cpu_seconds(server.pid), cpu_seconds(self.server.pid)
            result = Wrk(server.host, requests, seconds=self.options.seconds, **load).result()
            used = cpu_seconds(server.pid) - before[0], cpu_seconds(self.server.pid) - before[1]
            self._keep(case, server.contestant.name, result, (*used, memory_bytes(server.pid)))
        if case.name in SCRIPTS:
            clients = self.size.workers * self.size.threads
            before = cpu_seconds(self.server.pid)
            alone = PgBench(self.url, case.name, rows=case.rows, clients=clients, seconds=self.options.seconds)
            result = alone.result()
            self._keep(case, SQL_ALONE, result, (0, cpu_seconds(self.server.pid) - before, 0))

    def _keep(self, case: Case, contestant: str, load: Load, used: tuple[float, float, int]) -> None:
        self.results.append(Result.of(case.name, contestant, load, *used))
        print(f"  {self.results[-1].line()}", flush=True)
        if case.writes:
            database.tidy(self.url, case.rows)

    def _run_flood(self, servers: Sequence[Running]) -> None:
        for server in servers:
            self.floods.append(flood(Caller(server, self.tokens, ROWS), self.options.seconds))
            print(f"  {self.floods[-1].line()}", flush=True)
            database.tidy(self.url, ROWS)


def available(wanted: Sequence[str]) -> list[Contestant]:
    """Return the contestants that can run here; say in one line why another cannot."""
    reasons: dict[str, str] = {}
    found = []
    for contestant in CONTESTANTS:
        if contestant.name not in wanted:
            continue
        if contestant.needs not in reasons:
            reasons[contestant.needs] = missing(contestant.needs)
        if reason := reasons[contestant.needs]:
            print(f"{contestant.name} is left out: {reason}", flush=True)
        else:
            found.append(contestant)
    return found


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, allow_abbrev=False)
    names = [contestant.name for contestant in CONTESTANTS]
    cases = [case.name for case in CASES]
    parser.add_argument("--short", action="store_true", help="only assert that all answers are equal (for CI)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the medians count (3)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds for each case and contestant (5)")
    parser.add_argument("--connections", type=int, default=16, help="connections that wrk keeps (16)")
    parser.add_argument("--workers", type=int, default=2, help="processes of each contestant (2)")
    parser.add_argument("--threads", type=int, default=4, help="threads in each, also the size of its pool (4)")
    parser.add_argument("--cases", nargs="+", choices=[*cases, "flood"], default=[*cases, "flood"], metavar="CASE")
    parser.add_argument("--contestants", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--svg", type=Path, help="also draw a chart in this file")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.epilog = f"Cases: {', '.join(cases)}, flood. Contestants: {', '.join(names)}."
    options = parser.parse_args(arguments)
    options.flood = "flood" in options.cases
    options.cases = [case for case in CASES if case.name in options.cases]
    return options


def main() -> None:
    """Compare, and print what came of it."""
    options = options_of(sys.argv[1:])
    if not options.short and not has_wrk():
        sys.exit("wrk makes the load: install it (apt-get install wrk, brew install wrk), or use --short.")
    contestants = available(options.contestants)
    server = database.start()
    try:
        benchmark = Benchmark(server, options, contestants)
        benchmark.assert_equal()
        if options.short:
            return
        benchmark.measure(options.cases)
    except DidNotStart as reason:
        sys.exit(f"A server did not start:\n{str(reason)[-2000:]}")
    finally:
        server.stop()
    found = report.Report(benchmark.results, benchmark.floods, options)
    print(f"\n{found.markdown()}")
    if options.markdown:
        options.markdown.write_text(found.markdown())
    if options.json:
        options.json.write_text(json.dumps(found.figures(), indent=1) + "\n")
    if options.svg:
        options.svg.write_text(found.svg())


if __name__ == "__main__":
    main()
