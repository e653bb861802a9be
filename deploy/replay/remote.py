"""Wire a replay to a running Cordon: HTTP for reports, the signed stream for decisions."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx2

from deploy.replay.client import GatewayClient, ReplayError
from deploy.replay.driver import Replay
from deploy.replay.result import Moment
from deploy.replay.subscription import Pace, StreamSubscription
from detectors.backtest.scenario import Scenario
from signals.client import KillSwitchClient, PublicKeys, SwitchError

# A clock post waits for all stages; the gateway itself gives up after ten minutes.
_ANSWER_SECONDS = 620.0
_CONNECTS_MAX = 8


def fetch_keys(streams_url: str) -> PublicKeys:
    """Fetch the public keys from the Cordon that will also send the events: enough for one's own, not for a stranger's.

    Raises:
        ReplayError: there is no Cordon, or it gave no keys.
    """
    try:
        response = httpx2.get(f"{streams_url.rstrip('/')}/v1/keys", timeout=10.0, trust_env=False)
        response.raise_for_status()
        return PublicKeys.parse(response.content)
    except (httpx2.HTTPError, SwitchError) as error:
        raise ReplayError(f"cannot get the public keys from {streams_url}: {error}; give them with --keys") from error


@contextmanager
def connected(
    scenario: Scenario,
    *,
    reports_url: str,
    streams_url: str,
    token: str,
    lane: str,
    keys: PublicKeys,
    devices: int | None = None,
    speed: float | None = None,
    kill_switch: bool = True,
    progress: Callable[[Moment], None] | None = None,
    settle_seconds: float | None = None,
) -> Iterator[Replay]:
    """Give a replay that is connected to a running Cordon, and disconnect afterwards.

    Args:
        scenario: what happens.
        reports_url: the gateway's reports listener.
        streams_url: the listener for verdicts and event streams.
        token: may report for every tenant, declare rollouts, drive the clock and read the stream.
        lane: the Cordon's lane; its events are the only ones believed.
        keys: whose signatures are believed.
        devices: size of the fleet; None takes the scenario's.
        speed: event seconds per wall second at most; None is as fast as possible.
        kill_switch: False for the counterfactual.
        progress: called at each full minute of event time.
        settle_seconds: end this many event seconds after the first kill; None goes on to the scenario's end.
    """
    with ExitStack() as stack:
        http = stack.enter_context(
            httpx2.Client(
                base_url=reports_url,
                headers={"authorization": f"Bearer {token}"},
                timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=5.0),
                trust_env=False,
            )
        )
        stream = KillSwitchClient(
            streams_url, keys, token=token, lane=lane, from_start=True, connects_max=_CONNECTS_MAX
        )
        subscription = StreamSubscription(stream.events, stream.close)
        stack.callback(subscription.close)
        yield Replay(
            scenario,
            GatewayClient(http),
            subscription,
            devices=devices,
            kill_switch=kill_switch,
            pace=Pace(speed),
            progress=progress,
            settle_seconds=settle_seconds,
        )
