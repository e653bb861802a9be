"""How evidence is weighed under a policy, as planning asks it: between `policy.py` and the arithmetic of `soak*.py`."""

from typing import Final

import msgspec

from detectors.policy import Policy
from detectors.soak_question import Watch

# Half of the rate ratio's evidence is that of margin cells, which harm in every cell reaches later.
POOLED_SHARE: Final = 0.5


def watches(policy: Policy, tenants: int, alpha: float | None = None) -> dict[str, Watch]:
    """Return how evidence is weighed for a hold and for a kill."""
    common = Watch(
        alpha=alpha or policy.alpha_hold,
        tolerated_ratio=policy.hold_ratio,
        weight=policy.weights.rate_ratio * POOLED_SHARE,
        share_least=policy.share_least,
    )
    kill = msgspec.structs.replace(
        common,
        alpha=alpha or policy.alpha_kill,
        tolerated_ratio=policy.tolerated_ratio,
        devices_least=policy.devices_least,
        tenants=1 if policy.tenants_least == 1 else tenants,
        tenant_floor=policy.tenant_floor,
    )
    return {"hold": common, "kill": kill}
