"""Query plans: how PostgreSQL finds users where there are a million, asked with the very statements of real requests.

What is bounded is the work (rows sorted, pages of the database touched), never the time.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlencode

import psycopg
import pytest
from flask import Flask
from psycopg import sql
from sqlalchemy import event, select

from models import User
from models.base import db
from service.cli.seed import believable_users
from tests.client import Client
from tests.contract import Contract
from tests.databases import application, migrate
from tests.factories.base import Bound

ROWS = int(os.environ.get("ROLLCALL_PLAN_ROWS", "1000000"))
USERS = "/api/v1/users"
COLUMNS = {"id": "id", "created_at": "created_at", "updated_at": "updated_at", "name": "name_key", "email": "email_key"}
SORTS = [way for sort in COLUMNS for way in (sort, f"-{sort}")]
DEEP = {"page": ROWS * 9 // 1000, "per_page": 100}  # At a million, the page that ends with the 900,000th user.
A_PAGE = 60  # Buffers: 21 rows, the way down an index, and some to spare.
A_PLACE = 20  # Buffers: the way to a row or two.
MORE_THAN_SETTLES = 12  # psycopg prepares what was run 5 times, PostgreSQL may turn to a generic plan after 5 more.

FILL = """
INSERT INTO users (id, email, email_key, name, name_key, role, is_active, email_verified, external_id,
    public_metadata, private_metadata, version, created_at, updated_at, deleted_at)
SELECT id, address, address, name, name_key,
    CASE WHEN id % 20000 = 1 THEN 'admin' WHEN id % 2000 = 2 THEN 'support' ELSE 'member' END,
    luck > 0.03, luck < 0.8, CASE WHEN id % 3 = 0 THEN 'crm-' || md5(id::text) END,
    '{"plan": "pro", "seats": 5}', '{}', 1, created_at, created_at + later * (timestamptz '2026-06-01' - created_at),
    CASE WHEN id % 50 = 7 THEN timestamptz '2026-06-01' END
FROM (
    SELECT made.*, name, name_key, local || '.' || left(md5(id::text), 8) || id || '@'
        || (ARRAY['example.com', 'example.com', 'example.org', 'example.net', 'example.edu'])[1 + id % 5] AS address
    FROM (
        SELECT id, random() AS luck, random() AS later, floor(power(random(), 2) * 5000) AS number,
            timestamptz '2023-06-01' + random() * interval '3 years' AS created_at
        FROM generate_series(1, %(rows)s::int) AS id
    ) AS made JOIN sample USING (number)
) AS users
ORDER BY id
"""


# A million users


def fill(url: str) -> None:
    """Fill the table of users; its indexes are built afterwards, which is many times faster."""
    with psycopg.connect(url, autocommit=True) as connection:
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'users' AND indexname <> 'pk_users'"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
        connection.execute("SET maintenance_work_mem = '256MB'; SET work_mem = '256MB'")
        connection.execute("SELECT setseed(0.5)")
        connection.execute("CREATE TEMPORARY TABLE sample (number int, name text, name_key text, local text)")
        with connection.cursor().copy("COPY sample FROM STDIN") as copy:
            for number, person in enumerate(person for batch in believable_users(5_000) for person in batch):
                local = person["email_key"].partition("@")[0].rpartition(".")[0]
                copy.write_row((number, person["name"], person["name_key"], local))
        connection.execute("ANALYZE sample")
        connection.execute(FILL.replace(" % ", " %% "), {"rows": ROWS})
        for _, definition in indexes:
            connection.execute(definition)
        connection.execute("VACUUM ANALYZE users")


@pytest.fixture(scope="module")
def url(
    make_database: Callable[[str, str], str], settings_for, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> str:
    """Return the URL of a database with a million users, made once for all workers of a run."""
    folder = tmp_path_factory.getbasetemp()
    made = (folder if worker_id == "master" else folder.parent) / "plans"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            database = make_database("postgresql", "plans")
            with application(settings_for(database), migrated=False) as app:
                migrate(app)
            fill(database)
            made.write_text(database)
        return made.read_text()


def rare(number: int) -> str:
    """Return a part that is in the address of this user and, most likely, of nobody else."""
    return hashlib.md5(str(number).encode()).hexdigest()[:8]


# Plans


class Asked(NamedTuple):
    """A statement as it reached the driver, with its parameters by name."""

    sql: str
    values: dict[str, Any]

    @property
    def prepared(self) -> str:
        """The statement as the server knows it, its parameters numbered by their first appearance."""
        numbers = {name: number for number, name in enumerate(self._names, 1)}
        return re.sub(r"%\((\w+)\)s", lambda found: f"${numbers[found[1]]}", self.sql).replace("%%", "%")

    def execution(self, name: str) -> sql.Composed:
        """Return what executes the prepared statement of this name."""
        arguments = sql.SQL(", ").join(sql.Literal(self.values[name]) for name in self._names)
        called = sql.SQL("({})").format(arguments) if self._names else sql.SQL("")
        return sql.SQL("EXECUTE {}{}").format(sql.Identifier(name), called)

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(re.findall(r"%\((\w+)\)s", self.sql)))


class Plan:
    """What PostgreSQL did, node by node, and what it cost."""

    def __init__(self, asked: Asked, explained: dict[str, Any], *, was_prepared: bool) -> None:
        self.asked, self.root, self.was_prepared = asked, explained["Plan"], was_prepared
        self.nodes = list(self._below(self.root))
        self.buffers: int = self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"]

    def scans(self) -> list[dict[str, Any]]:
        """Return the nodes that read users, by themselves or by what a bitmap found."""
        return [node for node in self.nodes if node.get("Relation Name") == "users"]

    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    def rows_sorted(self) -> float:
        """Return how many rows the largest sort took in; an incremental one holds only a few at a time."""
        return max((rows(node["Plans"][0]) for node in self.nodes if node["Node Type"] == "Sort"), default=0)

    def __str__(self) -> str:
        return f"\n{self.asked.sql}\n{self.asked.values}\n{self._shown(self.root)}\nbuffers: {self.buffers}\n"

    def _below(self, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for child in node.get("Plans", ()):
            yield from self._below(child)

    def _shown(self, node: dict[str, Any], depth: int = 0) -> str:
        told = ("Index Cond", "Filter", "Rows Removed by Filter", "Sort Key", "Presorted Key")
        name = " ".join(node[key] for key in ("Node Type", "Index Name", "Relation Name") if key in node)
        costs = f"(cost {node['Total Cost']}, {node['Plan Rows']} rows expected, {rows(node):.0f} found)"
        line = "  ".join([f"{'  ' * depth}{name} {costs}", *(f"{key}: {node[key]}" for key in told if key in node)])
        return "\n".join([line, *(self._shown(child, depth + 1) for child in node.get("Plans", ()))])


def rows(node: dict[str, Any]) -> float:
    """Return how many rows a node gave, all its loops together."""
    found: float = node["Actual Rows"] * node["Actual Loops"]
    return found


class Service:
    """The application with a single connection to the million, asked by an admin, and the plans of what it asks for."""

    def __init__(self, app: Flask, url: str) -> None:
        self.app, self.url = app, url
        self.statements: list[Asked] = []
        self.deep_cursor = cache(self._deep_cursor)
        Bound.app = app
        with app.app_context():
            event.listen(db.engine, "checkout", self._watch)
            admin = db.session.scalar(select(User).where(User.role == "admin", User.is_active).limit(1))
            db.session.remove()
        self.client = Client(app, Contract(app)).as_(admin)

    def _watch(self, connection: Any, *_: Any) -> None:
        statements = self.statements

        class Cursor(psycopg.Cursor):
            def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
                if isinstance(params, dict):  # All of ours have some, if none by name; the pool's ping has not.
                    statements.append(Asked(str(query), params))
                return super().execute(query, params, **kwargs)

        connection.cursor_factory = Cursor

    def ask(self, path: str = USERS, **parameters: Any) -> list[Asked]:
        """Send a request and return its statements, without the one that says who asks."""
        return self.ask_for_all(path, **parameters)[1:]

    def ask_for_all(self, path: str = USERS, **parameters: Any) -> list[Asked]:
        """Send a request and return all its statements."""
        self.statements.clear()
        self.response = self.client.get(f"{path}?{urlencode(parameters)}" if parameters else path)
        # 503 is what a plan that takes too long comes to; the plan itself says why.
        assert self.response.status_code in (200, 503), self.response.json
        return list(self.statements)

    def plan(self, asked: Asked, mode: str) -> Plan:
        """Return the plan for these parameters (custom), or the one for whatever they are (generic)."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("SET plan_cache_mode = {}").format(sql.Literal(f"force_{mode}_plan")))
            connection.execute(asked.sql, asked.values, prepare=True)
            plan = self._explained(connection, asked)
        assert plan.was_prepared
        return plan

    def plans(self, mode: str, path: str = USERS, **parameters: Any) -> list[Plan]:
        """Send a request and return the plans of its statements."""
        return [self.plan(asked, mode) for asked in self.ask(path, **parameters)]

    def settled_plans(self, before: Sequence[dict[str, Any]], **parameters: Any) -> list[Plan]:
        """Return the plans that a request gets on the application's own connection after these many others."""
        with self._new_connection():
            for earlier in before:
                self.ask(**earlier)
            statements = self.ask(**parameters)
            with self.app.app_context():
                connection = db.engine.raw_connection()
            try:
                return [self._explained(connection.dbapi_connection, asked) for asked in statements]
            finally:
                connection.close()

    def _explained(self, connection: Any, asked: Asked) -> Plan:
        """Return the plan that a connection makes now: as for a prepared statement if it has been prepared there."""
        explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) ")
        cursor = psycopg.Cursor(connection)
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE statement = %s", [asked.prepared])
        if known := cursor.fetchone():
            cursor.execute(explain + asked.execution(known[0]))
        else:
            cursor = psycopg.ClientCursor(connection)
            cursor.execute(explain + sql.SQL(asked.sql), asked.values)
        found: Any = cursor.fetchone()
        return Plan(asked, found[0][0], was_prepared=known is not None)

    def _deep_cursor(self, sort: str) -> str:
        """Return the cursor of a place at nine tenths of the list, however long the numbered page takes."""
        with self._new_connection():
            self.ask(sort=sort, **DEEP)
        cursor: str = self.response.json["next_cursor"]
        return cursor

    @contextmanager
    def _new_connection(self) -> Iterator[None]:
        """Give the application a new connection, which knows no statement yet and waits for every answer."""
        with self.app.app_context():
            db.engine.dispose()
            connection = db.engine.raw_connection()
            connection.dbapi_connection.execute("SET statement_timeout = 0")
            connection.close()
        try:
            yield
        finally:
            with self.app.app_context():
                db.engine.dispose()


@pytest.fixture(scope="module")
def service(url: str, settings_for) -> Iterator[Service]:
    """Return the application on the million, with a single connection."""
    with application(settings_for(url, THREADS="1"), migrated=False) as app:
        yield Service(app, url)


def walks_no_table(plan: Plan) -> bool:
    return not any(node["Node Type"] == "Seq Scan" for node in plan.scans())


def is_in_order_of(plan: Plan, sort: str) -> bool:
    """Say whether users are read by the one index that is in the order of the sort, and that is all that is read."""
    (scan,) = plan.scans()
    index = re.sub("^(ix|uq)_users_", "", scan.get("Index Name", ""))
    return scan["Node Type"].startswith("Index") and index == COLUMNS[sort.removeprefix("-")]


def begins_at_the_place(plan: Plan) -> bool:
    """Say whether the index is entered at the place to go on from.

    An address is its user's alone: its index needs no id, and the row of the place itself is the only one filtered out.
    """
    (scan,) = plan.scans()
    if "email_key" in scan["Index Name"]:
        return "email_key" in scan["Index Cond"] and scan.get("Rows Removed by Filter", 0) <= 1
    return re.search(r"ROW\(|\(id [<>]", scan["Index Cond"]) is not None and "Filter" not in scan


either_plan = pytest.mark.parametrize("mode", ["custom", "generic"])
every_sort = pytest.mark.parametrize("sort", SORTS)


# Pages by key


@either_plan
@every_sort
def test_first_page_is_read_in_the_order_of_an_index(service, sort, mode):
    (plan,) = service.plans(mode, sort=sort)

    assert is_in_order_of(plan, sort), str(plan)
    assert plan.rows_sorted() == 0, str(plan)
    assert plan.buffers <= A_PAGE, str(plan)


@either_plan
@every_sort
def test_page_at_any_depth_costs_what_the_first_one_costs(service, sort, mode):
    (first,) = service.plans(mode, sort=sort)
    (deep,) = service.plans(mode, sort=sort, cursor=service.deep_cursor(sort))

    assert is_in_order_of(deep, sort), str(deep)
    assert begins_at_the_place(deep), str(deep)
    assert deep.rows_sorted() == 0, str(deep)
    assert deep.buffers <= first.buffers + 10, f"{first}{deep}"


@either_plan
@every_sort
def test_going_back_costs_what_going_on_costs(service, sort, mode):
    (first,) = service.plans(mode, sort=sort)
    service.ask(sort=sort, cursor=service.deep_cursor(sort))
    back = re.search(r'<http://localhost([^>]+)>; rel="prev"', service.response.headers["Link"])[1]
    (plan,) = service.plans(mode, back)

    assert is_in_order_of(plan, sort), str(plan)
    assert begins_at_the_place(plan), str(plan)
    assert plan.rows_sorted() == 0, str(plan)
    assert plan.buffers <= first.buffers + 10, f"{first}{plan}"


# Numbered pages


def counts_by_an_index_only(plan: Plan) -> bool:
    return [node["Node Type"] for node in plan.scans()] == ["Index Only Scan"]


def skips_ids_only(plan: Plan, sort: str, size: int) -> bool:
    """Say whether what is skipped is only ever read from the index of the sort, and whole rows only for the page."""
    skipped, *whole = sorted(plan.scans(), key=rows, reverse=True)
    index = re.sub("^(ix|uq)_users_", "", skipped.get("Index Name", ""))
    by_index_only = skipped["Node Type"] == "Index Only Scan" and index == COLUMNS[sort.removeprefix("-")]
    return by_index_only and sum(map(rows, whole)) <= size


@every_sort
def test_numbered_page_skips_ids_and_reads_only_its_own_rows(service, sort):
    count, page = service.plans("custom", sort=sort, **DEEP)

    assert counts_by_an_index_only(count), str(count)
    assert skips_ids_only(page, sort, DEEP["per_page"]), str(page)
    assert page.rows_sorted() <= DEEP["per_page"], str(page)


@pytest.mark.parametrize("sort", ["id", "-created_at", "name", "-email"])
def test_numbered_page_is_still_read_so_after_many(service, sort):
    deepest = {"page": ROWS * 97 // 10_000, "per_page": 100, "sort": sort}
    count, page = service.settled_plans([deepest] * MORE_THAN_SETTLES, sort=sort, page=2)

    assert counts_by_an_index_only(count), str(count)
    assert skips_ids_only(page, sort, 20), str(page)
    assert page.rows_sorted() <= 20, str(page)
    assert page.buffers <= 4 * A_PAGE, str(page)


@pytest.mark.parametrize("parameters", [{"role": "admin"}, {"is_active": "false"}])
@either_plan
def test_count_of_a_role_or_state_is_by_an_index_only(service, parameters, mode):
    count = service.plans(mode, page=1, **parameters)[0]

    assert counts_by_an_index_only(count), str(count)


# Filters


@pytest.mark.parametrize("sort", ["id", "-created_at", "name"])
@pytest.mark.parametrize("column", ["email", "external_id"])
@either_plan
def test_what_is_one_users_alone_is_found_at_once(service, column, sort, mode):
    with service.app.app_context():
        user = db.session.scalar(select(User).where(User.id == 3000))
        db.session.remove()
    (plan,) = service.plans(mode, sort=sort, **{column: getattr(user, column)})

    assert service.response.json["users"][0]["id"] == 3000
    assert plan.indexes() <= {f"uq_users_{column}_key", f"ix_users_{column}_key", f"uq_users_{column}"}, str(plan)
    assert plan.rows_sorted() <= 1, str(plan)
    assert plan.buffers <= A_PLACE, str(plan)


# A filter; how many rows its page may sort, since they are so few; how many buffers it may touch, where all are 28,000
# of the table and 4,000 of an index; and what others may have asked for meanwhile on the same connection.
FILTERS = [
    ({"role": "admin"}, 0, A_PAGE, [{"role": "member"}, {"role": "support"}]),
    ({"role": "admin", "sort": "-created_at"}, 100, 200, [{"role": "member", "sort": "-created_at"}]),
    ({"role": "support", "sort": "name"}, 1000, 1500, [{"role": "member", "sort": "name"}]),
    ({"role": "member", "sort": "-name"}, 0, A_PAGE, [{"role": "support", "sort": "-name"}]),
    ({"is_active": "false"}, 0, A_PAGE, [{"is_active": "true"}]),
    ({"is_active": "false", "sort": "-created_at"}, 0, 2000, [{"is_active": "true", "sort": "-created_at"}]),
    ({"is_active": "true", "sort": "-updated_at"}, 0, A_PAGE, [{"is_active": "false", "sort": "-updated_at"}]),
    ({"created_after": "2026-05-01T00:00:00Z"}, 0, 1000, [{"created_after": "2023-06-01T00:00:00Z"}]),
    ({"created_after": "2026-05-31T20:00:00Z"}, 1000, 1000, [{"created_after": "2026-05-31T00:00:00Z"}]),
    ({"created_before": "2023-06-01T04:00:00Z"}, 1000, 1000, [{"created_before": "2023-06-02T00:00:00Z"}]),
    ({"created_before": "2024-06-01T00:00:00Z", "sort": "-created_at"}, 0, A_PAGE, []),
    ({"created_after": "2024-06-01T00:00:00Z", "sort": "created_at"}, 0, A_PAGE, []),
    ({"updated_after": "2026-05-31T23:30:00Z"}, 1000, 1000, [{"updated_after": "2023-06-01T00:00:00Z"}]),
    ({"updated_before": "2023-06-10T00:00:00Z"}, 1000, 1000, [{"updated_before": "2026-06-01T00:00:00Z"}]),
    ({"updated_after": "2025-06-01T00:00:00Z", "sort": "updated_at"}, 0, A_PAGE, []),
    ({"updated_before": "2025-06-01T00:00:00Z", "sort": "-updated_at"}, 0, A_PAGE, []),
]
every_filter = pytest.mark.parametrize(
    ("parameters", "sorted_rows", "buffers", "others"),
    FILTERS,
    ids=[urlencode(parameters) for parameters, *_ in FILTERS],
)


@every_filter
def test_filter_is_found_by_an_index(service, parameters, sorted_rows, buffers, others):
    (plan,) = service.plans("custom", **parameters)

    assert walks_no_table(plan), str(plan)
    assert plan.rows_sorted() <= sorted_rows, str(plan)
    assert plan.buffers <= buffers, str(plan)


@every_filter
def test_filter_is_still_found_by_an_index_after_many(service, parameters, sorted_rows, buffers, others):
    (plan,) = service.settled_plans((others or [parameters]) * MORE_THAN_SETTLES, **parameters)

    assert walks_no_table(plan), str(plan)
    assert plan.rows_sorted() <= sorted_rows, str(plan)
    assert plan.buffers <= buffers, str(plan)


# Search


def assert_finds_by_trigrams(plans: Sequence[Plan]) -> None:
    for plan in plans:
        assert "ix_users_search" in plan.indexes(), str(plan)
        assert plan.rows_sorted() <= 100, str(plan)
        assert plan.buffers <= 500, str(plan)


@pytest.mark.parametrize("more", [{}, {"sort": "-created_at"}, {"sort": "name"}, {"page": 1}], ids=urlencode)
def test_rare_part_is_found_by_its_trigrams(service, more):
    plans = service.plans("custom", q=rare(3000), **more)

    assert 3000 in [user["id"] for user in service.response.json["users"]]
    assert_finds_by_trigrams(plans)


@pytest.mark.parametrize("sort", ["id", "-created_at"])
@pytest.mark.parametrize("part", ["example.com", "an"])
def test_common_part_is_read_in_order_and_soon_enough(service, part, sort):
    *_, plan = plans = service.plans("custom", q=part, sort=sort)

    assert is_in_order_of(plan, sort), str(plan)
    assert plan.rows_sorted() == 0, str(plan)
    assert sum(plan.buffers for plan in plans) <= 10_000, "\n".join(map(str, plans))


@pytest.mark.parametrize("sort", ["id", "-created_at", "name", "-name"])
@pytest.mark.parametrize("part", ["maria", "smith", "yusuf", "aiko"])
def test_part_of_a_few_thousand_walks_no_table(service, part, sort):
    for plan in service.plans("custom", q=part, sort=sort):
        assert walks_no_table(plan), str(plan)
        assert plan.rows_sorted() <= 50_000, str(plan)
        assert plan.buffers <= 60_000, str(plan)


@pytest.mark.parametrize("sort", ["id", "-created_at", "email"])
def test_two_letters_that_nobody_has_cost_no_more_than_reading_the_table_once_or_twice(service, sort):
    """Two letters make no trigram, so that nothing but the table can tell."""
    plans = service.plans("custom", q="zq", sort=sort)

    assert service.response.json["users"] == []
    assert sum(plan.buffers for plan in plans) <= 100_000, "\n".join(map(str, plans))


# What others have searched for meanwhile, on the same connection.
BEFORE = {
    "other rare parts": [rare(number) for number in range(8001, 8016)],
    "common parts": ["example.com", "an", "maria"] * 5,
    "long parts that nobody has": [
        f"{number:02} somebody whose name is rather longer than most" for number in range(15)
    ],
}


@pytest.mark.parametrize("more", [{}, {"sort": "-created_at"}, {"page": 1}], ids=urlencode)
@pytest.mark.parametrize("parts", BEFORE.values(), ids=BEFORE)
def test_rare_part_is_still_found_by_its_trigrams_after_many_searches(service, parts, more):
    plans = service.settled_plans([{"q": part, **more} for part in parts], q=rare(3000), **more)

    assert_finds_by_trigrams(plans)


def test_rare_part_is_still_found_by_its_trigrams_after_two_letters_that_nobody_has(service):
    """Two letters make no trigram; what looks for them is so dear that a plan for any text may seem to be cheaper."""
    plans = service.settled_plans([{"q": "qx"}] * MORE_THAN_SETTLES, q=rare(3000))

    assert_finds_by_trigrams(plans)


# One user


@either_plan
def test_who_asks_and_who_is_asked_for_are_found_at_once(service, mode):
    who, user = (service.plan(asked, mode) for asked in service.ask_for_all(f"{USERS}/3000"))

    assert "sessions" in who.asked.sql and service.response.json["id"] == 3000
    for plan in (who, user):
        assert {node["Node Type"] for node in plan.nodes} <= {"Nested Loop", "Index Scan"}, str(plan)
        assert plan.buffers <= A_PLACE, str(plan)
