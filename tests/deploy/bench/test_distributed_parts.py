"""The distributed bench: reports of known truth, posts that never repeat a number, counts that must agree."""

import re
from collections import Counter

import msgspec

from deploy.bench.distributed_grouping import Said, differences
from deploy.bench.distributed_load import POST_REPORTS, Rounds
from deploy.bench.distributed_reports import EXPOSED_ONE_IN, KnownTraffic, flat, key_of, truth_of
from deploy.bench.peers import Counted
from ingest.events import Bsod, Offered

AT_MS = 1_721_361_600_000


def test_reports_keep_their_known_truth() -> None:
    """At most one offer and one crash a device, offers to a fifth of them, and a crash names the device's version."""
    reports = KnownTraffic(500).reports(20_000, AT_MS)
    offered = [report.device for report in reports if isinstance(report, Offered)]
    crashed = [report.device for report in reports if isinstance(report, Bsod)]
    assert len(offered) == len(set(offered)) > 50
    assert len(offered) <= 500 // EXPOSED_ONE_IN
    assert len(crashed) == len(set(crashed)) > 50
    known: set[str] = set()
    for report in reports:
        if isinstance(report, Offered):
            known.add(report.device)
        elif isinstance(report, Bsod):
            assert (report.versions[0].version == "291.31") == (report.device in known)


def test_flat_records_say_what_the_reports_say() -> None:
    reports = KnownTraffic(200).reports(3000, AT_MS)
    found: Counter[tuple[str, int]] = Counter()
    for report in reports:
        record = msgspec.json.decode(flat(report))
        assert f"{record['update_version']}|{record['kind']}" == key_of(report)
        found[key_of(report), record["at_ms"] // 60_000 * 60_000] += 1
    assert found == truth_of(reports)


def test_a_count_that_differs_is_named() -> None:
    minute = AT_MS // 60_000 * 60_000
    truth = Counter({("291.31|bsod", minute): 2, ("291.31|offered", minute): 3, ("-|check_in", minute): 9})
    said = Said(crashes=Counter({("291.31|bsod", minute): 2}), exposed={0: 1, 1: 2})
    right = Counted(version="1", seconds=1.0, counts=[(key, at, count) for (key, at), count in truth.items()])
    assert list(differences(truth, said, {"faust": right})) == []
    wrong = Counted(version="1", seconds=1.0, counts=right.counts[1:])
    off = Said(crashes=Counter({("291.30|bsod", minute): 2}), exposed={0: 1})
    words = list(differences(truth, off, {"faust": wrong}))
    assert [word.split()[0] for word in words] == ["faust", "grouping", "grouping"]


def test_no_round_repeats_a_sequence_number_of_a_device() -> None:
    rounds, again = Rounds("http://127.0.0.1:1", "t", 1000), Rounds("http://127.0.0.1:1", "t", 1000, first=50)
    seen: set[tuple[bytes, bytes]] = set()
    requests = 0
    for source in (rounds, again):
        for _ in range(6):
            for request in source.take(POST_REPORTS):
                head, _, body = request.partition(b"\r\n\r\n")
                assert int(re.findall(rb"Content-Length: (\d+)", head)[0]) == len(body)
                pairs = re.findall(rb'"device":"([^"]+)","seq":(\d+)', body)
                assert len(pairs) == POST_REPORTS
                seen.update(pairs)
                requests += 1
    assert len(seen) == requests * POST_REPORTS == rounds.posted + again.posted
