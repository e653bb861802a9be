"""Pushes declared by list: the rollout system names the devices slice by slice of time, a little ahead of the push."""

from typing import Final

import numpy as np

from detectors.backtest.cohort.uptime import NEVER
from detectors.backtest.draws import Ints
from detectors.backtest.scenario import Scenario

# As many lists as one declaration may hold.
PUSHES_MAX: Final = 64


def listed_ms(scenario: Scenario, assigned_ms: Ints) -> Ints:
    """Return from when on each device counts as pushed to, `NEVER` for the others; shape (devices,).

    As in `declare`: lists by tenant and slice, a device counting from its slice's first moment on.
    """
    members = np.flatnonzero(assigned_ms < NEVER)
    members = members[np.argsort(assigned_ms[members], kind="stable")]
    listed = np.full(len(assigned_ms), NEVER, dtype=np.int64)
    for part in np.array_split(members, max(1, PUSHES_MAX // len(scenario.fleet.tenants))):
        if len(part):
            listed[part] = assigned_ms[part[0]]
    return listed
