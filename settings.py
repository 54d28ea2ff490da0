"""All settings, read once at start-up from `SCOREHOUSE_*` variables, `.env`, and the secrets of a container.

`docs/reference/settings.md` documents each of them; a test compares the two.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

import client_settings

MIB = 1024 * 1024

# What a tenant may use of something.
Quota = Annotated[int, Field(ge=0)] | Literal["unlimited"]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=client_settings.PREFIX, env_file=client_settings.ENV_FILE, extra="ignore", frozen=True
    )

    data_dir: Path = Field(
        client_settings.DATA_DIR, description="secrets, artefacts and, when embedded, the servers' data"
    )
    database_url: str | None = Field(None, description="SQLAlchemy URL of Postgres; unset: the embedded one")
    database_owner_url: str | None = Field(
        None,
        description="the same of the owner of the tables, for `scorehouse db upgrade`; unset: that of DATABASE_URL",
    )
    broker_url: str | None = Field(
        None, description="Celery broker URL, redis://… or amqp://…; unset: the embedded Valkey"
    )
    artefact_url: str | None = Field(
        None, description="artefact store: a folder, file:///… or s3://bucket/prefix; unset: DATA_DIR/artefacts"
    )

    # two stacks beside each other
    stack_name: str | None = Field(
        None,
        pattern=r"^[a-z0-9]+$",
        description="stack that the process belongs to, such as blue or green; a part of its release",
    )
    stacks_file: Path = Field(Path("stacks.yml"), description="what `scorehouse stacks` switches between")

    # api
    api_host: str = Field("127.0.0.1", description="address that the API listens on")
    api_port: int = Field(8000, description="port of the API")
    api_workers: int = Field(2, ge=1, description="gunicorn worker processes")
    api_threads: int = Field(
        64, ge=2, description="threads per gunicorn worker; half of them may wait for jobs at a time"
    )
    api_url: str | None = Field(None, description="where clients find the API; unset: what `scorehouse up` wrote down")
    token: SecretStr | None = Field(None, description="bearer token of clients; unset: DATA_DIR/admin.token")
    jwt_key_file: Path | None = Field(None, description="file with the signing keys; unset: DATA_DIR/jwt.key")
    max_token_days: float = Field(366.0, gt=0, description="longest life of a token that is made here")
    jwks_file: Path | None = Field(None, description="public keys of an outside issuer of tokens (JWKS); unset: none")
    jwks_issuer: str | None = Field(None, description="`iss` of the outside issuer's tokens")
    jwks_audience: str | None = Field(None, description="`aud` of the outside issuer's tokens")
    jwks_tenants: str | None = Field(
        None, description="tenants that the outside issuer may name, separated by commas; unset: any"
    )
    flower_host: str = Field("127.0.0.1", description="address that Flower listens on")
    flower_port: int = Field(5555, description="port of Flower")
    flower_password_file: Path | None = Field(None, description="file with Flower's password; unset: in DATA_DIR")
    flower_read_only: bool = Field(
        True,
        description="whether Flower only shows, and workers only answer; else it, and all who reach the broker, can stop "
        "workers, send tasks …",
    )
    cors_origins: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.:\[\]-]+( *, *https?://[A-Za-z0-9.:\[\]-]+)*$",
        description="origins whose pages may use the API from a browser, separated by commas; unset: none may",
    )
    default_model: str | None = Field(None, description="model of /predict when ?model= is absent; unset: the only one")

    # bounds of what is accepted
    max_upload_bytes: int = Field(20 * 1024 * MIB, ge=1, description="bytes of one upload, decompressed")
    max_json_bytes: int = Field(16 * MIB, ge=1, description="bytes of one JSON body")
    max_json_records: int = Field(10_000, ge=1, description="records in one JSON body")
    max_record_bytes: int = Field(MIB, ge=1, description="bytes of one record")
    max_cell_chars: int = Field(65_536, ge=1, description="characters of one cell")
    max_columns: int = Field(2_000, ge=1, description="columns of one file")
    max_artefact_bytes: int = Field(4 * 1024 * MIB, ge=1, description="bytes of one model artefact")
    max_reference_bytes: int = Field(256 * MIB, ge=1, description="bytes of a reference, which a worker reads whole")
    head_seconds: float = Field(15.0, gt=0, description="time within which the head of a request must be there")
    stall_seconds: float = Field(
        30.0, ge=1, description="how long, in all, a client may fall behind the slowest pace within one request"
    )
    min_bytes_per_second: int = Field(1024, ge=1, description="slowest pace of a body that is sent or read")
    max_inflation: int = Field(200, ge=1, description="decompressed bytes per compressed byte, past the first 16 MiB")

    # what each tenant may use, unless `scorehouse quota set` says otherwise
    quota_rows_per_day: Quota = Field(100_000_000, description="rows submitted on one day (UTC)")
    quota_bytes_stored: Quota = Field(100 * 1024 * MIB, description="bytes of inputs, compressed, and of artefacts")
    quota_jobs_open: Quota = Field(100_000, description="jobs that are not over")
    quota_uploads_at_once: Quota = Field(32, description="files that are being received")
    quota_requests_per_second: Quota = Field(1_000, description="requests per second, in the long run")
    quota_burst: Quota = Field(2_000, description="requests at once, after a pause")
    failed_authentications_per_minute: int = Field(
        60, ge=1, description="requests without a valid token from one address, before they are answered 429"
    )
    trusted_proxies: int = Field(0, ge=0, description="proxies in front whose X-Forwarded-For is believed")

    # work
    chunk_bytes: int = Field(2 * MIB, ge=1, description="bytes of a full-size chunk, before compression")
    interactive_rows: int = Field(64, ge=1, description="JSON jobs of at most this many rows take the interactive lane")
    lease_seconds: int = Field(
        30, ge=2, description="how long a claim is good for; also the recovery time after a kill"
    )
    chunk_time_limit: float = Field(25.0, gt=0, description="seconds a chunk may take before its worker child is ended")
    drain_seconds: float = Field(2.0, gt=0, description="how long one permit keeps its worker child claiming")
    singles_per_claim: int = Field(256, ge=1, description="interactive chunks scored in one predict call")
    recent_answers: int = Field(
        10_000, ge=0, description="latest answers to single records that a worker child keeps; 0: none"
    )
    worker_cache_versions: int = Field(4, ge=1, description="model versions that a worker child keeps loaded")
    worker_memory_mib: int | None = Field(
        None,
        ge=256,
        description="MiB of data that a scoring child may reserve; more is refused to it, and a row that asks for more "
        "becomes a row error. Not set: half of the machine's or the container's memory, at least 2,048",
    )
    worker_concurrency: int = Field(2, ge=1, description="children of one `scorehouse worker`")
    worker_tasks_per_child: int | None = Field(
        None, ge=1, description="permits after which a child is replaced by a new one; unset: never"
    )
    bulk_niceness: int = Field(10, ge=0, le=19, description="nice level of children that serve only the bulk lane")
    training_niceness: int = Field(15, ge=0, le=19, description="nice level of children of the lane `training`")
    kick_seconds: float = Field(1.0, gt=0, description="beat's interval for permits and rescues")
    poll_seconds: float = Field(
        0.2, gt=0, le=60, description="how often a child of `scorehouse worker --poll` looks for work"
    )
    deploy_timeout_seconds: float = Field(
        120.0, gt=0, description="how long a deployment may stand still before it has failed"
    )
    poison_attempts: int = Field(3, ge=1, description="crashes after which a single row becomes a row error")
    deaf_seconds: float = Field(30.0, gt=0, description="a worker that claims nothing this long beside work exits")
    retention_days: int = Field(90, ge=1, description="age at which jobs, inputs, predictions and labels are removed")
    payload_retention_days: int | None = Field(
        None, ge=1, description="age at which inputs are removed; unset: with their jobs"
    )
    trail_days: int = Field(
        400,
        ge=30,
        description="age at which entries of the audit trail, trainings and transitions of alerts are removed",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="level of the logs")
    log_format: Literal["json", "console"] = Field("json", description="structured JSON lines or text for people")

    # audits
    alert_webhook_url: SecretStr | None = Field(None, description="where alerts are posted as JSON; unset: nowhere")
    alert_webhook_secret: SecretStr | None = Field(None, description="key of the signature of what is posted")
    smtp_host: str | None = Field(None, description="mail server that alerts are sent through; unset: none are")
    smtp_port: int = Field(587, ge=1, le=65_535, description="port of the mail server")
    smtp_starttls: bool = Field(True, description="whether to insist on TLS (STARTTLS) with the mail server")
    smtp_user: str | None = Field(None, description="user at the mail server; unset: no login")
    smtp_password: SecretStr | None = Field(None, description="password at the mail server")
    alert_email_from: str | None = Field(None, description="sender of the mails about alerts")
    alert_email_to: str | None = Field(None, description="who gets them: addresses, separated by commas")

    @property
    def release(self) -> str:
        """What runs here and in which stack, for example `0.2.0+green`."""
        name = "" if self.stack_name is None else f"+{self.stack_name}"
        return version("scorehouse") + name

    @property
    def allowed_origins(self) -> list[str]:
        return [] if self.cors_origins is None else [each.strip() for each in self.cors_origins.split(",")]

    def file_of_stack(self, name: str) -> Path:
        """A file or folder that two stacks with one data folder must not share."""
        return self.data_dir / (name if self.stack_name is None else f"{name}-{self.stack_name}")

    @property
    def stack_file(self) -> Path:
        return client_settings.stack_file(self.data_dir)

    def running_stack(self) -> dict[str, str | int]:
        return client_settings.running_stack(self.data_dir)

    def resolved_database_url(self) -> str:
        """The URL to connect to.

        Raises:
            LookupError: none is set and no stack was started from this data folder.
        """
        return self._resolved("database_url")

    def resolved_database_owner_url(self) -> str:
        """Like `resolved_database_url`, of who owns the tables and may change them."""
        owner = self.database_owner_url or (
            None if self.database_url else self.running_stack().get("database_owner_url")
        )
        return str(owner or self.resolved_database_url())

    def resolved_broker_url(self) -> str:
        """Like `resolved_database_url`, of the broker."""
        return self._resolved("broker_url")

    def resolved_artefact_url(self) -> str:
        return self.artefact_url or (self.data_dir.resolve() / "artefacts").as_uri()

    def resolved_jwt_key_file(self) -> Path:
        return self.jwt_key_file or self.data_dir / "jwt.key"

    def _resolved(self, name: str) -> str:
        url = getattr(self, name) or self.running_stack().get(name)
        if not url:
            raise LookupError(
                f"SCOREHOUSE_{name.upper()} is not set and no stack runs from {self.data_dir}: "
                "set it, or start one with `scorehouse up`"
            )
        return str(url)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings; tests that change the environment call `get_settings.cache_clear()`."""
    # A folder that is not there would be warned of.
    secrets = client_settings.SECRETS
    return Settings(_secrets_dir=secrets if secrets.is_dir() else None)
