"""The tasks: each takes a permit or a tick, calls one function, and says in its result what it did (Flower shows it)."""

from __future__ import annotations

from collections.abc import Callable

from worker import child, sweeps, trainer
from worker.app import app


def named(name: str) -> Callable[[], str]:
    """The task of that name, to be called here and now."""
    task: Callable[[], str] = app.tasks[name]
    return task


# Not told to Flower: hundreds a second would drive all others out of what it shows, and telling takes a sixth of the time.
@app.task(name="score.interactive", send_events=False)
def score_interactive() -> str:
    return child.current().drain("interactive")


@app.task(name="score.bulk")
def score_bulk() -> str:
    return child.current().drain("bulk")


@app.task(name="model.register")
def register() -> str:
    return child.current().register()


@app.task(name="deployment.run")
def deploy() -> str:
    return child.current().deploy()


@app.task(name="audit.run")
def run_audits() -> str:
    return child.current().audit()


@app.task(name="training.run")
def run_training() -> str:
    return trainer.current().run()


@app.task(name="tick.trainings")
def request_trainings() -> str:
    return sweeps.request_trainings(child.current().engine)


@app.task(name="tick.audits")
def request_audits() -> str:
    return sweeps.request_audits(child.current().engine)


@app.task(name="tick.roll_up")
def roll_up() -> str:
    return sweeps.roll_up(child.current().engine, child.current().settings)


@app.task(name="tick.kick")
def kick() -> str:
    return sweeps.kick(child.current().engine)


@app.task(name="tick.rescue")
def rescue() -> str:
    return sweeps.rescue(child.current().engine, child.current().settings)


@app.task(name="tick.sweep")
def sweep() -> str:
    return sweeps.sweep(child.current().engine)


@app.task(name="tick.housekeeping")
def housekeeping() -> str:
    return sweeps.housekeeping(child.current().engine, child.current().settings)
