"""A real Alertmanager, from Debian's package: alerts go up under one identity, are changed, and end."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from signals.pagers.channels.alertmanager import AlertmanagerChannel
from signals.pagers.words import Answered, Level, Step
from support.pages import PAGE, message

BINARIES = ("prometheus-alertmanager", "alertmanager")
START_SECONDS = 60.0
CONFIGURATION = """
route:
  receiver: nobody
receivers:
  - name: nobody
"""


def until(found: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = next((found for name in BINARIES if (found := shutil.which(name))), None)
    if binary is None:
        lacking = "prometheus-alertmanager is not installed: make deps-system"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {lacking}", pytrace=False)
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("alertmanager")
    (folder / "alertmanager.yml").write_text(CONFIGURATION)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            until(lambda: _ready(url, process))
            yield url
        finally:
            process.terminate()
            process.wait()


def _ready(url: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "alertmanager has ended"
    try:
        return httpx2.get(f"{url}/-/ready", trust_env=False).is_success
    except httpx2.TransportError:
        return False


def alerts(url: str, key: str) -> list[dict[str, Any]]:
    answer = httpx2.get(f"{url}/api/v2/alerts", params={"filter": f'key="{key}"'}, trust_env=False)
    found: list[dict[str, Any]] = answer.json()
    return found


def test_a_page_goes_up_changes_under_its_identity_and_ends(alertmanager: str) -> None:
    channel, key = AlertmanagerChannel(alertmanager, labels={"team": "kernel"}), "cordon/r-1/crowdstrike/1"
    held = message(Step.TRIGGER, replace(PAGE, level=Level.HIGH, state="held", decision="hold"), key=key)
    assert channel.send(held).answered is Answered.DELIVERED
    (alert,) = until(lambda: alerts(alertmanager, key))
    assert alert["labels"] | {"team": "kernel", "vendor": "crowdstrike", "version": "291"} == alert["labels"]
    assert alert["annotations"]["severity"] == "error"
    assert alert["status"]["state"] in ("active", "unprocessed")
    killed = message(Step.TRIGGER, PAGE, key=key)
    assert channel.send(killed).answered is Answered.DELIVERED
    until(lambda: [one["annotations"]["severity"] for one in alerts(alertmanager, key)] == ["critical"])
    assert alerts(alertmanager, key)[0]["fingerprint"] == alert["fingerprint"]
    assert channel.send(message(Step.RESOLVE, PAGE, key=key)).answered is Answered.DELIVERED
    until(lambda: not alerts(alertmanager, key))


def test_what_it_does_not_take_is_refused_for_good(alertmanager: str) -> None:
    channel = AlertmanagerChannel(alertmanager, labels={"not a label": "x"})
    answer = channel.send(message())
    assert (answer.answered, answer.status) == (Answered.REFUSED, 400)


def test_an_address_where_nobody_listens_is_tried_again() -> None:
    answer = AlertmanagerChannel("http://127.0.0.1:1").send(message())
    assert (answer.answered, answer.status) == (Answered.RETRY, 0)
