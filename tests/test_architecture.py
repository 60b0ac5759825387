"""The layout of the house: which room imports which, and the rules that a linter does not know."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.servers import ROOT

ROOMS = ("config", "models", "service", "resources")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for place in (*(f"{room}/**/*.py" for room in ROOMS), "wsgi.py", "worker.py")
    for path in sorted(ROOT.glob(place))
}
MIGRATIONS = sorted((ROOT / "migrations").rglob("*.py"))
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "base2"}
# What an extra brings is imported where that extra is in use, since without it there is nothing to import.
BY_EXTRA = {
    ("service.storage", "from service.bucket import Bucket"),
    ("resources.app", "from service.jobs.broker import Broker"),
    ("resources.app", "from service.redis_counters import RedisCounters"),
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
MOST_LINES = 300


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield every import below a node."""
    return (child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom))


def imported(module: str) -> set[str]:
    """Return the full name of everything that a module imports: modules, and what is taken from them."""
    names = set()
    for statement in imports(tree(FILES[module])):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{module} has a relative import"
            names |= {str(statement.module), *(f"{statement.module}.{alias.name}" for alias in statement.names)}
    return names


def in_room(*rooms: str) -> list[str]:
    return [module for module in FILES if module.split(".")[0] in rooms]


def calls(name: str) -> list[str]:
    """Return the modules in which a method or function of a name is called."""
    return [
        module
        for module, path in FILES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) == name
    ]


def test_the_rooms_import_each_other_as_agreed():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", ended.stdout)


def test_the_contracts_forget_no_module_of_resources():
    contracts = ConfigParser()
    contracts.read(ROOT / "setup.cfg")
    modules = {module for module in in_room("resources") if re.fullmatch(r"resources\.(?!http$)\w+", module)}
    nouns = {module for module in modules if "resources.http.api" in imported(module)} - {"resources.routes"}

    def listed(contract: str, key: str) -> set[str]:
        return {*contracts[f"importlinter:contract:{contract}"][key].split()}

    assert listed("plumbing", "forbidden_modules") == modules
    assert listed("step", "source_modules") == modules - {"resources.app"}
    assert listed("tables", "source_modules") == modules - {"resources.app", "resources.routes"}
    assert listed("nouns", "modules") == nouns


def test_no_module_imports_itself_by_a_detour():
    graph = {module: {name for name in imported(module) if name in FILES} - {module} for module in FILES}

    assert sum(map(len, graph.values())) > len(FILES) / 2
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_arrows_between_the_rooms_are_these():
    arrows = {
        room: {name.split(".")[0] for module in in_room(room) for name in imported(module)} & {*ROOMS} - {room}
        for room in ROOMS
    }

    assert arrows == {
        "config": set(),
        "models": set(),
        "service": {"models"},
        "resources": {"config", "models", "service"},
    }


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_at_its_top_and_always(module):
    content = tree(FILES[module])
    late = [node for function in ast.walk(content) if isinstance(function, FUNCTIONS) for node in imports(function)]
    conditional = [
        node
        for branch in ast.walk(content)
        if isinstance(branch, ast.If | ast.Try | ast.While | ast.For)
        and not (isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING")
        for node in imports(branch)
    ]

    assert {(module, ast.unparse(node)) for node in late + conditional} <= BY_EXTRA
    assert not calls_by_name(content, {"__import__", "import_module"})


def calls_by_name(content: ast.Module, names: set[str]) -> list[int]:
    """Return the lines on which functions of these names are called."""
    found = (node for node in ast.walk(content) if isinstance(node, ast.Call))
    return [node.lineno for node in found if getattr(node.func, "attr", getattr(node.func, "id", "")) in names]


@pytest.mark.parametrize("module", [*FILES, *MIGRATIONS], ids=str)
def test_a_module_says_in_one_sentence_what_lives_there(module):
    first = (ast.get_docstring(tree(FILES.get(module, module))) or "").partition("\n")[0]

    assert re.fullmatch(r"\S.*[.:]", first)


@pytest.mark.parametrize("module", FILES)
def test_a_module_is_short_and_named_for_what_it_holds(module):
    assert len(FILES[module].read_text("utf-8").splitlines()) <= MOST_LINES
    assert not FORBIDDEN_NAMES & set(module.split("."))


@pytest.mark.parametrize("module", [module for module, path in FILES.items() if path.stem == "__init__"])
def test_a_package_holds_a_docstring_and_models_names_every_table(module):
    _, *rest = tree(FILES[module]).body
    if module != "models":
        assert rest == []
        return

    *taken, listed = rest
    names = [alias.name for node in taken for alias in node.names]
    classes = {
        node.name
        for name in in_room("models")
        for node in ast.walk(tree(FILES[name]))
        if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["Model"]
    }
    assert all(isinstance(node, ast.ImportFrom) for node in taken)
    assert ast.literal_eval(listed.value) == names == sorted(classes)


def test_every_package_is_one_that_is_installed():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = ast.literal_eval(re.search(r"^packages = (\[.*?\])", text, re.MULTILINE | re.DOTALL)[1])

    assert sorted(listed) == sorted(module for module, path in FILES.items() if path.stem == "__init__")


def test_the_database_is_committed_in_one_place():
    assert set(calls("commit")) == {"models.statements"}
    assert calls("rollback") == []
    words = [
        module
        for module, path in FILES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and node.value in {"BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"}
    ]
    assert words.count("models.statements") == 3 and set(words) == {"models.base", "models.statements"}


def test_what_flask_sqlalchemy_offers_beyond_the_engine_is_left_alone():
    sessions = [
        f"{module}:{node.lineno}"
        for module, path in FILES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "db.session"
    ]
    assert sessions == []
    for name in ("create_all", "drop_all", "get_or_404", "first_or_404", "one_or_404", "paginate"):
        assert calls(name) == []
    attributes = [
        f"{module}:{node.lineno}"
        for module, path in FILES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "query"
        if not ast.unparse(node.value).startswith("url")  # A URL has a query of its own.
    ]
    assert attributes == []


@pytest.mark.parametrize("module", in_room("models", "service"))
def test_models_and_service_know_no_http(module):
    from_flask = {name for name in imported(module) if name.split(".")[0] == "flask"}

    assert not {name for name in imported(module) if name.split(".")[0] in {"werkzeug", "flask_restful", "webargs"}}
    assert from_flask <= {"flask", "flask.Flask", "flask.current_app", "flask.cli", "flask.cli.AppGroup"}


def test_errors_are_caught_by_their_kind():
    broad = [
        f"{module}:{node.lineno}"
        for module, path in FILES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & set(re.findall(r"\w+", ast.unparse(node.type))))
    ]

    # To commit what an error keeps; and so that a job that breaks off does not stop those behind it.
    assert [place.partition(":")[0] for place in broad] == ["models.statements", "service.jobs.runner"]


def test_the_text_of_an_error_of_the_database_is_read_in_one_place():
    readers = {
        module
        for module in in_room("models", "service", "resources")
        for node in ast.walk(tree(FILES[module]))
        if isinstance(node, ast.Attribute) and node.attr == "orig"
    }

    assert readers <= {"service.database_errors"}


def reads_os(node):
    return node.attr in {"environ", "environb", "getenv"} and ast.unparse(node.value) == "os"


def test_only_the_application_and_the_server_read_the_environment():
    readers = {
        module
        for module, path in FILES.items()
        if {"os.environ", "os.environb", "os.getenv"} & imported(module)
        or any(isinstance(node, ast.Attribute) and reads_os(node) for node in ast.walk(tree(path)))
    }

    assert readers <= {"config.settings", "config.start"}


def test_every_url_stands_in_the_table_of_contents():
    assert set(calls("add_resource")) == {"resources.routes"}


def test_nobody_imports_the_application_but_the_front_step():
    importers = {module for module in FILES if {"resources.app", "resources.app.create_app"} & imported(module)}

    assert importers == {"wsgi", "worker"}
    assert imported("wsgi") == imported("worker") == {"resources.app", "resources.app.create_app"}


def test_migrations_stand_alone():
    for path in MIGRATIONS:
        if path.parent.name == "versions":
            names = {ast.unparse(node) for node in imports(tree(path))}
            assert names <= {"import sqlalchemy as sa", "from alembic import op"}, path.name
            functions = {node.name for node in tree(path).body if isinstance(node, ast.FunctionDef)}
            assert {"upgrade", "downgrade"} <= functions
