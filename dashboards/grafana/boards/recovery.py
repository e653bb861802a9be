"""Recovery: are the devices of a rollout coming back, and whose are not."""

from dashboards.grafana.board import Board, Row
from dashboards.grafana.panels import GREEN, ORANGE, RED, Asked, number, series, table

_STATES = {"recovered": GREEN, "looping": RED, "silent": ORANGE}
_WORDS = (
    "Recovered: crashed, heard from since, and quiet. Looping: crashed, and not quiet since. Silent: not heard from."
)

RECOVERY = Board(
    uid="cordon-recovery",
    title="Cordon / Recovery",
    about="After a stop: which of the rollout's devices are back, which crash on, and which are not heard from.",
    variables=("rollout",),
    annotations=("rollout_rings", "rollout_decisions"),
    rows=(
        Row(
            "The rollout's devices",
            (
                number("Back", Asked("recovery/latest"), field="back", unit="percentunit", width=6, about=_WORDS),
                number("Recovered", Asked("recovery/latest"), field="recovered", width=6),
                number("Looping", Asked("recovery/latest"), field="looping", steps=((1, RED),), width=6),
                number("Silent", Asked("recovery/latest"), field="silent", steps=((1, ORANGE),), width=6),
                series("Over time", Asked("recovery/over_time"), colors=_STATES, about=_WORDS),
                series("Not back, by ring", Asked("recovery/by_ring"), bars=True),
                table(
                    "By ring and tenant",
                    Asked("recovery/parts"),
                    units={"back": "percentunit"},
                    heat=("looping", "silent"),
                    about="Tenants are named by a hash here; `cordon incident` names those that reports have named.",
                ),
            ),
        ),
        Row(
            "All rollouts",
            (
                table(
                    "Rollouts with devices away",
                    Asked("recovery/rollouts"),
                    units={"back": "percentunit"},
                    links={"rollout": "/d/cordon-recovery?var-rollout=${__data.fields.rollout}&${__url_time_range}"},
                ),
            ),
        ),
    ),
    span="now-24h",
)
