"""Reports as bytes: what a device posts, put together from parts that are made once per device, boot or version set.

A simulated fleet posts a million and a half reports beside the pipeline it feeds, on the same two cores. Building
structs and encoding them costs about 3 us a report, joining parts under 1 us. A test decodes the result with
`ingest.events.report_decoder`, so these bytes and the structs cannot part ways unnoticed.
"""

from collections.abc import Sequence

import msgspec

from detectors.backtest.draws import Ints
from detectors.backtest.population import NOT_FOUND, Population
from detectors.backtest.scenario import CrashKind, Scenario, UpdatePlan
from ingest.events import DiskVersion, product_key

CHECK_IN_HEAD = b'{"kind":"check_in",'
OFFERED_HEAD = b'{"kind":"offered",'
INSTALLED_HEAD = b'{"kind":"installed",'
BSOD_HEAD = b'{"kind":"bsod",'
BOOT_LOOP_HEAD = b'{"kind":"boot_loop",'
END = b"}"

_encode = msgspec.json.Encoder().encode


def report_bytes(head: bytes, fragment: bytes, seq: int, at_ms: int, tail: bytes) -> bytes:
    """Put one report together; `fragment` ends in `"seq":`, `tail` in the closing brace."""
    return b'%b%b%d,"at_ms":%d%b' % (head, fragment, seq, at_ms, tail)


class Wording:
    """Makes the parts that depend on the device, its boot and its versions."""

    def __init__(self, scenario: Scenario, population: Population, versions: Sequence[Ints]) -> None:
        self._scenario = scenario
        self._population = population
        self._versions = versions
        # Bounded by the combinations of versions that exist, which are few.
        self._check_in_tails: dict[tuple[int, ...], bytes] = {}
        self._static: dict[int, bytes] = {}
        self.version_names = [[version.name for version in product.versions] for product in scenario.products]

    def device_name(self, device: int) -> str:
        """Return the device's own name for itself."""
        return f"host-{device:06d}.{self._scenario.fleet.tenants[self._population.tenant[device]].name}"

    def fragment(self, device: int, boot: int, boot_at_ms: int) -> bytes:
        """Return what all reports of one boot share, up to the sequence number."""
        static = self._static.get(device)
        if static is None:
            static = self._static[device] = self._static_part(device)
        return b'%b"boot_id":"b%d","boot_at_ms":%d,"seq":' % (static, boot, boot_at_ms)

    def _static_part(self, device: int) -> bytes:
        people, fleet = self._population, self._scenario.fleet
        form = fleet.form_factors[people.form[device]]
        tenant = fleet.tenants[people.tenant[device]].name
        return (
            _encode(
                {
                    "device": self.device_name(device),
                    "tenant": tenant,
                    "os_build": form.os_builds[people.os_build[device]].name,
                    "form_factor": form.name,
                    "model": form.models[people.model[device]].name,
                    "ring": fleet.rings[people.ring[device]].name,
                    "site": f"{tenant}-{people.site[device]}",
                }
            )[1:-1]
            + b","
        )

    def check_in_tail(self, device: int) -> bytes:
        """Return the end of a check-in that lists the versions of the products under watch."""
        key = tuple(int(column[device]) for column in self._versions)
        tail = self._check_in_tails.get(key)
        if tail is None:
            listed = {
                product_key(product.vendor, product.product): self.version_names[number][version]
                for number, (product, version) in enumerate(zip(self._scenario.products, key, strict=True))
                if version != NOT_FOUND
            }
            tail = self._check_in_tails[key] = b',"versions":%b}' % _encode(listed)
        return tail

    def crash_tail(self, device: int, crash: CrashKind, activated_ms: dict[int, int], boots: int = 0) -> bytes:
        """Return the end of a crash report, with the versions read from disk.

        Args:
            device: its index.
            crash: what the crash looks like.
            activated_ms: activation time by product number, for those known.
            boots: failed boots in a row; 0 for a single crash.
        """
        disk = [
            DiskVersion(
                vendor=product.vendor,
                product=product.product,
                version=self.version_names[number][int(self._versions[number][device])],
                activated_at_ms=activated_ms.get(number),
            )
            for number, product in enumerate(self._scenario.products)
            if self._versions[number][device] != NOT_FOUND
        ]
        body = {
            "bugcheck": crash.bugcheck,
            "parameters": crash.parameters,
            "module": crash.module,
            "frames": crash.frames,
            "versions": disk,
        }
        if boots:
            body["boots"] = boots
        return b"," + _encode(body)[1:]


def update_tail(update: UpdatePlan, kind: str) -> bytes:
    """Return the end of an `offered` or `installed` of the update."""
    named = {"vendor": update.vendor, "product": update.product, "update_kind": kind, "version": update.version}
    return b"," + _encode(named)[1:]
