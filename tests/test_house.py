"""The rules of the house, read from the source: who writes state, where threads may be, how long a piece may get."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "django_jobs"
LONGEST_MODULE, LONGEST_FUNCTION = 350, 40

CONCURRENCY = {"threading", "_thread", "multiprocessing", "asyncio", "concurrent"}
# What may import a module of CONCURRENCY, and what may write a job's state.
WORKER_FLOOR = PACKAGE / "worker"
STATE_WRITER = PACKAGE / "models" / "job_queryset.py"

WRITING_CALLS = {"Job", "update", "aupdate", "create", "acreate", "get_or_create", "update_or_create"}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def ours() -> list[Path]:
    """Return the modules of the package that are written by hand."""
    return [path for path in modules("django_jobs") if path.parent != PACKAGE / "migrations"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# The rules: each yields what is wrong, with its line


def writes_of_state(tree: ast.AST) -> Iterator[str]:
    """Yield where a row's state is written that is not said to be a worker's."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in _flat(targets):
                    if isinstance(target, ast.Attribute) and target.attr == "state":
                        yield f"line {node.lineno}: assigns .state"
            case ast.Call():
                yield from _writing_arguments(node)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "state" and _mentions(value, "JobState"):
                        yield f"line {node.lineno}: puts a JobState under 'state'"
            case ast.Constant(value=str(text)) if re.search(
                r"\bupdate\b.*\bset\b.*\bstate\s*=|\binsert\s+into\b.*\bstate\b", text, re.IGNORECASE | re.DOTALL
            ):
                yield f"line {node.lineno}: writes state with SQL"


def _flat(targets: list[ast.expr]) -> Iterator[ast.expr]:
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List):
            yield from _flat(target.elts)
        else:
            yield target


def _writing_arguments(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in WRITING_CALLS:
        for keyword in call.keywords:
            if keyword.arg == "state" and not _mentions(keyword.value, "WorkerState"):
                yield f"line {call.lineno}: {name}(state=...)"
    if name in ("setattr", "bulk_update") and _has_constant(call, "state"):
        yield f"line {call.lineno}: {name}(... 'state' ...)"
    for keyword in call.keywords:
        if keyword.arg == "update_fields" and _has_constant(keyword.value, "state"):
            yield f"line {call.lineno}: update_fields with 'state'"


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))


def _has_constant(node: ast.AST, value: str) -> bool:
    return any(isinstance(part, ast.Constant) and part.value == value for part in ast.walk(node))


def imports_of_concurrency(tree: ast.AST) -> Iterator[str]:
    """Yield the imports of modules that make threads, processes or event loops, wherever they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [] if node.level else [node.module or ""]
        else:
            continue
        yield from (f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in CONCURRENCY)


def questions_to_the_vendor(tree: ast.AST) -> Iterator[str]:
    """Yield where the name of a database is asked for, and not what it can do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "vendor":
            yield f"line {node.lineno}: asks for .vendor"


def reads_of_our_settings(tree: ast.AST) -> Iterator[str]:
    """Yield where DJANGO_JOBS is read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "DJANGO_JOBS":
            yield f"line {node.lineno}: reads .DJANGO_JOBS"
        elif isinstance(node, ast.Call) and _mentions(node.func, "getattr") and _has_constant(node, "DJANGO_JOBS"):
            yield f"line {node.lineno}: reads DJANGO_JOBS"


def long_functions(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"line {node.lineno}: {node.name} has {length} lines"


Rule = Callable[[ast.AST], Iterator[str]]

RULES: dict[str, tuple[Rule, Callable[[Path], bool]]] = {
    "only the queryset of jobs writes state": (writes_of_state, lambda path: path != STATE_WRITER),
    "threads, processes and event loops are in worker/": (
        imports_of_concurrency,
        lambda path: not path.is_relative_to(WORKER_FLOOR),
    ),
    "databases are asked what they can do": (questions_to_the_vendor, lambda path: True),
    "only conf reads our settings": (reads_of_our_settings, lambda path: path != PACKAGE / "conf.py"),
    "functions are short": (long_functions, lambda path: True),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_the_house_holds_everywhere(name: str) -> None:
    rule, applies = RULES[name]
    paths = [path for path in ours() if applies(path)]

    broken = [f"{named(path)} {problem}" for path in paths for problem in rule(ast.parse(path.read_text()))]

    assert paths
    assert broken == []


BAD = {
    writes_of_state: [
        "job.state = JobState.READY",
        "job.state: str = 'ready'",
        "job.attempt, job.state = 1, 'ready'",
        "for job in jobs:\n    job.state += 'x'",
        "Job(state=JobState.READY)",
        "Job.objects.filter(pk=1).update(attempt=1, state=JobState.READY)",
        "Job.objects.update(state=state)",
        "await Job.objects.aupdate(state='ready')",
        "Job.objects.create(state='ready')",
        "Job.objects.update(**{'state': JobState.READY})",
        "setattr(job, 'state', value)",
        "job.save(update_fields=['state'])",
        "Job.objects.bulk_update(jobs, ['attempt', 'state'])",
        "cursor.execute('UPDATE django_jobs_job SET attempt = 1, state = %s')",
        "cursor.execute('INSERT INTO django_jobs_job (attempt, state) VALUES (1, %s)')",
    ],
    imports_of_concurrency: [
        "import threading",
        "import asyncio.events",
        "from threading import Lock",
        "from concurrent.futures import ThreadPoolExecutor",
        "def late():\n    import multiprocessing as mp",
    ],
    questions_to_the_vendor: ["if connection.vendor == 'sqlite': pass"],
    reads_of_our_settings: ["settings.DJANGO_JOBS['X']", "getattr(settings, 'DJANGO_JOBS', {})"],
    long_functions: ["def long():\n" + "    pass\n" * 40, "class A:\n  async def long(self):\n" + "    pass\n" * 40],
}

GOOD = {
    writes_of_state: [
        "Job.objects.filter(state=JobState.READY)",
        "Worker.objects.update(state=WorkerState.LOST)",
        "if job.state == JobState.READY: state = job.state",
        "values = {'state': WorkerState.STARTING}",
        "models.Q(state=JobState.READY)",
    ],
    imports_of_concurrency: ["import threads", "from .asyncio import x", "from asgiref.sync import sync_to_async"],
    questions_to_the_vendor: ["connection.features.has_select_for_update"],
    reads_of_our_settings: ["settings.DATABASES", "conf.read('DATABASE')"],
    long_functions: ["def short():\n" + "    pass\n" * 39],
}


@pytest.mark.parametrize(("rule", "source"), [(rule, source) for rule, sources in BAD.items() for source in sources])
def test_a_rule_finds_what_breaks_it(rule: Rule, source: str) -> None:
    assert list(rule(ast.parse(source)))


@pytest.mark.parametrize(("rule", "source"), [(rule, source) for rule, sources in GOOD.items() for source in sources])
def test_a_rule_lets_pass_what_keeps_it(rule: Rule, source: str) -> None:
    assert not list(rule(ast.parse(source)))


def test_every_rule_is_tried_on_samples() -> None:
    assert {rule for rule, _ in RULES.values()} == BAD.keys() == GOOD.keys()


def test_the_writer_of_state_and_the_floor_of_threads_are_where_the_rules_say() -> None:
    assert list(writes_of_state(ast.parse(STATE_WRITER.read_text())))
    assert any(list(imports_of_concurrency(ast.parse(path.read_text()))) for path in WORKER_FLOOR.rglob("*.py"))


def test_no_module_is_too_long() -> None:
    lengths = {
        named(path): len(path.read_text().splitlines())
        for path in modules("django_jobs", "example_project", "benchmarks")
    }

    assert {path: length for path, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_every_module_has_its_floor_in_the_contract_and_every_floor_its_modules() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    places = [place.strip() for layer in contract["layers"] for place in layer.replace("|", ":").split(":")]
    on_a_floor = {place.strip("()") for place in places}
    # Names in brackets are floors of modules that may not be written yet.
    required = {place for place in places if not place.startswith("(")}

    present = {
        path.stem
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()
    }

    assert contract["exhaustive"] is True
    assert present - on_a_floor == set()
    assert required - present == set()


def test_every_module_says_what_lives_in_it() -> None:
    silent = [
        named(path)
        for path in ours()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert silent == []
