"""Whose module and whose product: what wins, what is refused, and what a reload does."""

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.metrics import Metrics
from signals.pagers.registry import DEFAULT_OWNER, RegistryError, parse
from signals.pagers.registry_book import RegistryBook
from signals.pagers.words import Level

ROUTES = """
[default]
routes = ["soc"]
[routes.soc]
channel = "slack"
secret_file = "soc.url"
[routes.acme]
channel = "pagerduty"
secret_file = "acme.key"
[routes.zeta]
channel = "alertmanager"
url = "http://alerts.example.net"
[vendors.acme]
routes = ["acme"]
names = ["Acme Corporation", "Acme Signing CA"]
[vendors.zeta]
routes = ["zeta", "soc"]
co_victim = "same"
"""
MODULES = """
[[modules]]
match = "ac*.sys"
vendor = "acme"
[[modules]]
match = "acz*.sys"
vendor = "zeta"
aliases = ["oldname.sys"]
[[modules]]
match = "acz1.sys"
vendor = "acme"
[[modules]]
match = "shared.sys"
vendor = "acme"
signer = "Acme Signing CA"
[[modules]]
match = "shared.*"
vendor = "zeta"
signer = "Zeta Ltd"
"""


@pytest.mark.parametrize(
    ("module", "signer", "owner", "why"),
    [
        ("acme.sys", "", "acme", "rule 'ac*.sys'"),
        ("ACZ9.SYS", "", "zeta", "it beats 1 other rule that fit"),
        ("acz1.sys", "", "acme", "it beats 2 other rules"),
        ("oldname.sys", "", "zeta", "alias 'oldname.sys' of rule 'acz*.sys'"),
        ("shared.sys", "Zeta Ltd", "zeta", "signer 'Zeta Ltd'"),
        ("shared.sys", "zeta ltd", "zeta", "signer"),
        ("shared.sys", "Somebody", DEFAULT_OWNER, "no module rule fits"),
        ("shared.sys", "", "acme", "was not checked"),
        ("unknown.sys", "", DEFAULT_OWNER, "the default routes"),
        ("unknown.sys", "Acme Signing CA", "acme", "signer 'Acme Signing CA' is vendor acme"),
    ],
)
def test_a_module_belongs_to_whom_the_closest_rule_names(module: str, signer: str, owner: str, why: str) -> None:
    found = parse(ROUTES + MODULES).owner_of_module(module, signer)
    assert found.owner == owner
    assert why in found.why


@pytest.mark.parametrize(
    ("vendor", "product", "owner"),
    [
        ("acme", "x", "acme"),
        ("ACME corporation", "x", "acme"),
        ("zeta", "x", "zeta"),
        ("nobody", "x", DEFAULT_OWNER),
        ("acme", "oem-driver-9", "zeta"),
        ("other", "oem-driver-9", "acme"),
    ],
)
def test_a_rollout_belongs_to_the_product_rule_before_the_vendor_it_names(
    vendor: str, product: str, owner: str
) -> None:
    rules = """
[[products]]
product = "oem-*"
vendor = "acme"
[[products]]
product = "oem-driver-*"
sold_by = "acme"
vendor = "zeta"
"""
    assert parse(ROUTES + rules).owner_of_rollout(vendor, product).owner == owner


@given(st.text(max_size=80), st.text(max_size=80))
def test_every_question_has_an_answer(name: str, other: str) -> None:
    registry = parse(ROUTES + MODULES)
    for owned in (registry.owner_of_module(name, other), registry.owner_of_rollout(name, other)):
        assert registry.routes_of(owned.owner)
        assert owned.why


def test_a_fallback_is_the_one_named_else_the_default_routes_and_for_chats_nobody() -> None:
    registry = parse(ROUTES.replace('secret_file = "acme.key"', 'secret_file = "acme.key"\nfallback = "zeta"'))
    assert registry.fallbacks_of("acme") == ("zeta",)
    assert registry.fallbacks_of("zeta") == ("soc",)
    assert registry.fallbacks_of("soc") == ()
    assert registry.fallbacks_of("gone") == ("soc",)


def test_how_loud_owners_of_other_modules_are_told() -> None:
    registry = parse(ROUTES)
    assert registry.co_victim_of("acme", Level.CRITICAL) is Level.CHAT
    assert registry.co_victim_of("zeta", Level.CRITICAL) is Level.CRITICAL
    assert registry.co_victim_of(DEFAULT_OWNER, Level.CRITICAL) is Level.NONE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "default"),
        (ROUTES.replace('routes = ["soc"]', 'routes = ["sock"]', 1), "default names route 'sock'"),
        (ROUTES.replace('routes = ["acme"]', 'routes = ["acne"]'), "acme names route 'acne'"),
        (ROUTES.replace("channel =", "chanel =", 1), "chanel"),
        (ROUTES.replace('url = "http://alerts.example.net"', ""), "alertmanager needs url"),
        (ROUTES.replace("http://alerts", "ftp://alerts"), "begins with https"),
        (ROUTES.replace('secret_file = "acme.key"', ""), "pagerduty needs secret_file"),
        (ROUTES.replace('secret_file = "acme.key"', 'secret_file = "k"\nfallback = "acme"'), "in a circle"),
        (ROUTES.replace('secret_file = "acme.key"', 'secret_file = "k"\nfallback = "gone"'), "is no route"),
        (ROUTES.replace('secret_file = "soc.url"', 'secret_file = "k"\nchanges = true'), "only PagerDuty"),
        (ROUTES.replace('secret_file = "soc.url"', 'secret_file = "k"\nleast = "none"'), "least is"),
        (ROUTES + '[vendors.default]\nroutes = ["soc"]\n', "no vendor may be called 'default'"),
        (ROUTES + '[vendors.acme2]\nroutes = ["soc"]\nnames = ["ACME"]\n', "both called 'acme'"),
        (ROUTES + '[[modules]]\nmatch = "x.sys"\nvendor = "gone"\n', "unknown vendor 'gone'"),
        (ROUTES + '[[products]]\nproduct = "x"\nvendor = "gone"\n', "unknown vendor 'gone'"),
        (
            ROUTES + '[[modules]]\nmatch = "x.sys"\nvendor = "acme"\n[[modules]]\nmatch = "X.sys"\nvendor = "zeta"\n',
            "claimed by acme and zeta",
        ),
        (
            ROUTES + '[[maintenance]]\nfrom = 2024-07-19T04:00:00\nuntil = 2024-07-19T05:00:00Z\nreason = "x"\n',
            "offset",
        ),
        (ROUTES + '[[maintenance]]\nfrom = 2024-07-19T06:00:00Z\nuntil = 2024-07-19T05:00:00Z\nreason = "x"\n', "ends"),
        (
            ROUTES + '[[maintenance]]\nfrom = 2024-07-19T04:00:00Z\nuntil = 2024-07-19T05:00:00Z\nreason = "x"\n'
            'vendor = "gone"\n',
            "no vendor 'gone'",
        ),
        ("lanes = [", "can't be read"),
    ],
)
def test_a_file_with_a_fault_is_refused_as_a_whole(text: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        parse(text)


def test_a_maintenance_window_is_for_its_time_and_not_for_kills() -> None:
    window = (
        '[[maintenance]]\nfrom = 2024-07-19T04:00:00Z\nuntil = 2024-07-19T05:00:00Z\nreason = "lab"\nvendor = "acme"\n'
    )
    registry = parse(ROUTES + window)
    at = int(dt.datetime(2024, 7, 19, 4, 30, tzinfo=dt.UTC).timestamp() * 1000)
    assert registry.window("acme", "acme", Level.HIGH, at) is not None
    assert registry.window("acme", "acme", Level.CRITICAL, at) is None
    assert registry.window("zeta", "zeta", Level.HIGH, at) is None
    assert registry.window("acme", "acme", Level.HIGH, at + 3_600_000) is None
    with_kills = parse(ROUTES + window + "kills = true\n")
    assert with_kills.window("acme", "acme", Level.CRITICAL, at) is not None


def test_a_changed_file_takes_effect_and_a_broken_one_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, metrics = tmp_path / "routes.toml", Metrics()
    path.write_text(ROUTES)
    book = RegistryBook(path, metrics)
    assert not book.reload_if_changed()
    path.write_text(ROUTES + MODULES)
    assert book.reload_if_changed()
    assert book.current.owner_of_module("acme.sys").owner == "acme"
    path.write_text("routes = nonsense")
    assert not book.reload_if_changed()
    assert book.current.owner_of_module("acme.sys").owner == "acme"
    assert metrics.value("pager_registry_broken") == 1
    assert "routes stay as they were" in caplog.text
    path.unlink()
    assert not book.reload_if_changed()
    path.write_text(ROUTES)
    assert book.reload_if_changed()
    assert metrics.value("pager_registry_broken") == 0
    assert book.version == 3


def test_without_a_usable_file_there_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="can't be read"):
        RegistryBook(tmp_path / "missing.toml", Metrics())
