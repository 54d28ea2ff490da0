"""What to switch between: the stacks, nginx in front of them, and the records that a stack must score first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from errors import InvalidInput, Problem

Name = Literal["blue", "green"]
NAMES: tuple[Name, ...] = ("blue", "green")


def _of_a_stack(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.port is None or parts.path.strip("/"):
        raise ValueError("must be http://HOST:PORT: nginx talks to the API without TLS")
    return url.rstrip("/")


def _of_the_front(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("must be the http or https URL where clients find nginx")
    return url.rstrip("/")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stacks(_Part):
    """The API of each stack."""

    blue: Annotated[str, AfterValidator(_of_a_stack)]
    green: Annotated[str, AfterValidator(_of_a_stack)]


class Validation(_Part):
    """A record that a stack must score, and perhaps with which outcome."""

    model: str
    record: dict[str, Any]
    prediction: bool | int | float | str | None = None
    probability: list[float] | None = None


class Config(_Part):
    """The stacks file."""

    stacks: Stacks
    front: Annotated[str, AfterValidator(_of_the_front)]
    include: Path
    nginx: str = "nginx"
    pid_file: Path = Path("/run/nginx.pid")
    ready_seconds: float = Field(60.0, ge=0)
    validations: list[Validation] = Field(default_factory=list)

    def url_of(self, name: Name) -> str:
        return str(getattr(self.stacks, name))

    def address_of(self, name: Name) -> str:
        """Host and port, as nginx wants them."""
        return urlsplit(self.url_of(name)).netloc

    @property
    def history(self) -> Path:
        return self.include.with_name("history.jsonl")

    @property
    def lock(self) -> Path:
        return self.include.with_name("switch.lock")


def load(file: Path) -> Config:
    """Read a stacks file; relative paths in it count from its folder.

    Raises:
        InvalidInput: it is not there, or something in it cannot be; names each place.
    """
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as exc:
        raise InvalidInput(
            f"the stacks file {file} cannot be read ({exc.strerror}): write one as deployment/nginx/stacks.yml shows, and "
            "name it with --file or SCOREHOUSE_STACKS_FILE"
        ) from exc
    except yaml.YAMLError as exc:
        raise InvalidInput(f"{file} is no YAML: {exc}") from exc
    try:
        config = Config.model_validate(content)
    except ValidationError as exc:
        problems = [Problem(each["msg"], "#/" + "/".join(map(str, each["loc"]))) for each in exc.errors()]
        told = "".join(f"\n  - {problem.pointer.removeprefix('#/')}: {problem.detail}" for problem in problems)
        raise InvalidInput(f"{file} is wrong:{told}", problems) from exc
    if config.address_of("blue") == config.address_of("green"):
        raise InvalidInput(f"{file}: blue and green have the same URL; give each stack a port of its own")
    return config.model_copy(update={"include": file.absolute().parent / config.include})
