"""The subscriber's side: connect, verify, order, resume.

```python
from signals.client import KillSwitchClient, PublicKeys

keys = PublicKeys.parse(open("cordon-keys.json", "rb").read())
with KillSwitchClient("http://cordon:8401", keys, token=token) as client:
    for switch in client.events():
        if not switch.dry_run and switch.decision in ("hold", "kill"):
            stop(switch.rollout, switch.sentence)
```
"""

from signals.client.client import ClientError, KillSwitchClient, RefusedError
from signals.events import Switch
from signals.killswitch.signing import PublicKeys, SwitchError

__all__ = ["ClientError", "KillSwitchClient", "PublicKeys", "RefusedError", "Switch", "SwitchError"]
