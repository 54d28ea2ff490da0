"""`scorehouse models register`, and the signature of a version as a file to edit and register again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.connection import Json, Url, connect
from cli.options import Quiet
from cli.progress import shown
from cli.terminal import say, write_json
from errors import InvalidInput

Runtime = Literal["auto", "sklearn", "onnx"]
ModelAtVersion = Annotated[str, typer.Argument(metavar="MODEL@VERSION", show_default=False)]


def register_version(  # noqa: PLR0917  # each is an option of the command
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The fitted model: .joblib, .pkl, .skops or .onnx.")
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Semantic version, such as 1.2.0.")],
    reference: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, help="CSV sample: gives the signature and is what inputs are compared with."
        ),
    ],
    target: Annotated[
        str | None, typer.Option(help="Column of the reference that is predicted.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(help="Column of the reference with ids.", show_default=False)] = None,
    runtime: Annotated[
        Runtime,
        typer.Option(
            help="auto compiles a scikit-learn model to ONNX where that is faster, onnx in any case, sklearn never."
        ),
    ] = "auto",
    quantise_within: Annotated[
        float | None,
        typer.Option(
            help="Score a neural network in lower precision where that is faster, and its answers are off by at most this.",
            show_default=False,
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Needed for joblib and pickle, which run code when they are loaded.")
    ] = False,
    allow_version_mismatch: Annotated[
        bool,
        typer.Option("--allow-version-mismatch", help="Take a model that was fitted with another scikit-learn."),
    ] = False,
    signature: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="YAML with the columns.  [inferred from the reference]",
            show_default=False,
        ),
    ] = None,
    candidate: Annotated[bool, typer.Option("--candidate", help="Make it the model's candidate.")] = False,
    training_data: Annotated[
        str | None, typer.Option(help="The file it was fitted on, or its digest (sha256:…).", show_default=False)
    ] = None,
    training_rows: Annotated[
        int | None, typer.Option(min=0, help="Rows of the training data.  [counted if CSV]", show_default=False)
    ] = None,
    code_revision: Annotated[
        str | None, typer.Option(help="Of the code that fitted it.  [the current git commit]", show_default=False)
    ] = None,
    parent: Annotated[
        str | None, typer.Option(help="The version that it was made from.", metavar="VERSION", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    url: Url = None,
) -> None:
    """Register a version of a model; it is immutable from then on."""
    from cli.lineage import lineage_of  # noqa: PLC0415  # see cli.connection

    lineage = lineage_of(training_data, training_rows, code_revision, parent)
    columns = None if signature is None else _text(signature)
    with connect(url) as client, shown(quiet) as display:
        found = client.register_version(
            name,
            version,
            file,
            reference,
            key=key,
            target=target,
            runtime=runtime,
            quantise_within=quantise_within,
            trust=trust,
            allow_version_mismatch=allow_version_mismatch,
            lineage=lineage,
            candidate=candidate,
            signature=columns,
            progress=display.upload,
        )
    if as_json:
        write_json(found.raw)
    elif not quiet:
        say(
            f"{found.model} {found.version} is registered ({found.runtime or found.format}, {found.digest}). "
            f"Put it into production with `scorehouse models deploy {found.model} {found.version}`"
        )


def signature(model: ModelAtVersion, as_json: Json = False, url: Url = None) -> None:
    """Write the signature of a version as YAML, to edit and to register with a new version."""
    from registry.signature_file import dump  # noqa: PLC0415  # brings along what takes long to import

    name, version = model_at_version(model)
    with connect(url) as client:
        found = client.version(name, version)
    if not found.signature:
        raise InvalidInput(f"{model} is {found.state}: it has no signature; `scorehouse models show {model}` tells why")
    if as_json:
        write_json(found.signature)
    else:
        sys.stdout.write(dump(found.signature, f"The signature of {name} {version}; see models register --signature"))


def model_at_version(told: str) -> tuple[str, str]:
    """Raises typer.BadParameter when the version is missing."""
    name, _, version = told.partition("@")
    if not version:
        raise typer.BadParameter(f"expected MODEL@VERSION, such as {name}@1.2.0", param_hint="MODEL@VERSION")
    return name, version


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"the signature {path} is not UTF-8 ({exc}); save it as UTF-8") from exc
