"""A worker child: what one scoring process holds, and the loop that a permit, or a poll, lets it run."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import psutil

import logs
from db import chunks, models, profiles
from db.chunks import Claim
from db.engine import create_engine, transaction
from deployment import advance
from errors import ArtefactRefused, Fenced, ScorehouseError, Unavailable
from monitoring import alerting
from monitoring.audit import run_one
from registry.store import ArtefactStore
from settings import Settings
from worker import host, memory, registration, scoring
from worker.cache import Cache
from worker.giving_way import give_way
from worker.heartbeat import Heartbeat
from worker.recent import Recent
from worker.scoring import ScoredClaims

_log = logs.get(__name__)

# A child that is frozen within a finish holds the locks of its job; the others go on when the server has ended its session.
_IDLE_SECONDS = 5.0
# Below the seconds between two kicks, which ask for whatever waits.
_NO_SUSPECTS_SECONDS = 0.5
# Of a claim or a finish, at the least.
_STATEMENT_SECONDS = 10.0


class Child:
    """One process that claims, scores and finishes; it has its own connections and its own loaded versions."""

    def __init__(self, settings: Settings, lanes: tuple[str, ...], *, polls: bool = False) -> None:
        self.settings = settings
        self._want = _nobody if polls else _want
        self.owner = host.owner(os.getpid(), psutil.Process().create_time())
        url, name = settings.resolved_database_url(), f"worker {'+'.join(lanes)} {os.getpid()}"
        self.engine = create_engine(url, name=name, pool_size=2, idle_timeout=_IDLE_SECONDS)  # a task, the heartbeat
        # Claiming, finishing. What takes longer than the lease is of no use any more, and holds up who has it next.
        self._queue = create_engine(
            url,
            name=name,
            pool_size=2,
            idle_timeout=_IDLE_SECONDS,
            statement_timeout=max(settings.lease_seconds, _STATEMENT_SECONDS),
        )
        self.store = ArtefactStore(settings.resolved_artefact_url())
        self.cache = Cache(
            self.engine, self.store, Path(settings.data_dir) / "cache", settings.worker_cache_versions, lanes
        )
        self._recent = Recent(settings.recent_answers)
        self.heartbeat = Heartbeat(
            self.engine,
            self.cache,
            settings,
            owner=self.owner,
            lanes=lanes,
            on_beat=self._on_beat,
            listens=not polls,
        )
        self._postponed: SimpleQueue[list[Claim]] = SimpleQueue()
        self._finisher = ThreadPoolExecutor(1, "finish")
        self._suspects_next = False
        self._no_suspects_until: dict[str, float] = {}

    def dispose(self) -> None:
        """Let go of the connections."""
        self.engine.dispose()
        self._queue.dispose()

    def drain(self, lane: str) -> str:
        """Claim and score chunks of a lane until there are none or the permit's time is over; says which.

        While one claim is being finished, which is the database's work, the next one is scored.
        """
        deadline = time.monotonic() + self.settings.drain_seconds
        names: list[str] = []
        finishing: Future[None] | None = None
        try:
            while time.monotonic() < deadline:
                suspects, claims = self._next(lane)
                if not claims:
                    break
                self.heartbeat.claimed()
                if suspects and finishing is not None:
                    finishing.result()  # what may kill this process is scored when nothing else is in its hands
                scored = self._score(claims)
                if finishing is not None:
                    finishing.result()
                finishing = self._finisher.submit(self._finish, scored)
                names += [outcome.claim.name for each in scored for outcome in each.outcomes]
            else:
                self._pass_on(lane)
        except MemoryError:
            # A process that has no memory left scores nothing any more. Its claims are rescued, and its place is taken.
            _log.exception("out_of_memory", limit_mib=memory.limit_mib(self.settings))
            os._exit(1)
        finally:
            if finishing is not None:
                finishing.result()
        return _told(names)

    def register(self) -> str:
        """Examine one version that was uploaded, if one waits."""
        with transaction(self.engine) as connection:
            version = models.claim_registration(connection)
        if version is None:
            return "nothing to register"
        name = f"{version.model}@{version.version}"
        try:
            examined = registration.examine_version(version, self.store, Path(self.settings.data_dir) / "cache")
        except Unavailable as exc:
            with transaction(self.engine) as connection:
                models.postpone_registration(connection, version.id)
            _log.warning("registration_postponed", model=version.model, version=version.version, reason=str(exc))
            return f"{name}: postponed"
        except Exception as exc:  # a model may raise anything
            reason = registration.reason(exc)
            with transaction(self.engine) as connection:
                models.fail_registration(connection, version.id, reason)
            foreseen = isinstance(exc, ScorehouseError)
            about = {"model": version.model, "version": version.version, "reason": reason}
            _log.warning("registration_failed", **about, exc_info=not foreseen)
            return f"{name}: failed"
        with transaction(self.engine) as connection:
            registration.complete(connection, version.id, examined)
        _log.info("registered", model=version.model, version=version.version, digest=version.digest)
        return f"{name}: registered"

    def audit(self) -> str:
        """Run the audits that are due, one after the other, for as long as a permit is good for."""
        deadline = time.monotonic() + self.settings.drain_seconds
        done: list[str] = []
        while time.monotonic() < deadline:
            found = run_one(self.engine, self.store, Path(self.settings.data_dir) / "cache")
            if found is None:
                break
            done.append(found)
        alerting.deliver(self.engine, self.settings)
        return "; ".join(done) or "no audit is due"

    def deploy(self) -> str:
        """Take a deployment further, if one is under way, for as long as a permit is good for."""
        worker = advance.Worker(self.engine, self.settings, self.owner, self.cache.get, self._want)
        # One piece of a replay takes a fraction of what a chunk may: a version that never answers ends here.
        _kill_me_after(self.settings.drain_seconds + self.settings.chunk_time_limit)
        try:
            return advance.run_one(worker) or "nothing is being deployed"
        finally:
            _kill_me_after(0)

    def _next(self, lane: str) -> tuple[bool, list[Claim]]:
        """Whether they are suspects, and the claims.

        Others and suspects take turns: neither can keep the other waiting, and a single is claimed by the first query. Of
        suspects there are few; when there were none, nobody looks for them for a moment.
        """
        first = self._suspects_next
        for suspects in (first, not first):
            if suspects and time.monotonic() < self._no_suspects_until.get(lane, 0.0):
                continue
            claims = self._claim(lane, suspects=suspects)
            if claims:
                self._suspects_next = not suspects
                return suspects, claims
            if suspects:
                self._no_suspects_until[lane] = time.monotonic() + _NO_SUSPECTS_SECONDS
        self._suspects_next = False
        return False, []

    def _claim(self, lane: str, *, suspects: bool) -> list[Claim]:
        count = self.settings.singles_per_claim if lane == "interactive" and not suspects else 1
        return chunks.claim(
            self._queue,
            lane=lane,
            count=count,
            owner=self.owner,
            lease_seconds=self.settings.lease_seconds,
            refused=self.cache.refused_ids,
            suspects=suspects,
        )

    def _score(self, claims: list[Claim]) -> list[ScoredClaims]:
        """Score claims, at most some hundreds of singles or one chunk, within the time limit."""
        _kill_me_after(self.settings.chunk_time_limit)
        try:
            return [scored for group in scoring.groups(claims) if (scored := self._score_group(group)) is not None]
        except Unavailable as exc:
            self._postpone(claims, exc)
            return []
        except Exception:
            chunks.give_up(self._queue, claims)
            raise
        finally:
            _kill_me_after(0)

    def _score_group(self, claims: list[Claim]) -> ScoredClaims | None:
        try:
            loaded = self.cache.get(claims[0].version_id)
        except ArtefactRefused:
            chunks.release(self._queue, claims)  # to a worker that can; this one claims no more of the version
            return None
        scored = scoring.score(claims, loaded, self.settings, self._recent)
        raised = any(error.code == "model_error" for outcome in scored.outcomes for error in outcome.errors)
        if raised and memory.is_spent(self.settings):
            raise MemoryError(
                "rows may have failed because earlier ones left no memory: they are scored by another process"
            )
        return scored

    def _finish(self, work: list[ScoredClaims]) -> None:
        for scored in work:
            claims = [outcome.claim for outcome in scored.outcomes]
            try:
                self._finish_group(scored, claims)
            except Unavailable as exc:
                self._postpone(claims, exc)
            except Exception:
                chunks.give_up(self._queue, claims)
                raise

    def _finish_group(self, scored: ScoredClaims, claims: list[Claim]) -> None:
        try:
            chunks.finish(self._queue, scored.outcomes, scored.predicted, scored.counted)
        except Fenced as exc:
            _log.warning("fenced", chunks=[claim.name for claim in claims][:10], reason=str(exc))
            if len(claims) > 1:  # one of many was canceled: the others are still ours
                for claim in claims:
                    self._finish_alone(claim)

    def _postpone(self, claims: list[Claim], exc: Unavailable) -> None:
        _log.warning("finish_postponed", chunks=[claim.name for claim in claims][:10], reason=str(exc))
        self._postponed.put(claims)
        self.release_postponed()

    def _on_beat(self) -> None:
        self.release_postponed()
        counted = {name: count for name, count in self._recent.counted().items() if count}
        if counted:
            with transaction(self.engine) as connection:
                for name, count in counted.items():
                    profiles.count_event(connection, name, count)

    def release_postponed(self) -> None:
        """Give back what could not be finished because the database was away: its absence is no crash of a chunk.

        Raises:
            Unavailable: it still is; the next heartbeat tries again.
        """
        while not self._postponed.empty():
            claims = self._postponed.get()
            try:
                chunks.release(self._queue, claims)
            except Unavailable:
                self._postponed.put(claims)
                raise

    def _finish_alone(self, claim: Claim) -> None:
        scored = scoring.score([claim], self.cache.get(claim.version_id), self.settings)
        try:
            chunks.finish(self._queue, scored.outcomes, scored.predicted, scored.counted)
        except Fenced:
            _log.info("fenced", chunks=[claim.name])

    def _pass_on(self, lane: str) -> None:
        """The time is over and there may be more work: hand a permit to whoever is next, for fairness between queues."""
        self._want(lane)


def _want(kind: str) -> None:
    """Ask for a permit."""
    from permits import publisher  # noqa: PLC0415 - Celery's publishing side, only where it is needed

    publisher().want(kind)


def _nobody(_: str) -> None:
    """Whoever polls needs no permit."""


def _told(names: list[str]) -> str:
    if len(names) <= 5:
        return f"scored {', '.join(names)}" if names else "nothing to claim"
    return f"scored {len(names)} chunks: {', '.join(names[:5])} …"


def _kill_me_after(seconds: float) -> None:
    """Let the kernel end this process after `seconds`, even inside C code that never returns; 0 calls it off.

    The rescuer then takes the chunk back; the pool starts another child.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


_child: Child | None = None


def start(settings: Settings, lanes: tuple[str, ...], *, polls: bool = False) -> Child:
    """Called in each child after the fork."""
    global _child  # noqa: PLW0603 - one per process, set once by Celery's start signal
    if lanes == ("bulk",):
        give_way(settings.bulk_niceness)  # singles, API and Postgres come first on a busy machine
    memory.bound(settings)
    _child = Child(settings, lanes, polls=polls)
    _child.heartbeat.start()
    return _child


def stop() -> None:
    if _child is not None:
        _child.heartbeat.stop()
        _child.dispose()


def current() -> Child:
    assert _child is not None, "only in a worker child"
    return _child
