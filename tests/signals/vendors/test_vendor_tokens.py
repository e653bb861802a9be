"""A vendor's token tries every path of every listener: it never sees another's data, nor a device, tenant or site."""

import asyncio
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from deploy.embedded.parts import Parts, build
from detectors.verdict import DecisionWord
from ingest.events import encoder
from ingest.gateway.tenants import TokenBook, TokenBookError
from ingest.log.interface import Record, TopicPartition
from ingest.rollouts import Bound, Rollout
from ingest.settings import Settings
from ingest.store.interface import Store
from ingest.store.rows import COLUMNS
from support.switches import verdict
from support.vendors import DAY, DAY_MS, REGISTRY

VENDORS = ("crowdstrike", "sentinelone", "sophos")
TENANTS = ("tenant-Acme", "tenant-Bank", "tenant-City", "tenant-Dock")
START_MS = DAY * DAY_MS
# What no vendor may ever be told: whatever names a device, a tenant, a site, a person, or a model that few have.
NEVER = re.compile(r"tenant-|site-|model-Rare|0{12}|person-|Acme")

# What vendors that share both ways see of each other.
SHARED = re.compile(r"/v1/vendors/me/(incidents|compatibility)")


def marked(vendor: str, what: str) -> str:
    """Return a name that gives away whose it is."""
    return f"{what}-of-{vendor}"


@dataclass
class Api:
    """All listeners of an embedded Cordon, and a token of each vendor."""

    parts: Parts
    tokens: dict[str, str]

    def apps(self) -> dict[str, Starlette]:
        found = {"reports": self.parts.reports_app, "streams": self.parts.streams_app}
        return found if self.parts.query_app is None else {**found, "query": self.parts.query_app}

    def paths(self) -> list[tuple[str, str, str]]:
        """Return listener, method and path of every route that is served."""
        return [(name, method, path) for name, app in self.apps().items() for method, path in served(app.routes)]

    def ask(self, listener: str, method: str, path: str, token: str | None, **sent: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}

        async def asked() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.apps()[listener])
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                return await http.request(method, path, headers=headers, **sent)

        return asyncio.run(asyncio.wait_for(asked(), 60))


def served(routes: Sequence[BaseRoute], under: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from served(route.routes, under + route.path)
        elif isinstance(route, Route):
            for method in sorted(route.methods or {"GET"}):
                yield method, under + route.path


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder: Path = tmp_path_factory.mktemp("vendors")
    (folder / "routes.toml").write_text(REGISTRY)
    (folder / "soc.url").write_text("slack://x")
    parts = build(
        Settings(data_dir=str(folder / "data"), store=True, routes_file=str(folder / "routes.toml")), lambda _: None
    )
    tokens = {name: parts.tokens.add(f"{name}-1", [], ["vendor"], [name]) for name in VENDORS}
    assert parts.store is not None
    fill_store(parts.store)
    fill_views(parts)
    yield Api(parts, tokens)
    if parts.reader is not None:
        parts.reader.close()
    parts.store.close()
    parts.log.close()


def fill_store(store: Store) -> None:
    """Put in a product of each vendor that 40 devices of 4 tenants crash with, and one device of one tenant alone."""
    installs, crashes = [], []
    for number in range(40):
        for vendor in VENDORS:
            product = marked(vendor, "product")
            row = {"device": f"{number:016x}", "tenant": TENANTS[number % 4], "os_build": "22631.1", "vendor": vendor,
                   "product": product, "version": marked(vendor, "1"), "site": "site-9",
                   "model": "Latitude"}  # fmt: skip
            installs.append(row)
            crashes.append({**row, "versions": [(vendor, product, marked(vendor, "1"), None)],
                            "signature_module": f"{vendor}.sys",
                            "signature": f"{marked(vendor, 'sig')}|0x50"})  # fmt: skip
    alone = {**crashes[0], "device": f"{99:016x}", "os_build": "tenant-Acme build", "model": "model-Rare"}
    insert(store, "installs", [*installs, {**installs[0], "at": START_MS + 3 * DAY_MS}])
    insert(store, "crashes", [*crashes, alone])


def insert(store: Store, table: str, rows: list[dict[str, Any]]) -> None:
    base: dict[str, Any] = {
        "kind": "bsod" if table == "crashes" else "installed", "seq": 1, "boot_id": "b", "boot_at": START_MS,
        "at": START_MS + 1000, "form_factor": "laptop", "ring": "broad", "boots": 1, "bugcheck": 0x50,
        "parameters": [], "module": "x.sys", "frames": [], "signature_frames": "", "deliberate": 0, "versions": [],
        "update_kind": "content", "gateway": "g", "partition": 0, "log_index": 0, "block": 0,
    }  # fmt: skip
    whole = [{**base, "log_offset": place, "received_at": row.get("at", base["at"]), **row}
             for place, row in enumerate(rows)]  # fmt: skip
    store.insert(table, {name: tuple(row[name] for row in whole) for name in COLUMNS[table]})


def fill_views(parts: Parts) -> None:
    views, source = parts.streams.views, TopicPartition("x", 0)
    for vendor in VENDORS:
        name = f"r-{vendor}"
        said = verdict(DecisionWord.KILL, rollout=name)
        said.vendor, said.product, said.version = vendor, marked(vendor, "product"), marked(vendor, "1")
        said.sentence = "tenant-Acme crashed"
        said.evidence.tenants, said.evidence.crashes_exposed, said.evidence.exposed = 4, 40, 41
        said.evidence.signatures = [(marked(vendor, "sig"), 40)]
        said.evidence.cells = [("model-Rare", 1, 0, 1, 0)]
        declared = Rollout(
            rollout=name, vendor=said.vendor, product=said.product, update_kind="content", version=said.version,
            origin_ms=START_MS, bound=Bound.DECLARED, declared_by="person-1",
        )  # fmt: skip
        for take, value in ((views.take_rollouts, declared), (views.take_verdicts, said)):
            take(source, [record(name, encoder.encode(value))])


def record(key: str, value: bytes) -> Record:
    return Record(offset=0, key=key.encode(), value=value, appended_at_ms=START_MS)


words = st.one_of(
    st.sampled_from([*VENDORS, *(f"r-{vendor}" for vendor in VENDORS), *(f"product-of-{v}" for v in VENDORS), *TENANTS,
                     "me", "*", "..", "SELECT * FROM crashes", "2024-07-19", "2024-07-21", "%2e%2e%2fv1", "'"]),
    st.text(string.printable, max_size=12),
)  # fmt: skip
parameters = st.dictionaries(
    st.sampled_from(
        ["day", "vendor", "tenant", "rollout", "after", "limit", "query", "from", "ring", "default_format"]
    ),
    words,
    max_size=2,
)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_vendor_sees_anothers_data_anywhere(api: Api, data: st.DataObject) -> None:
    vendor = data.draw(st.sampled_from(VENDORS))
    listener, method, path = data.draw(st.sampled_from(api.paths()))
    for name in re.findall(r"\{(\w+)[^}]*\}", path):
        filled = data.draw(words).replace("/", "").replace("?", "").replace("#", "") or "x"
        path = re.sub(rf"\{{{name}[^}}]*\}}", re.escape(filled).replace("\\", ""), path)
    body = data.draw(st.one_of(st.just(b""), st.just(b"SELECT * FROM crashes"), st.just(b"{}")))
    check(api, vendor, listener, method, path, params=data.draw(parameters), content=body)


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_path_as_it_is_served(api: Api, vendor: str) -> None:
    for listener, method, path in api.paths():
        for other in VENDORS:
            check(api, vendor, listener, method, re.sub(r"\{[^}]+\}", f"r-{other}", path))


def check(api: Api, vendor: str, listener: str, method: str, path: str, **sent: Any) -> None:
    try:
        answer = api.ask(listener, method, path, api.tokens[vendor], **sent)
    except (httpx2.InvalidURL, UnicodeError):
        return
    # Where it shares both ways, the incidents of the peer are its to see, and only there.
    shares = {"crowdstrike": "sentinelone", "sentinelone": "crowdstrike"}.get(vendor, "")
    foreign = [other for other in VENDORS if other not in (vendor, shares if SHARED.match(path) else "")]
    echoed = httpx2.URL(path).path + str(sent)
    for other in foreign:
        assert f"of-{other}" not in answer.text or f"of-{other}" in echoed, (method, path)
    if "tenant" not in echoed and "Acme" not in echoed:
        assert not NEVER.search(answer.text), (method, path, answer.text)
    if answer.status_code < 300 and method not in ("HEAD", "OPTIONS") and not path.startswith("/v1/vendors/me/"):
        # What is told to a vendor elsewhere is what is told to somebody without a token.
        assert api.ask(listener, method, path, None, **sent).status_code < 300, (method, path)


def test_its_own_data_is_there(api: Api) -> None:
    answer = api.ask("streams", "GET", "/v1/vendors/me/health?day=2024-07-19", api.tokens["sophos"])
    assert answer.status_code == 200, answer.text
    (product,) = answer.json()["products"]
    assert (product["product"], product["crashed"]) == ("product-of-sophos", 40)
    (rollout,) = answer.json()["rollouts"]
    assert rollout["evidence"]["crashed_at_least"] == 20


@pytest.mark.parametrize("path", ["health", "compatibility", "incidents.json", "incidents.atom"])
def test_nobody_but_a_vendor_has_a_vendors_view(api: Api, path: str) -> None:
    everything = ["operator", "viewer", "approver", "rollout", "report", "drive"]
    operator = api.parts.tokens.add(f"ops-{path}", ["*"], everything)
    assert api.ask("streams", "GET", f"/v1/vendors/me/{path}", operator).status_code == 403
    assert api.ask("streams", "GET", f"/v1/vendors/me/{path}", None).status_code == 401
    assert (
        api.ask("streams", "GET", f"/v1/vendors/me/{path}?vendor=sophos", api.tokens["crowdstrike"]).status_code == 400
    )


@pytest.mark.parametrize(("tenants", "roles", "vendors"), [
    ([], ["vendor"], []), (["*"], ["vendor"], ["a"]), ([], ["vendor", "viewer"], ["a"]), ([], ["vendor"], ["A B"]),
    (["acme"], ["viewer"], ["a"]), ([], ["viewer"], []),
])  # fmt: skip
def test_a_vendors_token_may_do_nothing_else(
    tmp_path: Path, tenants: list[str], roles: list[str], vendors: list[str]
) -> None:
    with pytest.raises(TokenBookError):
        TokenBook.load(tmp_path / "tokens.toml").add("x", tenants, roles, vendors)


def test_a_vendors_token_is_read_back_and_older_files_are(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(f'[tokens.old]\nsha256 = "{"0" * 64}"\ntenants = ["acme"]\nroles = ["viewer"]\n')
    token = TokenBook.load(path).add("falcon", [], ["vendor"], ["crowdstrike"])
    found = TokenBook.load(path).authenticate(f"Bearer {token}")
    assert found is not None
    assert (found.vendors, found.tenants, found.tenant) == (frozenset({"crowdstrike"}), frozenset[str](), "")
    assert not found.speaks_for("acme")
    assert not found.speaks_for("")
