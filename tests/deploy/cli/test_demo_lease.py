"""`cordon demo-lease`: with a real Cordon killed, every client is on hold by the end of its lease."""

import re

import pytest

from support.system import cordon


@pytest.mark.timeout(300)
def test_every_client_holds_by_the_leases_end_and_goes_on_after_the_restart() -> None:
    done = cordon("demo-lease", "--lease-seconds", "4", seconds=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Cordon is killed (SIGKILL)" in done.stdout
    assert "clients were on hold by the lease's end" in done.stdout
    against_end = [float(row[1]) for row in re.findall(r"│ \S.*?│\s+([+-][\d.]+) s │\s+([+-][\d.]+) s │", done.stdout)]
    assert len(against_end) >= 3
    assert max(against_end) <= 1.0
