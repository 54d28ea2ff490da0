"""The model versions that a worker child keeps loaded, by digest, each checked against its golden rows once."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

import logs
from db import models, profiles
from db.deployment_steps import Wanted
from db.engine import transaction
from db.models import Version
from db.profiles import Reference
from errors import ArtefactRefused, NotFound, Unavailable
from monitoring.schema import ProfileSchema
from registry import runtime
from registry.compiled.record import Compiled, Form
from registry.golden import Golden, check_golden, check_golden_within
from registry.runtime import Runtime
from registry.signature import Signature
from registry.store import ArtefactStore

_log = logs.get(__name__)

# How long a version is left alone after its artefact could not be fetched.
_AGAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Loaded:
    """A version that is ready to score: by its model, and in some lanes by a form of that which is faster."""

    version: Version
    signature: Signature
    runtime: Runtime
    schema: ProfileSchema | None
    forms: Mapping[str, Runtime] = field(default_factory=dict)

    def runtime_of(self, lane: str) -> Runtime:
        return self.forms.get(lane, self.runtime)


@dataclass(frozen=True)
class Refusal:
    """Why a version is not scored here, and until when (monotonic seconds): for ever, or until the store is tried again."""

    digest: str
    reason: str
    until: float = math.inf

    @property
    def holds(self) -> bool:
        return time.monotonic() < self.until


class Cache:
    """At most `size` versions, and those that are being deployed; the one that was used longest ago makes room.

    A version that is loaded is there for scoring while another one is being loaded. Forms of it are loaded for `lanes`.
    """

    def __init__(
        self, engine: Engine, store: ArtefactStore, folder: Path, size: int, lanes: Sequence[str] = ()
    ) -> None:
        self._engine = engine
        self._store = store
        self._folder = folder
        self._size = size
        self._lanes = frozenset(lanes)
        self._lock = threading.Lock()  # of what is held; never while a model is read
        self._loading = threading.Lock()  # one at a time
        self._loaded: OrderedDict[int, Loaded] = OrderedDict()
        self._refused: dict[int, Refusal] = {}
        self._rank: dict[int, int] = {}  # of what is wanted: 0 the most
        self._room = size
        self._absent: set[str] = set()  # providers; each is logged once

    def get(self, version_id: int) -> Loaded:
        """The version, loaded now if it is not held.

        Raises:
            ArtefactRefused: its bytes or its golden rows are not what the registry vouches for, or the artefact store
                cannot be reached; from now on, in the latter case for a while, the version is in `refused_ids`.
        """
        held = self._held(version_id)
        if held is not None:
            return held
        with self._loading:
            held = self._held(version_id)  # another thread may have been faster
            if held is not None:
                return held
            with transaction(self._engine) as connection:
                version = models.by_id(connection, version_id)
                reference = profiles.reference(connection, version_id)
            try:
                loaded = self._load(version, reference)
            except (ArtefactRefused, Unavailable) as exc:
                until = time.monotonic() + _AGAIN_SECONDS if isinstance(exc, Unavailable) else math.inf
                with self._lock:
                    self._refused[version_id] = Refusal(version.digest, str(exc), until)
                _log.error("version_refused", model=version.model, version=version.version, reason=str(exc))
                raise ArtefactRefused(str(exc)) from exc
            with self._lock:
                self._refused.pop(version_id, None)
                self._loaded[version_id] = loaded
                self._make_room()
            return loaded

    def warm(self, wanted: Wanted) -> None:
        """Load what is wanted ahead of its first chunk: production, as much as there is room for, and what is being
        deployed. What a rollback would bring back is loaded where that costs no other version its place.
        """
        production, deploying = wanted.production[: self._size], list(wanted.deploying.values())
        with self._lock:
            ranked = [*wanted.previous, *deploying, *production]  # the most important last, for one may be twice here
            ranks = [*(2 for _ in wanted.previous), *(1 for _ in deploying), *(0 for _ in production)]
            self._rank = {version.id: rank for version, rank in zip(ranked, ranks, strict=True)}
            self._room = self._size + len({version.id for version in deploying})
            self._make_room()
        for version in [*production, *deploying, *wanted.previous]:
            if self.holds(version.id) or self.refusal(version.id) is not None:
                continue
            if self._rank[version.id] == 2 and len(self._loaded) >= self._room:
                continue
            try:
                self.get(version.id)
            except ArtefactRefused:
                return  # logged, and reported by the heartbeat, which must not be late; the others have their turn

    def reconsider(self, version_id: int) -> None:
        """Forget that a version was refused: its artefact may have been mended."""
        with self._lock:
            self._refused.pop(version_id, None)

    def holds(self, version_id: int) -> bool:
        with self._lock:
            return version_id in self._loaded

    def refusal(self, version_id: int) -> str | None:
        """Why a version is refused; None: it is not, so far."""
        with self._lock:
            found = self._refused.get(version_id)
            return found.reason if found is not None and found.holds else None

    def _held(self, version_id: int) -> Loaded | None:
        with self._lock:
            if version_id in self._loaded:
                self._loaded.move_to_end(version_id)
                return self._loaded[version_id]
            refusal = self._refused.get(version_id)
            if refusal is not None and refusal.holds:
                raise ArtefactRefused(refusal.reason)
            return None

    def _make_room(self) -> None:
        """Drop what nobody wants before what a rollback wants, and that before production; never the last one used."""
        while len(self._loaded) > self._room:
            candidates = list(self._loaded)[:-1]
            del self._loaded[max(candidates, key=lambda version_id: self._rank.get(version_id, 3))]

    @property
    def digests(self) -> list[str]:
        return sorted({loaded.version.digest for loaded in list(self._loaded.values())})

    @property
    def refused_ids(self) -> list[int]:
        return [version_id for version_id, refusal in list(self._refused.items()) if refusal.holds]

    @property
    def refused(self) -> dict[str, str]:
        """Reasons by digest."""
        return {refusal.digest: refusal.reason for refusal in list(self._refused.values())}

    def _load(self, version: Version, reference: Reference | None) -> Loaded:
        signature = Signature.model_validate(version.signature)
        try:
            path = self._store.fetch(version.digest, self._folder)
            loaded = runtime.load(
                path,
                format=version.format,  # type: ignore[arg-type]  # checked when registered
                digest=version.digest,
                mismatch_allowed=version.mismatch_allowed,
            )
        except (OSError, NotFound) as exc:
            raise ArtefactRefused(f"the artefact of {version.model}@{version.version} cannot be read: {exc}") from exc
        golden = [Golden.model_validate(row) for row in version.golden or []]
        check_golden(loaded, signature, golden, (version.lineage or {}).get("examined_with"))
        schema = None if reference is None else ProfileSchema.model_validate(reference.schema)
        compiled = Compiled.model_validate(version.compiled or {"wanted": "sklearn"})
        return Loaded(version, signature, loaded, schema, self._forms(compiled, version, loaded, signature, golden))

    def _forms(
        self, compiled: Compiled, version: Version, original: Runtime, signature: Signature, golden: list[Golden]
    ) -> dict[str, Runtime]:
        """By lane. What is wrong with a form costs no more than its speed: the next one scores, and at last the original."""
        tried: dict[Form, Runtime | None] = {}
        found: dict[str, Runtime] = {}
        for lane in sorted(self._lanes):
            for form in compiled.forms(lane):
                if form not in tried:
                    tried[form] = self._form(
                        form, compiled, version, original=original, signature=signature, golden=golden
                    )
                usable = tried[form]
                if usable is not None:
                    found[lane] = usable
                    break
        return found

    def _form(
        self,
        form: Form,
        compiled: Compiled,
        version: Version,
        *,
        original: Runtime,
        signature: Signature,
        golden: list[Golden],
    ) -> Runtime | None:
        if not runtime.has_provider(form.provider):
            if form.provider not in self._absent:
                self._absent.add(str(form.provider))
                _log.warning("provider_absent", provider=form.provider)
            return None
        digest = compiled.digest_of(form, version.digest)
        try:
            content = self._store.fetch(digest, self._folder)
            found = runtime.load_form(content, form, digest, compiled=compiled, original=original, signature=signature)
            permitted = compiled.deviation_of(form)
            if permitted is None:
                check_golden(found, signature, golden)
            else:
                check_golden_within(found, signature, golden, permitted)
        except (OSError, NotFound, ArtefactRefused) as exc:
            about = {"model": version.model, "version": version.version, **form._asdict()}
            _log.error("compiled_form_refused", **about, digest=digest, reason=str(exc))
            return None
        return found
