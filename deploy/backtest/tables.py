"""Backtests as tables for people, readable at 120 columns: one a scenario, and one for all.

The invariant: nothing is decided here; every word and number comes from the runs.
"""

import statistics
from collections.abc import Sequence
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from detectors.backtest.expectations import Judged
from detectors.backtest.score import CORDON, Score
from detectors.backtest.summary import Rival, Run, Total, judges_of

WIDTH = 120
# No lines between columns: they would cost a tenth of the width.
_LOOK: Final[dict[str, Any]] = {"width": WIDTH, "pad_edge": False, "box": box.SIMPLE_HEAD}
HEAD_NOTE = (
    "Held (or killed at once) and killed: after the first push. Delay: from the first harm to the first hold or kill. "
    "Crashes until then (/ until the kill): first crashes of exposed devices for cordon, reports that had arrived for "
    "peers. Lost: devices harmed that took the update before the first hold or kill, and without any."
)


def duration(seconds: float) -> str:
    """Return a span of time in its largest handy unit.

    Example:
        >>> duration(4), duration(231), duration(7_300), duration(260_000)
        ('4 s', '3.9 min', '2.0 h', '3.0 d')
        >>> duration(1_234)
        '21 min'
    """
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"


def middle(values: Sequence[float]) -> tuple[float, float]:
    """Return median and highest."""
    return statistics.median(values), max(values)


def _numbers(values: Sequence[float | None]) -> str:
    told = [value for value in values if value is not None]
    if not told:
        return "-"
    median, most = middle(told)
    return f"{median:,.0f}" if len(values) == 1 else f"{median:,.0f} ..{most:,.0f}"


def _when(scores: Sequence[Score], word: str) -> str:
    """Return when it was held or killed; over several seeds the median time, and in how many."""
    times = [
        (at_ms - one.began_ms) / 1000
        for one in scores
        if (at_ms := one.decided.held_ms if word == "hold" else one.decided.killed_ms) is not None
    ]
    if not times:
        return "-"
    often = "" if len(scores) == 1 else f" {len(times)}/{len(scores)}"
    return duration(statistics.median(times)) + often


def _verdict(scores: Sequence[Score]) -> str:
    words = [one.decided.verdict for one in scores if one.decided.verdict is not None]
    proceeded = sum(one.decided.proceeded_ms is not None for one in scores)
    often = "" if len(scores) == 1 else f" {proceeded}/{len(scores)}"
    said = "-" if not words else statistics.mode(words).value
    return f"{said}, proceed{often}" if proceeded else said


def _crashes(scores: Sequence[Score]) -> str:
    """Return the crashes by the first stop, and by the kill where that came later."""
    first = _numbers([one.decided.crashes for one in scores])
    later = [one.decided.crashes_killed for one in scores if one.decided.killed_ms not in (None, one.decided.held_ms)]
    return f"{first} / {_numbers(later)}" if later else first


def _delay(scores: Sequence[Score]) -> str:
    told = [one.delay_seconds for one in scores if one.guilty and one.delay_seconds is not None]
    return duration(statistics.median(told)) if told else "-"


def _wrong(scores: Sequence[Score]) -> Text:
    """Return what is wrong with the decision on this update, whatever the scenario expects."""
    texts = []
    for text, flags in (
        ("FALSE KILL", [one.false_kill for one in scores]),
        ("false hold", [one.false_hold and not one.false_kill for one in scores]),
        ("missed", [one.missed for one in scores]),
        (
            "late",
            [one.guilty and not one.missed and one.broad_ms > one.began_ms and not one.before_broad for one in scores],
        ),
    ):
        if any(flags):
            texts.append(text if len(flags) == 1 else f"{text} {sum(flags)}/{len(flags)}")
    return Text(", ".join(texts) or "-", style="red" if texts else "")


def _as_expected(judgements: Sequence[Judged]) -> Text:
    good = sum(not one.broken for one in judgements)
    if good == len(judgements):
        return Text("yes", style="green")
    return Text("NO" if len(judgements) == 1 else f"NO {len(judgements) - good}/{len(judgements)}", style="red")


def _named(judgements: Sequence[Judged]) -> str:
    words = [one.attribution.value for one in judgements if one.attribution is not None]
    if len(words) < 2:
        return words[0] if words else "-"
    return ", ".join(f"{word} {words.count(word)}/{len(words)}" for word in dict.fromkeys(words))


def scenario_table(runs: Sequence[Run]) -> Table:
    """Return the table of one scenario, run with one seed or several."""
    first = runs[0]
    seeds = f"seed {first.seed}" if len(runs) == 1 else f"{len(runs)} seeds from {first.seed}"
    asked = (
        first.truth.decision if not first.truth.names else f"{first.truth.decision} of {', '.join(first.truth.names)}"
    )
    table = Table(
        title=f"{first.scenario}: {first.title} ({first.devices:,} devices, {seeds}; truth: {asked})",
        title_justify="left",
        **_LOOK,
    )
    table.add_column("who", no_wrap=True)
    table.add_column("verdict", min_width=9)
    for name in ("held", "killed", "crashes", "lost", "without", "delay"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("wrong", "named", "expected"):
        table.add_column(name)
    judges = judges_of(runs)
    updates = {one.update: one.guilty for run in runs for one in run.scores}
    ordered = sorted(updates, key=lambda update: not updates[update])
    for number, update in enumerate(ordered):
        if len(ordered) > 1:
            table.add_section()
            table.add_row(Text(update.split("/", 1)[1], style="bold"), "guilty" if updates[update] else "innocent")
        for judge in judges:
            scores = [one for run in runs for one in run.of(judge) if one.update == update]
            judgements = [run.judged[judge] for run in runs if judge in run.judged]
            # What is said of a judge is said of all updates together: once is enough.
            whole = (_named(judgements), _as_expected(judgements)) if number == 0 else ("", "")
            table.add_row(judge, *_row(scores), *whole, style="bold" if judge.startswith(CORDON) else "")
    return table


def _row(scores: Sequence[Score]) -> list[str | Text]:
    return [
        _verdict(scores),
        _when(scores, "hold"),
        _when(scores, "kill"),
        _crashes(scores),
        _numbers([one.lost for one in scores]),
        _numbers([one.lost_without for one in scores]),
        _delay(scores),
        _wrong(scores),
    ]


def notes_of(runs: Sequence[Run]) -> list[str]:
    """Return Cordon's own words of each run, and what is not as the truth expects."""
    notes = []
    for run in runs:
        seed = "" if len(runs) == 1 else f"seed {run.seed}: "
        for judge in (name for name in run.judged if name.startswith(CORDON)):
            notes += [
                f"{seed}{judge} on {one.update}: {one.decided.sentence}"
                for one in run.of(judge)
                if len(runs) == 1 and one.decided.sentence
            ]
            notes += [f"{seed}NOT AS EXPECTED, {judge}: {text}" for text in run.judged[judge].broken]
        if run.counted is not None:
            notes.append(f"{seed}{run.agreement}; with nobody to stop them the pipeline's fleet lost {run.counted:,}")
    return notes


def _wrong_kills(one: Total) -> str:
    return f"{one.wrong_kills} in {len(one.wrong_kills_in)}" if one.wrong_kills else "0"


def summary_table(found: Sequence[Total], scenarios: int) -> Table:
    """Return the table of all judges over everything that was run."""
    table = Table(title=f"{scenarios} scenario{'s' if scenarios > 1 else ''}", title_justify="left", **_LOOK)
    table.add_column("who", no_wrap=True)
    for name in (
        "wrong kills", "false holds", "missed", "before last ring", "lost", "without",
        "wrongly named", "rightly named", "as expected",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            one.judge,
            Text(_wrong_kills(one), style="red" if one.wrong_kills else ""),
            f"{one.false_holds}",
            f"{one.missed} of {one.harmful}",
            f"{one.before_broad} of {one.staged}",
            f"{one.lost:,}",
            f"{one.lost_without:,}",
            f"{one.attribution_wrong} of {one.attributions}",
            f"{one.attribution_right} of {one.attributions}",
            f"{one.runs - one.unexpected} of {one.runs}",
            style="bold" if one.judge == CORDON else "",
        )
    return table


def rival_lines(found: Sequence[Rival], whole_library: bool) -> list[str]:
    """Return who loses fewer devices than Cordon, where, and what he kills wrongly."""
    where = "the library" if whole_library else "the scenarios that were run"
    clean = [one for one in found if not one.wrong_kills]
    lines = []
    for one in found:
        fewer = ", ".join(f"{name} ({his:,} < {ours:,})" for name, (his, ours) in one.fewer.items())
        wrong = (
            f"kills wrongly {one.wrong_kills} times: {', '.join(one.wrong_kills_in)}"
            if one.wrong_kills
            else f"WITHOUT a wrong kill in {where}"
        )
        lines.append(f"{one.judge} loses fewer devices than cordon in {fewer}; {wrong}")
    if not clean:
        lines.append(f"no peer loses fewer devices than cordon without a wrong kill somewhere in {where}")
    return lines


def recorded_table(update: str, head: str, scores: Sequence[Score]) -> Table:
    """Return the table of one recorded rollout: decisions only, for nobody knows the truth of it."""
    table = Table(title=f"{update}: {head}", title_justify="left", **_LOOK)
    table.add_column("who", no_wrap=True)
    table.add_column("verdict", min_width=9)
    for name in ("held", "killed", "crashes", "devices that had it by then", "all that took it"):
        table.add_column(name, justify="right")
    for one in scores:
        table.add_row(
            one.judge,
            _verdict([one]),
            _when([one], "hold"),
            _when([one], "kill"),
            _crashes([one]),
            "-" if one.decided.held_ms is None else f"{one.taken:,}",
            f"{one.taken_without:,}",
            style="bold" if one.judge == CORDON else "",
        )
    return table
