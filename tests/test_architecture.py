"""What ARCHITECTURE.md says, held: who may import whom, what is pure, how large things may grow, which paths exist."""

import ast
import re
from functools import cache
from pathlib import Path

from aigate.providers.table import ROWS, SIM

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "aigate").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# A package imports itself and what stands in a lower row; never its neighbours in the same row.
LAYERS = (
    ("errors",),
    ("core",),
    ("dialects", "providers", "journal", "archive", "messages"),
    ("config", "jobdialects"),
    ("catalog", "process", "guard", "batchdialects"),
    ("api",),
    ("worker", "keeper", "sim"),
    ("serve",),
    ("cli",),
    ("__main__",),
)
PART_OF = {"inner": "messages", "credentials": "config", "config_checks": "config", "supervisor": "serve", "probe": "serve", "datadir": "serve", "__init__": "errors"}
RANK = {package: rank for rank, packages in enumerate(LAYERS) for package in packages}

PURE = ("core", "dialects", "jobdialects", "batchdialects", "providers", "catalog")
IMPURE = {
    "asyncio", "http", "httptools", "httpx2", "logging", "os", "random", "secrets", "select", "selectors", "signal", "socket", "sqlalchemy",
    "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib.request", "uuid", "uvloop",
}  # fmt: skip

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 500, 60, 7


@cache
def tree(path):
    return ast.parse(path.read_text())


def nodes(path, *kinds):
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


def package_of(dotted):
    name = dotted.split(".")[1] if "." in dotted else "__init__"
    return PART_OF.get(name, name)


def dotted_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path):
    for node in nodes(path, ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        else:
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.module, node.lineno
            if node.module == "aigate":
                yield from ((f"aigate.{alias.name}", node.lineno) for alias in node.names if not alias.name.startswith("__"))


def parameters(function):
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def where(path, node):
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_package_has_its_place_in_the_layers():
    assert {package_of(dotted_name(path)) for path in MODULES} <= set(RANK)


def test_imports_run_one_way():
    wrong = []
    for path in MODULES:
        own = package_of(dotted_name(path))
        for name, line in imports(path):
            if name.split(".")[0] == "aigate":
                other = package_of(name)
                if other != own and RANK[other] >= RANK[own]:
                    wrong.append(f"{path.relative_to(ROOT)}:{line}: {own} imports {other}")
    assert wrong == []


def test_pure_packages_import_nothing_impure():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        if package_of(dotted_name(path)) in PURE
        for name, line in imports(path)
        if name in IMPURE or name.split(".")[0] in IMPURE
    ]
    assert wrong == []


def test_pure_packages_read_no_clock_and_wait_for_nothing():
    wrong = [
        where(path, node)
        for path in MODULES
        if package_of(dotted_name(path)) in PURE
        for node in nodes(path, ast.AsyncFunctionDef, ast.Attribute)
        if isinstance(node, ast.AsyncFunctionDef) or node.attr in ("now", "utcnow", "today", "environ")
    ]
    assert wrong == []


def test_nothing_reads_the_environment_after_start():
    readers = {
        str(path.relative_to(ROOT / "aigate"))
        for path in MODULES
        for node in nodes(path, ast.Attribute)
        if node.attr in ("environ", "getenv") and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert readers == {"serve.py", "cli/connection.py"}


def test_the_database_is_the_keepers_alone():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in MODULES
        if package_of(dotted_name(path)) != "keeper"
        for name, line in imports(path)
        if name.split(".")[0] in ("sqlalchemy", "alembic", "psycopg", "sqlite3", "aiosqlite")
    ]
    assert wrong == []


def test_no_code_asks_which_provider_it_is():
    """A difference between providers is a field of a row, read by whoever needs it. (The sim names behaviours after providers.)"""
    wrong = [
        where(path, node)
        for path in MODULES
        if package_of(dotted_name(path)) != "sim"
        for node in nodes(path, ast.Compare, ast.MatchValue)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in ROWS and constant.value != SIM
    ]
    assert wrong == []


def test_files_and_functions_stay_small():
    wrong = [str(path.relative_to(ROOT)) for path in [*MODULES, *TESTS] if len(path.read_text().splitlines()) > MAX_FILE_LINES]
    for path in MODULES:
        for function in nodes(path, ast.FunctionDef, ast.AsyncFunctionDef):
            if function.end_lineno - function.lineno + 1 > MAX_FUNCTION_LINES:
                wrong.append(f"{where(path, function)}: {function.name} is too long")
            if len(parameters(function)) > MAX_PARAMETERS:
                wrong.append(f"{where(path, function)}: {function.name} has too many parameters")
    assert wrong == []


def test_every_module_says_what_it_owns():
    wrong = [str(path.relative_to(ROOT)) for path in MODULES if path.read_text().strip() and not ast.get_docstring(tree(path))]
    assert wrong == []


def test_library_code_does_not_print_and_leaves_nothing_undone():
    wrong = [
        where(path, node) for path in MODULES for node in nodes(path, ast.Call) if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    wrong += [str(path.relative_to(ROOT)) for path in MODULES if unfinished.search(path.read_text())]
    assert wrong == []


def test_a_swallowed_error_says_why():
    """An except or a suppress that does nothing carries a comment with its reason, on its line or the next."""
    wrong = []
    for path in MODULES:
        lines = path.read_text().splitlines()
        for handler in nodes(path, ast.ExceptHandler):
            if all(isinstance(step, ast.Pass) for step in handler.body):
                text = "".join(lines[handler.lineno - 1 : handler.body[-1].end_lineno])
                if "#" not in text:
                    wrong.append(where(path, handler))
    assert wrong == []


def test_tests_patch_nothing():
    """The seam is an argument. (`monkeypatch.chdir` and `.setenv` change the process, not our code.)"""
    wrong = [str(path.relative_to(ROOT)) for path in TESTS for name, _ in imports(path) if name.startswith("unittest")]
    wrong += [
        where(path, node)
        for path in TESTS
        for node in nodes(path, ast.Attribute)
        if node.attr in ("setattr", "setitem") and isinstance(node.value, ast.Name) and node.value.id == "monkeypatch"
    ]
    assert wrong == []


def test_tests_mirror_the_source():
    """tests/x is about aigate/x; tests/e2e is about all of it together, tests/money about its promises on money, tests/bench about bench."""
    elsewhere = [ROOT / "tests", ROOT / "tests" / "e2e", ROOT / "tests" / "money", ROOT / "tests" / "bench"]
    wrong = [
        str(path.relative_to(ROOT))
        for path in TESTS
        if path.parent not in elsewhere and not (ROOT / "aigate" / path.parent.relative_to(ROOT / "tests")).is_dir()
    ]
    assert wrong == []


def test_every_path_in_the_architecture_page_exists():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"[\w./*-]+\.(?:py|md|toml|json)\b", text)
    assert len(named) > 10
    patterns = ("{}", "aigate/{}", "aigate/*/{}")
    missing = [name for name in named if not any(list(ROOT.glob(pattern.format(name))) for pattern in patterns)]
    assert missing == []
