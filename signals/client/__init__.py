"""The subscriber's side: connect, verify, order, resume; and ask whether a rollout may go on.

```python
from pathlib import Path
from signals.client import KillSwitchClient, PublicKeys

keys = PublicKeys.parse(Path("cordon-keys.json").read_bytes())
with KillSwitchClient("http://cordon:8401", keys, token=token, rollout=rollout, state="cordon.state") as client:
    client.follow()
    for ring in ("canary", "early", "broad"):
        while not client.decision(rollout, ring=ring).proceed:
            client.wait(5)
        push(ring)
```
"""

from signals.client.aio import AsyncKillSwitchClient
from signals.client.client import KillSwitchClient
from signals.client.errors import ClientError, RefusedError, StateError, UnknownPartError, UnknownRolloutError
from signals.events import Lease, Switch
from signals.killswitch.effective import Effective
from signals.killswitch.signing import PublicKeys, SwitchError

__all__ = [
    "AsyncKillSwitchClient",
    "ClientError",
    "Effective",
    "KillSwitchClient",
    "Lease",
    "PublicKeys",
    "RefusedError",
    "StateError",
    "Switch",
    "SwitchError",
    "UnknownPartError",
    "UnknownRolloutError",
]
