"""Rollout: what this rollout does to its devices, and what is decided on which evidence."""

from dashboards.grafana.board import Board, Row
from dashboards.grafana.panels import BLUE, GREY, ORANGE, RED, SKY, Asked, number, series, states, table, word

ROLLOUT = Board(
    uid="cordon-rollout",
    title="Cordon / Rollout",
    about="One rollout: its rings, exposed devices against control, evidence against what a hold and a kill need.",
    variables=("rollout",),
    annotations=("rollout_rings", "rollout_decisions"),
    rows=(
        Row(
            "Decision",
            (
                word("Switch", Asked("rollout/state"), field="state"),
                word(
                    "Decision",
                    Asked("rollout/state"),
                    field="decision",
                    about="What a rollout system that knows nothing of scopes must do.",
                ),
                number("Evidence", Asked("rollout/latest"), field="evidence", unit="none", about="A power of ten."),
                number("Needed to kill", Asked("rollout/latest"), field="needed_to_kill", unit="none"),
                number("Exposed crashes", Asked("rollout/latest"), field="crashes_exposed", steps=((1, ORANGE),)),
                number("Control crashes", Asked("rollout/latest"), field="crashes_control"),
            ),
        ),
        Row(
            "Time line",
            (
                states("Switch", Asked("rollout/states"), width=12, height=5),
                states("Verdict", Asked("rollout/verdicts"), width=12, height=5),
                series("Push by ring", Asked("rollout/ring_times"), unit="percentunit", height=7),
                table(
                    "Rings",
                    Asked("rollout/rings"),
                    units={"push_seconds": "s", "share": "percentunit"},
                    width=12,
                    height=7,
                ),
            ),
        ),
        Row(
            "Exposed against control",
            (
                series(
                    "Evidence of harm (power of ten)",
                    Asked("rollout/evidence"),
                    unit="none",
                    colors={
                        "may_hold": SKY,
                        "may_kill": BLUE,
                        "needed_to_hold": ORANGE,
                        "needed_to_kill": RED,
                    },
                    dashed=("needed_to_hold", "needed_to_kill"),
                    about="A hold counts everybody, and methods that may not kill yet; a kill must stand without any"
                    " one tenant. Valid at any moment one looks; decisions latch at the first crossing.",
                ),
                series(
                    "Crash-rate ratio",
                    Asked("rollout/rate_ratio"),
                    unit="none",
                    log=True,
                    band=("low", "high"),
                    colors={"ratio": BLUE, "low": SKY, "high": SKY, "tolerated": GREY},
                    dashed=("tolerated",),
                    about="With few control crashes the interval is wide; the evidence knows that.",
                ),
                series("First crashes", Asked("rollout/crashes"), colors={"exposed": RED, "control": GREY}),
                series(
                    "Devices",
                    Asked("rollout/exposure"),
                    colors={"exposed": ORANGE, "at_risk_exposed": RED, "at_risk_control": GREY},
                ),
                series("Evidence by method (power of ten)", Asked("rollout/methods"), unit="none"),
                table(
                    "Signatures",
                    Asked("rollout/signatures"),
                    width=12,
                    height=8,
                    links={"signature": "/d/cordon-drivers?${__url_time_range}"},
                ),
            ),
        ),
        Row(
            "Next ring",
            (
                table(
                    "Gate",
                    Asked("rollout/gate"),
                    units={"share": "percentunit", "hours_needed": "h"},
                    about="Every cell has to pass by itself. Empty: no next ring is declared, or none has started.",
                ),
            ),
        ),
        Row(
            "Where, and who decided",
            (
                table("Crashed devices by OS build and ring", Asked("rollout/by_os_build"), heat=("devices",), width=8),
                table("Events of the switch", Asked("rollout/decisions"), widths={"sentence": 560}, width=16),
            ),
        ),
    ),
)
