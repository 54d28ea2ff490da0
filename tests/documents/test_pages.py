"""README and the tutorials: what they tell a reader to type works, in that order, and prints what they say."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import Shell, blocks, matches, run_python

from cli.background import BackgroundStack, free_port

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
URL = "http://127.0.0.1:8000"  # of the pages; here another port may be free
# `make demo` in short: of the year that it scores, July.
DEMO = """
demo=.scorehouse/demo
python -m examples.flights.train --out $demo
scorehouse models register $demo/flights.joblib --name flights --version 1.0.0 --reference $demo/reference.csv \
    --target late --key flight_id --trust
scorehouse models deploy flights 1.0.0
scorehouse score $demo/april.csv --model flights --as-of 2013-04-15 -o $demo/april-scored.csv
python -c 'from pathlib import Path; from examples.flights.months import write_months; list(write_months([7], Path(".scorehouse/demo")))'
scorehouse score $demo/2013-07.csv --model flights --as-of 2013-07-15 -o $demo/2013-07-scored.csv
for end in 2013-07-31 2013-08-01; do
    scorehouse audit drift flights --window 30d --end $end --alert > $demo/drift.txt || test $? = 1
done
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundStack]:
    """A folder like a checkout in which `make demo` has run, and still does."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(sys.prefix)
    stack = BackgroundStack(folder / ".scorehouse")
    stack.start(2, free_port(8000), free_port(0))
    try:
        with Shell(folder, environment(stack)) as shell:
            shell.run(DEMO)
        yield stack
    finally:
        stack.stop()


def environment(stack: BackgroundStack) -> dict[str, str]:
    """Of a shell in that folder: commands find the stack by themselves."""
    return {**os.environ, "PATH": f"{stack.data_dir.parent}/.venv/bin:{os.environ['PATH']}"}


@pytest.mark.parametrize("page", [ROOT / "README.md", *TUTORIALS], ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, stack: BackgroundStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stack.data_dir.parent)
    url = str(stack.found["api_url"])
    namespace: dict[str, object] = {}
    with Shell(stack.data_dir.parent, environment(stack)) as shell:
        for block in blocks(page):
            code = block.code.replace(URL, url)
            printed = shell.run(code) if block.kind == "sh" else run_python(code, namespace)
            if block.printed is not None:
                printed = printed.replace(url, URL)
                assert matches(block.printed, printed), f"{page.name}, line {block.line}, prints\n{printed}"


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\n", "a  \n\n", True),
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a b d\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nd\n", True),
        ("a\n", "a\nb\n", False),
        ("1.5 (x)\n", "125 (x)\n", False),
    ],
)
def test_what_a_page_prints_is_compared_line_by_line(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same
