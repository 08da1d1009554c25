"""A copy of the project in which one mutant at a time lives, and pytest on it: the project itself is never touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from mutant import Mutant, mutated

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "var", "build", "dist")
_ASSERTED = re.compile(r"assert |AssertionError|Failed: (?!Timeout)")
_PYTEST = ("-q", "--no-header", "-p", "no:xdist", "-p", "no:cacheprovider", "--hypothesis-seed=0")
# The plugins are imported already: their own assertions are not ours to explain.
_PYTEST += ("-W", "ignore::pytest.PytestAssertRewriteWarning")


class Tree:
    """The copy. What runs in it imports it, and so do the processes that tests start, which is seen to at once."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self._report = folder / "report.xml"
        self._output = folder / "output"
        shutil.copytree(ROOT, self.root, ignore=_LEFT_OUT, symlinks=True)
        (folder / "tmp").mkdir()
        self._environment = {**os.environ, "PYTHONPATH": str(self.root), "TMPDIR": str(folder / "tmp")}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        # By their hash: of two edits in one second that keep the size, Python would take the older one's bytecode.
        self._python("-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "gateway", "tests")
        self._check()
        self._warm = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("warm.py")), str(self._output)],
            cwd=self.root,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End its Python."""
        self._warm.communicate()

    def failing(self, nodes: Sequence[str]) -> dict[str, str]:
        """Which of these tests do not pass, and why: all in one run, and what did not pass in it by itself."""
        status = self._pytest(*nodes)
        doubted = [node for node in nodes if status and not self._passed(node)]
        return {node: why for node in doubted if (why := self._outcome(node)[1])}

    def try_(self, mutant: Mutant) -> str:
        """'' where the mutant's test fails by an assertion, else what happened instead."""
        path = self.root / mutant.path
        text = path.read_text(encoding="utf-8")
        try:
            path.write_text(mutated(text, mutant.edits), encoding="utf-8")
            failed, why = self._outcome(mutant.node)
        except LookupError as error:
            return f"does not fit the code: {error}"
        finally:
            path.write_text(text, encoding="utf-8")
        if not why:
            return "survived"
        is_shown = _ASSERTED.match(why) or (mutant.shows and re.match(mutant.shows, why))
        return "" if failed and is_shown else f"not by an assertion: {why[:300]}"

    def _outcome(self, node: str) -> tuple[bool, str]:
        """Whether a test's own body failed, and the first words of what went wrong; '' where all is well."""
        status = self._pytest("-x", node)
        if not status:
            return False, ""
        for case in self._cases():
            for kind in ("failure", "error"):
                if (found := case.find(kind)) is not None:
                    return kind == "failure", str(found.get("message"))
        said = self._output.read_text(errors="replace").strip()
        return False, f"pytest ended with {status}: {said[-300:]}"

    def _passed(self, node: str) -> bool:
        path, _, name = node.partition("::")
        module = path.removesuffix(".py").replace("/", ".")
        cases = [case for case in self._cases() if case.get("classname") == module]
        named = [case for case in cases if case.get("name") == name or str(case.get("name")).startswith(f"{name}[")]
        return bool(named) and not any(len(case.findall(kind)) for case in named for kind in ("failure", "error"))

    def _check(self) -> None:
        """Raises RuntimeError where `python -m gateway` is another one than this tree's."""
        main = self.root / "gateway" / "__main__.py"
        text = main.read_text(encoding="utf-8")
        main.write_text("raise SystemExit('the mutant is here')\n", encoding="utf-8")
        try:
            for folder in (self.root, self.root.anchor):
                if "the mutant is here" not in self._python("-m", "gateway", "--help", folder=Path(folder)):
                    raise RuntimeError(f"python -m gateway in {folder} does not run {self.root}")
        finally:
            main.write_text(text, encoding="utf-8")

    def _cases(self) -> list[ET.Element]:
        return list(ET.parse(self._report).iter("testcase")) if self._report.exists() else []  # noqa: S314 - as above

    def _pytest(self, *arguments: str) -> int:
        self._report.unlink(missing_ok=True)
        assert self._warm.stdin is not None
        assert self._warm.stdout is not None
        self._warm.stdin.write(json.dumps([*_PYTEST, f"--junitxml={self._report}", *arguments]) + "\n")
        self._warm.stdin.flush()
        return int(self._warm.stdout.readline())

    def _python(self, *arguments: str, folder: Path | None = None) -> str:
        """What Python says with these arguments, where it runs as the tests do."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder or self.root,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout + done.stderr
