"""The house rules that no linter holds by itself, and that the linters really hold theirs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gateway.backends.rules_file import read_rules
from gateway.settings import load, unsupported

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LONG_FILES: frozenset[str] = frozenset()
"""Files of more than 400 lines that are one room all the same, each with its reason."""


@pytest.mark.parametrize(
    "name",
    [
        *(
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "Makefile",
            "pyproject.toml",
            "docker-compose.yml",
            ".ci/run",
        ),
        *("config/gateway.yaml", "config/Dockerfile", "rules/rules.yaml", "gateway/py.typed"),
        *("requirements/runtime.txt", "requirements/demo.txt", "requirements/dev.txt", "requirements/mitm.txt"),
    ],
)
def test_what_users_look_for_is_where_they_look(name: str) -> None:
    assert (ROOT / name).is_file()


def test_files_stay_short() -> None:
    long = {str(path.relative_to(ROOT)) for path in SOURCES if len(path.read_text().splitlines()) > 400}
    assert long == LONG_FILES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_its_law_in_three_lines_at_most(path: Path) -> None:
    law = ast.get_docstring(ast.parse(path.read_text()))
    if not (path.name == "__init__.py" and law is None):
        assert law is not None
        assert len(law.splitlines()) <= 4  # a blank one may stand between


@pytest.mark.parametrize("name", ["runtime.txt", "demo.txt", "dev.txt", "mitm.txt"])
def test_requirements_are_pinned_and_hashed_and_name_no_host(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"://|--(extra-)?index|find-links|@", text)
    for entry in text.replace("\\\n", " ").splitlines():
        assert re.match(r"[a-z0-9-]+==[^ ;]+ .*--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


def test_the_requirement_files_agree() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pins("runtime.txt") < pins("demo.txt") < pins("dev.txt")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared_and_every_dependency_is_imported() -> None:
    imported = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                imported.add(node.module)
    providers = packages_distributions()
    # mitmproxy has an environment of its own, where alone it is imported.
    outside = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"gateway", "mitmproxy"}
    used = {normal(provider) for name in outside for provider in providers[name]} - {"pydantic-core"}
    if any(name.startswith("ruamel") for name in imported):
        used = {name for name in used if not name.startswith("ruamel")} | {"ruamel-yaml"}

    def names(dependencies: list[str]) -> set[str]:
        return {normal(re.split(r"[ <>=;\[]", text)[0]) for text in dependencies}

    declared = names(PROJECT["project"]["dependencies"])
    # tzdata has no import: zoneinfo reads it where the system has no time zones. SQLAlchemy imports its drivers by
    # their names. The demo may import its own extra.
    unseen = {"tzdata", "aiosqlite", "asyncpg"}
    assert declared - unseen <= used <= declared | names(PROJECT["project"]["optional-dependencies"]["demo"])


LAYERS, PURE, WIRING = (contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"])
BREACHES = [
    (LAYERS, "errors", "gateway.policy.model"),
    (LAYERS, "policy.breach", "gateway.http.ranges"),
    (LAYERS, "http.breach", "gateway.policy.model"),
    (LAYERS, "settings", "gateway.ports"),
    (LAYERS, "transfer.breach", "gateway.backends.files"),
    (LAYERS, "services.breach", "gateway.bootstrap"),
    (WIRING, "services.breach", "gateway.backends.files"),
    (WIRING, "web.breach", "gateway.backends.files"),
    (WIRING, "mitm.breach", "gateway.backends.files"),
    (LAYERS, "mitm.breach", "gateway.web.door"),
    *((PURE, "policy.breach", name) for name in ("asyncio", "logging", "os", "random", "secrets", "socket", "time")),
    *((PURE, "http.breach", name) for name in ("aiohttp", "redis", "time")),
]


def lint_imports(folder: Path) -> tuple[dict[str, bool], str]:
    """Each contract by name with whether gateway/ in `folder` keeps it, and everything that import-linter said."""
    shown = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(.+) (KEPT|BROKEN)\b", shown.stdout, re.MULTILINE)
    kept = {name: word == "KEPT" for name, word in found}
    assert (shown.returncode == 0) == bool(kept and all(kept.values())), shown.stdout + shown.stderr
    return kept, shown.stdout


def test_the_layers_hold() -> None:
    assert lint_imports(ROOT)[0] == {LAYERS: True, PURE: True, WIRING: True}


@pytest.fixture(scope="module")
def breached(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bool], str]:
    """What import-linter says of a copy with every breach in it at once."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "gateway", folder / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    for _, importer, imported in BREACHES:
        with (folder / "gateway" / f"{importer.replace('.', '/')}.py").open("a") as file:
            file.write(f"\nimport {imported}\n")
    return lint_imports(folder)


@pytest.mark.parametrize(("contract", "importer", "imported"), BREACHES)
def test_a_breach_of_the_layers_is_caught(
    breached: tuple[dict[str, bool], str], contract: str, importer: str, imported: str
) -> None:
    kept, said = breached
    assert kept[contract] is False
    assert re.search(rf"gateway\.{re.escape(importer)} -> {re.escape(imported)}\b", said), said


def test_a_room_without_a_place_is_caught(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "gateway" / "attic.py").touch()
    kept, said = lint_imports(tmp_path)
    assert kept[LAYERS] is False
    assert "attic" in said


@pytest.mark.parametrize(
    "code",
    [
        "import time\n\nNOW = time.time()\n",
        "from time import monotonic\n\nNOW = monotonic()\n",
        "import datetime\n\nNOW = datetime.datetime.now(datetime.UTC)\n",
        "from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)\n",
        "from datetime import date\n\nTODAY = date.today()\n",
        "import uuid\n\nID = uuid.uuid4()\n",
    ],
)
@pytest.mark.parametrize(("room", "is_pure"), [("policy", True), ("http", True), ("services", False)])
def test_a_clock_in_a_pure_room_is_caught(code: str, room: str, is_pure: bool) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "--stdin-filename",
         f"gateway/{room}/breach.py", "-"],
        cwd=ROOT, input=code, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (shown.returncode == 1) is is_pure, shown.stdout + shown.stderr


SECRETS = {
    "GATEWAY_LINK_SECRET": "made-up-" * 8,
    "GATEWAY_MANAGEMENT_TOKEN": "made-up-" * 8,
    "GATEWAY_S3_ACCESS_KEY": "made-up",
    "GATEWAY_S3_SECRET_KEY": "made-up",
}


def test_the_sample_settings_are_right() -> None:
    settings = load(ROOT / "config/gateway.yaml", SECRETS)
    assert unsupported(settings) == []


def test_the_compose_file_gives_the_gateway_what_its_settings_ask_for() -> None:
    services = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    gateway, redis = services["gateway"], services["redis"]
    assert (ROOT / gateway["build"]["dockerfile"]).is_file()
    assert set(SECRETS) < set(gateway["environment"])
    assert gateway["read_only"] is True
    assert "--appendonly yes" in " ".join(redis["command"])
    assert "--maxmemory-policy noeviction" in " ".join(redis["command"])
    own = {name: gateway["environment"][name] for name in ("GATEWAY_REDIS", "GATEWAY_JOURNAL__PATH")}
    settings = load(ROOT / "config/gateway.yaml", {**SECRETS, **own})
    assert settings.journal is not None
    # On a volume, whose owner is the image's folder's: the root file system can only be read.
    assert f"journal:{settings.journal.path}" in gateway["volumes"]
    assert f"install -d -o 10001 -g 10001 -m 700 {settings.journal.path}" in (ROOT / "config/Dockerfile").read_text()
    assert str(settings.management.listen.port) in gateway["healthcheck"]["test"][-1]


def test_the_image_installs_only_what_is_pinned_and_runs_as_nobody_special() -> None:
    lines = (ROOT / "config/Dockerfile").read_text().splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation" in line for line in installs)
    assert any(re.fullmatch(r"USER [1-9]\d*", line) for line in lines)


def test_the_sample_rules_are_right_and_need_no_geo_data() -> None:
    rules = read_rules(ROOT / "rules/rules.yaml", frozenset())
    assert rules.default_plan in rules.plans


def test_python_m_gateway_is_the_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "gateway", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "serve" in shown.stdout


def test_make_lists_its_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {f"make {target}" for target in ("setup", "demo", "test", "check", "bench")} <= {
        " ".join(line.split()[:2]) for line in shown.splitlines()
    }
