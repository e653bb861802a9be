"""`python -m deploy.docs.figures`: draw the figures of `detectors/README.md` from seeded runs of the detectors.

With `--check`, says which of them are stale. Nothing is put in by hand but where names stand: each line is what the
code says of a scenario or of drawn crashes, and the same code draws the same bytes.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from dashboards.svg import Axis, Bar, Line, Rule, bar_chart, line_chart
from deploy.bench.detectors_safeguards import FLOOD, TENANTS, by_tenant, crossing, draw
from deploy.docs.pages import stale, write
from detectors.attribution import closed_log_evidence
from detectors.backtest.cohort import simulate
from detectors.backtest.library import load as scenario
from detectors.backtest.score import Decided, StageRun
from detectors.margins import MarginEvents, MarginRatios
from detectors.policy import load as policy
from detectors.sequential import Floats, RateRatio
from detectors.tenants import NOBODY, ROWS

FOLDER: Final = Path(__file__).parents[2] / "detectors" / "figures"
_POINTS_MOST: Final = 300
_LN10: Final = math.log(10.0)
_EVIDENCE: Final = "evidence, powers of ten"
_MINUTE_MS: Final = 60_000
_JULY_MINUTES: Final = 20.0
_TENANT_RUNS: Final = 20
_RUNS: Final = 15
_CORNER_CRASHES: Final = 900
_CORNER_MODELS: Final = 20
_CORNER_RATIO: Final = 10.0
# One believed tenant: what mixing does, without what floors do.
_NO_FLOOR: Final = 1e-9
_SHARE: Final = 0.1
_SUSPECT_CRASHES: Final = 60


class Spread(NamedTuple):
    """Median, and the 10th and 90th percentile, of many runs after each crash."""

    median: Floats
    low: Floats
    high: Floats

    @property
    def points(self) -> list[tuple[float, float]]:
        """The median as a line over crashes 1, 2, ..., of many crashes each third."""
        return [(number + 1.0, value) for number, value in enumerate(self.median.tolist())][:: self._every]

    @property
    def band(self) -> list[tuple[float, float, float]]:
        """The percentiles as a band over crashes."""
        both = zip(self.low.tolist(), self.high.tolist(), strict=True)
        return [(number + 1.0, low, high) for number, (low, high) in enumerate(both)][:: self._every]

    @property
    def _every(self) -> int:
        return 3 if len(self.median) > _POINTS_MOST else 1


def spread(runs: list[Floats]) -> Spread:
    """Return the spread of runs of equal length, natural logs in, powers of ten out."""
    low, median, high = np.percentile(np.stack(runs) / _LN10, [10, 50, 90], axis=0)
    return Spread(median, low, high)


def july_19_rings() -> str:
    """Draw the evidence in `july-19-rings` by minute since the push began, with everybody and without one group."""
    story = scenario("july-19-rings")
    trace = simulate(story, seed=story.seed)
    run, truth = StageRun(trace.partitions, policy()), trace.truths[0]
    everybody, least = [(0.0, 0.0)], [(0.0, 0.0)]
    for item in trace.feed:
        run.feed([item])
        verdict = run.latest.get(truth.rollout)
        if verdict is None or verdict.at_ms < truth.began_ms:
            continue
        minute = (verdict.at_ms - truth.began_ms) / _MINUTE_MS
        if minute > _JULY_MINUTES:
            break
        _step(everybody, minute, verdict.evidence.log10_everybody_max)
        _step(least, minute, verdict.evidence.log10_evidence_max)
    return line_chart(
        "2024-07-19 with rings: a kill asks for evidence that no one tenant group carries",
        f"Scenario july-19-rings at the level of cohorts, {story.fleet.devices:,} devices; nobody obeys the hold.",
        Axis("minutes since the push to the canary ring began", _JULY_MINUTES, range(0, 21, 2)),
        Axis(_EVIDENCE, 12.0, range(0, 13, 2)),
        [
            Line("with everybody", everybody, "a", (5.2, 8.5)),
            Line("without the loudest group", least, "b", (10.6, 4.9), dashed=True),
        ],
        [Rule(3, "a hold", 0.3), Rule(6, "a kill", 0.3), *_stops(run.decided[truth.rollout], truth.began_ms)],
    )


def _step(line: list[tuple[float, float]], at: float, value: float) -> None:
    """Go on level to `at` and then to the value: evidence stands still between two crashes."""
    line += [(at, line[-1][1]), (at, value)] if value != line[-1][1] else [(at, value)]


def _stops(decided: Decided, began_ms: int) -> list[Rule]:
    rules = []
    if decided.held_ms is not None:
        minute = (decided.held_ms - began_ms) / _MINUTE_MS
        text = f"held after {minute:.1f} minutes, {decided.crashes} crashes"
        rules.append(Rule(minute, text, 11.2, upright=True))
    if decided.killed_ms is not None:
        minute = (decided.killed_ms - began_ms) / _MINUTE_MS
        rules.append(Rule(minute, f"silence: killed after {minute:.1f} minutes", 10.2, upright=True, before=True))
    return rules


def tenants() -> str:
    """Draw crashes to a kill with few and many tenants, with and without a flood of false control crashes of one."""
    needed, terms = -math.log(policy().default.alpha_kill), policy().default
    bars: dict[int, list[Bar]] = {0: [], FLOOD: []}
    for count in TENANTS:
        for flood, row in bars.items():
            crossings = []
            for seed in range(_TENANT_RUNS):
                # Tenant 0 is the liar, who has no crashes of his own: those counted are the others'.
                others = draw(100.0, _SHARE, count - 1, seed)
                path = by_tenant(
                    others._replace(tenant=others.tenant + 1), terms.tolerated_ratio, terms.tenant_floor, flood
                )
                crossings.append(crossing(path, needed))
            low, high = np.percentile(crossings, [10, 90]).tolist()
            row.append(Bar(float(np.mean(crossings)), low, high))
    return bar_chart(
        f"A flood of {FLOOD:,} false control crashes costs the other tenants a handful of crashes",
        f"Rate ratio 100, exposed share {_SHARE}, alpha 10^-6; mean, 10th to 90th percentile of {_TENANT_RUNS} runs.",
        [f"{count} tenants, one of them lying" for count in TENANTS],
        Axis("the others' crashes until a kill", 40.0, range(0, 41, 10)),
        [("the liar says nothing", "a", bars[0]), (f"{FLOOD:,} false crashes", "b", bars[FLOOD])],
    )


def corner() -> str:
    """Draw the evidence over crashes where one model in twenty is harmed, pooled and mixed with the margins."""
    runs = [_corner_run(seed) for seed in range(_RUNS)]
    mixed, pooled = spread([one for one, _ in runs]), spread([other for _, other in runs])
    return line_chart(
        "Harm on one model in twenty: deaf if pooled, heard if margins are mixed in",
        f"Ratio {_CORNER_RATIO:g} on that model, 1 on the others, exposed share {_SHARE}; median, 10th to 90th"
        f" percentile of {_RUNS} runs.",
        Axis("crashes, all models and both arms", _CORNER_CRASHES, range(0, _CORNER_CRASHES + 1, 100)),
        Axis(_EVIDENCE, 12.0, range(-2, 13, 2), low=-3.0),
        [
            Line("all cells pooled", pooled.points, "a", (560, -2.75), dashed=True, band=pooled.band),
            Line("half of it by margin", mixed.points, "b", (330, 8.8), band=mixed.band),
        ],
        [Rule(3, "a hold", 8), Rule(6, "a kill", 8)],
    )


def _corner_run(seed: int) -> tuple[Floats, Floats]:
    """Return the log evidence after each crash, mixed and pooled, nobody left out: shape (crashes,) each."""
    rng = np.random.default_rng(seed)
    ratios = np.where(np.arange(_CORNER_MODELS) == 0, _CORNER_RATIO, 1.0)
    rates = ratios * _SHARE + 1 - _SHARE
    model = rng.choice(_CORNER_MODELS, size=_CORNER_CRASHES, p=rates / rates.sum())
    exposed = rng.random(_CORNER_CRASHES) < (ratios * _SHARE / rates)[model]
    share, group = np.full((_CORNER_CRASHES, ROWS), _SHARE), np.zeros(_CORNER_CRASHES, dtype=np.int64)
    mixed = MarginRatios(policy().default.tolerated_ratio, _NO_FLOOR, leave_out=False)
    mixed.meet(f"model={number}" for number in range(_CORNER_MODELS))
    events = [
        MarginEvents(f"model={number}", places, share[places])
        for number in range(_CORNER_MODELS)
        if len(places := np.flatnonzero(model == number))
    ]
    path = mixed.update(exposed, share, group, events)[:, NOBODY]
    pooled = RateRatio(policy().default.tolerated_ratio)
    steps = zip(exposed, share[:, NOBODY], strict=True)
    return path, np.array([pooled.update([was], [one]) for was, one in steps])


def attribution() -> str:
    """Draw the evidence against a guilty update and an innocent one on half of its devices, over crashes."""
    runs = [_suspects_run(seed) for seed in range(_RUNS * 4)]
    guilty, rider, alone = (spread([run[number] for run in runs]) for number in range(3))
    return line_chart(
        "Two updates, half of their devices in common: only the guilty one's evidence rises",
        f"Each on a tenth of the fleet, ratio 100 of the guilty; median, 10th to 90th percentile of {_RUNS * 4} runs.",
        Axis("crashes of the whole fleet", _SUSPECT_CRASHES, range(0, _SUSPECT_CRASHES + 1, 10)),
        Axis(_EVIDENCE, 14.0, range(-2, 15, 2), low=-3.0),
        [
            Line("innocent, taken alone: would be killed", alone.points, "c", (34, 8.4), dashed=True),
            Line("innocent, among devices alike in the guilty", rider.points, "a", (27, 0.9), band=rider.band),
            Line("guilty", guilty.points, "b", (8.5, 8.4), band=guilty.band),
        ],
        [Rule(3, "a hold", 0.5), Rule(6, "a kill", 0.5)],
    )


def _suspects_run(seed: int) -> tuple[Floats, Floats, Floats]:
    """Return the log evidence of the guilty and of the innocent by closed testing, and of the innocent alone."""
    rng = np.random.default_rng(seed)
    common, only = _SHARE / 2, _SHARE / 2
    # Devices on neither, the guilty only, the innocent only, both.
    parts = np.array([1 - common - 2 * only, only, only, common])
    rates = parts * np.array([1.0, 100.0, 1.0, 100.0])
    crashes = rng.choice(4, size=_SUSPECT_CRASHES, p=rates / rates.sum())
    on = np.stack([(crashes == 1) | (crashes == 3), crashes >= 2])
    beside = common / (common + only), only / (1 - common - only)
    split, alone = (RateRatio(), RateRatio()), RateRatio()
    paths = np.empty((3, _SUSPECT_CRASHES))
    for number in range(_SUSPECT_CRASHES):
        for one in range(2):
            rival = bool(on[1 - one, number])
            split[one].update([on[one, number]], [beside[0 if rival else 1]])
        paths[:2, number] = closed_log_evidence([one.log_evidence for one in split])
        paths[2, number] = alone.update([on[1, number]], [_SHARE])
    return paths[0], paths[1], paths[2]


FIGURES: Final[dict[str, Callable[[], str]]] = {
    "july-19-rings.svg": july_19_rings,
    "tenants.svg": tenants,
    "corner.svg": corner,
    "attribution.svg": attribution,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 1 when `--check` finds a stale figure."""
    parser = argparse.ArgumentParser(prog="python -m deploy.docs.figures", description="Draw the READMEs' figures.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 and name the figures that are stale"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they lie (default: detectors/figures/)")
    given = parser.parse_args(arguments)
    made = {name: draw_it() for name, draw_it in FIGURES.items()}
    found = stale(given.folder, made)
    if not given.check:
        write(given.folder, made)
        print(f"{len(made)} figures in {given.folder}, {len(found)} of them changed")
        return 0
    for name in found:
        print(f"stale: {given.folder / name}; run `make figures`", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
