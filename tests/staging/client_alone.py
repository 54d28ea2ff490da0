"""The client in an environment of its own, against the installation of SCOREHOUSE_API_URL: `make client-test` runs it."""

from __future__ import annotations

import io
import os
from importlib.metadata import distributions
from importlib.util import find_spec

from scorehouse_client import Client, ScorehouseClientError

LONG_AGO = "2000-01-01T00:00:00Z"  # no audit takes these rows for customers
ROWS = 1_000


def main() -> None:
    installed = {each.name.lower() for each in distributions()} - {"pip", "setuptools"}
    assert installed == {"scorehouse-client", "urllib3"}, installed
    assert not any(find_spec(name) for name in ("api", "cli", "settings", "numpy", "pyarrow"))
    with Client(os.environ["SCOREHOUSE_API_URL"], os.environ["SCOREHOUSE_TOKEN"]) as client:
        model = next(model for model in client.models() if model.production)
        columns = client.version(model.name, str(model.production)).signature["columns"]
        record = {column["name"]: _value(column) for column in columns}
        one = client.submit(model.name, record, key="alone", as_of=LONG_AGO, wait=30)
        assert one.result is not None and one.result["key"] == "alone", one  # noqa: PT018  # no pytest here
        header = ",".join(["key", *record])
        lines = [",".join([str(number), *map(str, record.values())]) for number in range(ROWS)]
        output, told = io.BytesIO(), []
        job = client.score_file(
            io.BytesIO("\n".join([header, *lines, ""]).encode()),
            model.name,
            output,
            key_column="key",
            as_of=LONG_AGO,
            on_job=lambda job: told.append(job.progress),
        )
        keys = [line.split(",", 1)[0] for line in output.getvalue().decode().splitlines()[1:]]
        assert keys == [str(number) for number in range(ROWS)], job
        assert told[-1] == 1.0
        try:
            client.frame(job.id)
        except ScorehouseClientError as exc:
            assert "pip install" in str(exc)  # noqa: PT017  # no pytest here
        else:
            raise AssertionError("there is no pandas")
    print(f"{sorted(installed)}: one record and {ROWS:,} rows of {model.name}, in order")


def _value(column: dict[str, object]) -> object:
    if column["type"] in ("number", "integer"):
        return column.get("minimum") or 0
    if column["type"] == "category":
        return (column.get("categories") or ["a"])[0]  # type: ignore[index]
    return {"boolean": False, "text": "a", "timestamp": "2020-01-01T00:00:00Z"}[str(column["type"])]


if __name__ == "__main__":
    main()
