"""A Grafana over its HTTP API, by grafana-client; what goes wrong becomes a sentence that says what to do.

Behind `plan.Grafana`. Invariant: a token that may not do something is an error that names the right it lacks, and
nothing is ever deleted.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError, TokenAuth

from dashboards.grafana.provision.plan import GrafanaError
from dashboards.grafana.provision.resources import FOLDER_UID, Kind, Resource

VERSION_LEAST = (10, 4)
TIMEOUT_SECONDS = 15.0
_RIGHTS = {
    Kind.FOLDER: "folders:create and folders:write",
    Kind.DATA_SOURCE: "datasources:create and datasources:write",
    Kind.BOARD: "dashboards:create and dashboards:write",
    Kind.CONTACT_POINT: "alert.provisioning:write",
    Kind.ALERT_RULE: "alert.provisioning:write",
}
_NOT_FOUND = 404


class HttpGrafana:
    """A Grafana behind a URL."""

    def __init__(self, url: str, token: str) -> None:
        """Take the URL and a service account's token; nothing is asked yet.

        Raises:
            GrafanaError: the URL is none.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise GrafanaError(f"Grafana at {url!r}: write http://HOST:3000")
        self._url = url
        auth = TokenAuth(token)  # type: ignore[no-untyped-call]  # grafana-client leaves it unannotated
        self._api = GrafanaApi.from_url(url, credential=auth, timeout=TIMEOUT_SECONDS)

    def check(self) -> str:
        """Return its version; see `Grafana`."""
        said = self._ask("health", self._api.health.check)
        version = str(said.get("version", "")) if isinstance(said, Mapping) else ""
        numbers = tuple(int(part) for part in version.split("-")[0].split("+")[0].split(".")[:2] if part.isdigit())
        if len(numbers) < 2:
            raise GrafanaError(f"{self._url} does not say which version of Grafana it is: is that a Grafana?")
        if numbers < VERSION_LEAST:
            least = ".".join(map(str, VERSION_LEAST))
            raise GrafanaError(f"Grafana {version} at {self._url} is older than {least}, whose alerting API is needed")
        return version

    def find(self, kind: Kind, uid: str) -> Mapping[str, Any] | None:
        """Return what it holds; see `Grafana`."""
        api = self._api
        found: Mapping[str, Any] | None
        match kind:
            case Kind.FOLDER:
                found = self._find(kind, lambda: api.folder.get_folder(uid))
            case Kind.DATA_SOURCE:
                found = self._find(kind, lambda: api.datasource.get_datasource_by_uid(uid))
            case Kind.BOARD:
                found = self._find(kind, lambda: api.dashboard.get_dashboard(uid))
                return None if found is None else found["dashboard"]
            case Kind.ALERT_RULE:
                found = self._find(kind, lambda: api.alertingprovisioning.get_alertrule(uid))
            case Kind.CONTACT_POINT:
                points = self._find(kind, api.alertingprovisioning.get_contactpoints) or []
                found = next((point for point in points if point.get("uid") == uid), None)
        return found

    def put(self, resource: Resource, *, exists: bool) -> None:
        """Create or replace; see `Grafana`."""
        api, uid = self._api, resource.uid
        body = {**resource.body, **resource.secret, "uid": uid}
        alerting = api.alertingprovisioning
        match resource.kind:
            case Kind.FOLDER if exists:
                act = lambda: api.folder.update_folder(uid, title=body["title"], overwrite=True)  # noqa: E731
            case Kind.FOLDER:
                act = lambda: api.folder.create_folder(body["title"], uid)  # noqa: E731
            case Kind.DATA_SOURCE if exists:
                act = lambda: api.datasource.update_datasource_by_uid(uid, body)  # noqa: E731
            case Kind.DATA_SOURCE:
                act = lambda: api.datasource.create_datasource(body)  # noqa: E731
            case Kind.BOARD:
                told = {"dashboard": body, "folderUid": FOLDER_UID, "overwrite": True, "message": "by cordon"}
                act = lambda: api.dashboard.update_dashboard(told)  # noqa: E731
            case Kind.CONTACT_POINT if exists:
                act = lambda: alerting.update_contactpoint(uid, body, disable_provenance=True)  # noqa: E731
            case Kind.CONTACT_POINT:
                act = lambda: alerting.create_contactpoint(body, disable_provenance=True)  # noqa: E731
            case Kind.ALERT_RULE if exists:
                act = lambda: alerting.update_alertrule(uid, body, disable_provenance=True)  # noqa: E731
            case Kind.ALERT_RULE:
                act = lambda: alerting.create_alertrule(body, disable_provenance=True)  # noqa: E731
        self._ask(f"{resource.kind} {uid}", act, _RIGHTS[resource.kind])

    def _find(self, kind: Kind, ask: Callable[[], Any]) -> Any:
        return self._ask(str(kind), ask, missing=True)

    def _ask(self, what: str, ask: Callable[[], Any], rights: str = "", *, missing: bool = False) -> Any:
        try:
            return ask()
        except GrafanaUnauthorizedError as error:
            raise GrafanaError(
                f"{self._url} refuses the token: make a service account with the role Editor (Admin for data sources) "
                f"and give its token with --token-file"
            ) from error
        except GrafanaClientError as error:
            if missing and error.status_code == _NOT_FOUND:
                return None
            if error.status_code == 403:
                lacking = rights or "the right to read it"
                raise GrafanaError(f"the token may not touch {what}: it needs {lacking}") from error
            raise GrafanaError(f"{self._url} refuses {what}: {error.message}") from error
        except GrafanaException as error:
            raise GrafanaError(f"{self._url} failed on {what}: {error.message}") from error
        except OSError as error:
            raise GrafanaError(f"no Grafana answers at {self._url}: {error}") from error
