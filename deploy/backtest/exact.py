"""Run a scenario through the whole pipeline, and beside it at the cohort level, so that both decisions can be compared.

An embedded Cordon in a temporary folder is sent every report over HTTP; its signed kill-switch events are decisions.
Nobody obeys them: a hold that stops the push would keep a kill from ever having its evidence, and at the cohort level
nothing is stopped either. The invariant: both are scored against the same truth, that of the cohort level, whose
devices are the same ones.
"""

import importlib
import tempfile
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from deploy.backtest.cohort_run import Failed, Task, failed, reads_to_end, strangers_killed
from deploy.replay.client import ReplayError
from deploy.replay.remote import connected
from deploy.replay.result import ReplayResult
from deploy.replay.rollout_system import RolloutSystem
from detectors.backtest.checks import cohort_only
from detectors.backtest.cohort import CohortError, simulate
from detectors.backtest.expectations import judged
from detectors.backtest.fleet import Fleet
from detectors.backtest.scenario import Scenario
from detectors.backtest.score import CORDON, Decided, run_cordon, score
from detectors.backtest.summary import Run
from detectors.backtest.trace import Trace
from detectors.verdict import DecisionWord, VerdictWord
from ingest.rollouts import rollout_id
from ingest.settings import Settings
from signals.client import PublicKeys
from signals.events import Switch, SwitchState

EXACT: Final = "cordon (exact)"
LANE: Final = "backtest"
ROLES: Final = ("report", "rollout", "drive", "operator")


class Follower(RolloutSystem):
    """A rollout system that obeys nothing and notes what was decided about each rollout.

    Attributes:
        decided: by rollout, those that the fleet does not ship included.
    """

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet, obeys=False)
        self.decided: dict[str, Decided] = {}

    def take(self, switch: Switch) -> None:
        """Take one event in and note it."""
        super().take(switch)
        note(self.decided.setdefault(switch.rollout, Decided()), switch)


def note(decided: Decided, switch: Switch) -> None:
    """Note one kill-switch event; the first of its kind counts, as the first verdict does at the cohort level."""
    crashes = None if switch.evidence is None else switch.evidence.crashes_exposed
    killed = switch.state is SwitchState.KILLED
    if switch.decision is DecisionWord.PROCEED and decided.proceeded_ms is None:
        decided.proceeded_ms = switch.watermark_ms
    if (killed or switch.state is SwitchState.HELD) and decided.held_ms is None:
        decided.held_ms, decided.crashes, decided.sentence = switch.watermark_ms, crashes, switch.sentence
        decided.verdict = VerdictWord.REGRESSED if killed else VerdictWord.WATCHING
    if killed and decided.killed_ms is None:
        decided.killed_ms, decided.crashes_killed, decided.sentence = switch.watermark_ms, crashes, switch.sentence
        decided.verdict = VerdictWord.REGRESSED
    if decided.held_ms is None:
        decided.sentence = switch.sentence


def refusal(scenario: Scenario) -> str:
    """Return why a scenario cannot go through the pipeline; empty where it can."""
    found = cohort_only(scenario)
    if not found:
        return ""
    return f"only the cohort level knows {', '.join(found)}; leave --exact out"


def run_exact(task: Task, policy_file: str) -> Run | Failed:
    """Run one task through an embedded Cordon, and beside it at the cohort level.

    Args:
        task: what to run; peers do not judge it.
        policy_file: path of the policy that the embedded Cordon is to use; empty for the built-in one.
    """
    scenario, began = msgspec.structs.replace(task.scenario, seed=task.seed), time.perf_counter()
    why_not = refusal(scenario)
    if why_not:
        return failed(task, why_not)
    try:
        trace = simulate(scenario, devices=task.devices)
        stage, scores = run_cordon(trace, task.policies, to_end=reads_to_end(scenario))
        simulated = time.perf_counter()
        follower, result = _replayed(scenario, task.devices, policy_file)
    except (CohortError, ReplayError) as error:
        return failed(task, str(error))
    found = {CORDON: judged(scenario.truth, scores, strangers_killed(trace, stage))}
    exact = [
        score(trace, truth, EXACT, _of(follower.decided, truth.vendor, truth.product, truth.version))
        for truth in trace.truths
    ]
    found[EXACT] = judged(scenario.truth, exact, _strangers(trace, follower.decided))
    run = Run(
        scenario=scenario.name,
        title=scenario.title,
        seed=task.seed,
        devices=result.devices,
        level="exact",
        truth=scenario.truth,
        scores=scores + exact,
        judged=found,
        counted=result.lost,
        simulated_seconds=simulated - began,
        judged_seconds=time.perf_counter() - simulated,
    )
    run.agree, run.agreement = agreement(run)
    return run


def agreement(run: Run) -> tuple[bool, str]:
    """Return whether the pipeline decides as the cohort level does, and in a sentence how far apart in event time."""
    parts, same = [], True
    for cohort, exact in zip(run.of(CORDON), run.of(EXACT), strict=True):
        ours, theirs = cohort.decided, exact.decided
        words = [_word(ours), _word(theirs)]
        same &= words[0] == words[1]
        if ours.held_ms is not None and theirs.held_ms is not None:
            apart = (theirs.held_ms - ours.held_ms) / 1000
            parts.append(f"{exact.update}: {' / '.join(words)}, the pipeline's first stop {apart:+.0f} s")
        else:
            parts.append(f"{exact.update}: {' / '.join(words)}")
    return same, f"cohort level / pipeline {'agree' if same else 'DIFFER'}: {'; '.join(parts)}"


def _word(decided: Decided) -> str:
    if decided.killed_ms is not None:
        return "kill"
    return "hold" if decided.held_ms is not None else "no stop"


def _of(decided: Mapping[str, Decided], vendor: str, product: str, version: str) -> Decided:
    return decided.get(rollout_id(vendor, product, version), Decided())


def _strangers(trace: Trace, decided: Mapping[str, Decided]) -> int:
    shipped = {rollout_id(truth.vendor, truth.product, truth.version) for truth in trace.truths}
    return sum(one.killed_ms is not None for rollout, one in decided.items() if rollout not in shipped)


def _replayed(scenario: Scenario, devices: int | None, policy_file: str) -> tuple[Follower, ReplayResult]:
    # Imported when needed: the embedded Cordon brings ClickHouse along, which the cohort level does not want.
    running = importlib.import_module("deploy.embedded").running
    with tempfile.TemporaryDirectory(prefix="cordon-backtest-") as folder:
        settings = Settings(
            data_dir=folder,
            lane=LANE,
            policy_file=policy_file,
            # One sender that waits for each answer gains nothing from lingering.
            linger_ms=0,
            reports_port=0,
            streams_port=0,
            query_port=0,
        )
        with (
            running(settings) as cordon,
            connected(
                scenario,
                reports_url=cordon.reports_url,
                streams_url=cordon.streams_url,
                token=cordon.token(*ROLES),
                lane=LANE,
                keys=PublicKeys.parse(cordon.public_key_path().read_bytes()),
                devices=devices,
                kill_switch=False,
            ) as replay,
        ):
            follower = Follower(replay.fleet)
            replay.system = follower
            return follower, replay.run()
