"""Run scenarios at the cohort level: simulate, let Cordon's detection stage and the peers watch, and judge them.

Several processes side by side, since a scenario is one core's work. The invariant: the same task gives the same run but
for the seconds it took, whichever process it ran in.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial

import msgspec

from deploy.distributed.leash import leash
from detectors.backtest.cohort import CohortError, simulate
from detectors.backtest.expectations import judged
from detectors.backtest.peers.registry import PEERS
from detectors.backtest.scenario import Scenario
from detectors.backtest.score import CORDON, StageRun, run_cordon, run_peer
from detectors.backtest.summary import Run
from detectors.backtest.trace import Trace
from detectors.policy import Policies


class Task(msgspec.Struct, kw_only=True, frozen=True):
    """One scenario with one seed to run.

    Attributes:
        seed: instead of the scenario's.
        devices: size of the fleet instead of the scenario's; None keeps it.
        policies: what evidence is enough for what.
        peers: whether the peers judge too.
    """

    scenario: Scenario
    seed: int
    devices: int | None
    policies: Policies
    peers: bool


class Failed(msgspec.Struct, kw_only=True):
    """A scenario that could not be run; `message` says why and what to change."""

    scenario: str
    seed: int
    message: str


Work = Callable[[Task], Run | Failed]


def guarded(work: Work, task: Task) -> Run | Failed:
    """Run one task; one that breaks does not take the others' results along."""
    try:
        return work(task)
    except Exception as error:  # whatever it is, hours of other scenarios are worth keeping
        place = traceback.extract_tb(error.__traceback__)[-1]
        return failed(task, f"it broke at {place.filename}:{place.lineno}: {type(error).__name__}: {error}")


def run_cohort(task: Task) -> Run | Failed:
    """Run one task at the cohort level."""
    scenario, began = task.scenario, time.perf_counter()
    try:
        trace = simulate(scenario, devices=task.devices, seed=task.seed)
    except (CohortError, MemoryError) as error:
        return failed(task, str(error) or "not enough memory: give fewer --devices")
    simulated = time.perf_counter()
    stage, scores = run_cordon(trace, task.policies, to_end=reads_to_end(scenario))
    if stage.dead_letters:
        return failed(task, f"the detection stage refused {stage.dead_letters} records: a fault of the simulation")
    found = {CORDON: judged(scenario.truth, scores, strangers_killed(trace, stage))}
    for make in PEERS if task.peers else ():
        peer = make()
        his = run_peer(trace, peer)
        found[peer.name] = judged(scenario.truth, his)
        scores += his
    return Run(
        scenario=scenario.name,
        title=scenario.title,
        seed=task.seed,
        devices=task.devices or scenario.fleet.devices,
        level="cohort",
        truth=scenario.truth,
        scores=scores,
        judged=found,
        simulated_seconds=simulated - began,
        judged_seconds=time.perf_counter() - simulated,
    )


def failed(task: Task, message: str) -> Failed:
    """Return that a task could not be run."""
    return Failed(scenario=task.scenario.name, seed=task.seed, message=message)


def reads_to_end(scenario: Scenario) -> bool:
    """Tell whether rollouts may appear that the truth does not name, whatever comes of those that it does."""
    return any(liar.tells == "versions" for liar in scenario.liars)


def strangers_killed(trace: Trace, stage: StageRun) -> int:
    """Return how many rollouts Cordon killed that the scenario does not ship."""
    shipped = {truth.rollout for truth in trace.truths}
    return sum(one.killed_ms is not None for rollout, one in stage.decided.items() if rollout not in shipped)


def run_all(
    tasks: Sequence[Task], jobs: int, work: Work = run_cohort, done: Callable[[Task], None] | None = None
) -> Iterator[Run | Failed]:
    """Run tasks in `jobs` processes and yield what became of them, in the order of the tasks.

    A process that dies takes its pool along: what was not done by then is yielded as failed.

    Args:
        tasks: what to run.
        jobs: how many processes; one runs here.
        work: what runs a task; a function of a module, or a partial of one, so that it can be sent to a process.
        done: told of each task as soon as it is through, in whatever order that is.
    """
    if jobs == 1 or len(tasks) == 1:
        for task in tasks:
            outcome = guarded(work, task)
            if done is not None:
                done(task)
            yield outcome
        return
    with ExitStack() as stack:
        # A fresh interpreter for each: a fork would share threads of the numeric libraries. The leash ends them with
        # this process, however that ends.
        context = multiprocessing.get_context("spawn")
        pool = stack.enter_context(
            ProcessPoolExecutor(jobs, mp_context=context, initializer=leash, initargs=(os.getpid(),))
        )
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting = []
        for task in tasks:
            waiting.append(future := pool.submit(guarded, work, task))
            if done is not None:
                future.add_done_callback(partial(_tell, done, task))
        for task, future in zip(tasks, waiting, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield failed(task, "its process died, most likely for want of memory: give fewer --devices or --jobs 1")


def _tell(done: Callable[[Task], None], task: Task, future: "Future[Run | Failed]") -> None:
    if not future.cancelled():
        done(task)
