"""README and the tutorials: what they tell a reader to type works, in that order, and prints what they say."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import Shell, blocks, matches, run_python

from cli.background import BackgroundStack, free_port
from examples import package
from examples.flights.data import COLUMNS, flights
from examples.flights.months import write_months
from scorehouse_client import Client

ROOT = Path(__file__).parents[2]
# The one that begins with what the demo left comes first.
PAGES = sorted(
    [*(ROOT / "docs" / "tutorial").glob("*.md"), ROOT / "README.md"], key=lambda page: page.stem != "flights"
)
URL = "http://127.0.0.1:8000"  # of the pages; here another port may be free


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundStack]:
    """A folder like a checkout in which `make demo` has run, and still does."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(sys.prefix)
    stack = BackgroundStack(folder / ".scorehouse")
    stack.start(2, free_port(0), free_port(0))
    try:
        leave_as_the_demo_does(stack)
        yield stack
    finally:
        stack.stop()


def leave_as_the_demo_does(stack: BackgroundStack) -> None:
    """The files and the model of `make demo`; of the year that it scores, July."""
    demo = stack.data_dir / "demo"
    demo.mkdir()
    winter = flights([1, 2, 3])
    winter = winter[winter[COLUMNS.label].notna()]
    with package.one_thread():
        model = package.gradient_boosting(COLUMNS).fit(winter[COLUMNS.features], winter[COLUMNS.label].astype(int))
    package.write_artefacts(model, demo, "flights")
    package.write_reference(winter, demo, COLUMNS)
    april, july = write_months([4, 7], demo)
    april.inputs.rename(demo / "april.csv")
    with Client(str(stack.found["api_url"]), (stack.data_dir / "admin.token").read_text().strip()) as client:
        client.register_version(
            "flights",
            "1.0.0",
            demo / "flights.joblib",
            demo / "reference.csv",
            target=COLUMNS.label,
            key=COLUMNS.key,
            trust=True,
        )
        client.deploy("flights", "1.0.0")
        client.score_file(demo / "april.csv", "flights", demo / "april-scored.csv", as_of=f"{april.middle}T00:00:00Z")
        client.score_file(july.inputs, "flights", demo / "2013-07-scored.csv", as_of=f"{july.middle}T00:00:00Z")
        for end in ("2013-07-31T00:00:00Z", "2013-08-01T00:00:00Z"):
            client.audit("flights", "drift", window="30d", end=end, alert=True)


def environment(stack: BackgroundStack) -> dict[str, str]:
    """Of a shell in that folder: commands find the stack by themselves."""
    return {**os.environ, "PATH": f"{stack.data_dir.parent}/.venv/bin:{os.environ['PATH']}"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
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
