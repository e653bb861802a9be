"""Rollouts: declared by a rollout system, or discovered from the first report of a version nobody declared.

Sits between the posts and the log: it says what is to be announced, the coalescer writes it. The invariants: a version
has one rollout; an origin that has passed never moves, since both arms count from it; a bound never gets weaker.
Everything it knows is in `cordon.rollouts.v1`, so a restarted gateway discovers nothing twice, and what other gateways
write there is merged with what this one knows (`merge`).
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from msgspec.structs import replace

from ingest.clock import Clock
from ingest.events import Installed, Offered
from ingest.gateway.merge import join, list_name, listed_devices, stronger
from ingest.gateway.records import Announcement, PushedList
from ingest.gateway.refusal import RequestRefusedError
from ingest.gateway.route import Update
from ingest.metrics import Metrics
from ingest.outcome import Refusal
from ingest.rollouts import Bound, Ring, Rollout, RolloutDeclaration, ring_names, rollout_id
from ingest.topics import partition_of

DAY_MS = 86_400_000
ROLLOUTS_MAX = 100_000
PUSHED_LISTS_MAX = 1024
# A rollout heard of from another gateway is noticed again before this one's first report of it: in a partition, that
# report may otherwise come to lie before the other's notice. After this long it can't.
NOTICE_AGAIN_MS = 60_000
_REFUSED_MAX = 10_000
_TENANTS_MAX = 10_000


class RolloutBook:
    """Every rollout this gateway knows."""

    def __init__(self, clock: Clock, metrics: Metrics, discovered_per_tenant_max: int) -> None:
        """Start empty; `load` what the log has before the first post."""
        self._clock = clock
        self._metrics = metrics
        self._per_tenant_max = discovered_per_tenant_max
        self._rollouts: dict[str, Rollout] = {}
        self._sorted: list[str] | None = None
        # Declared without a bound, and no device has spoken of it yet: the first word may still bound it.
        self._unspoken: set[str] = set()
        self._spent: dict[str, deque[int]] = {}
        self._refused: dict[Update, int] = {}
        # Heard of from other gateways, and when; no report here has named it yet.
        self._heard: dict[str, int] = {}
        self.seen: set[Update] = set()

    def load(self, rollouts: Iterable[tuple[Rollout, int]]) -> None:
        """Take over what the log has: rollouts with the log's time of append, in the log's order."""
        now_ms = self._clock.now_ms()
        for rollout, appended_at_ms in rollouts:
            self._keep(rollout)
            if rollout.discovered_by:
                self._spent.setdefault(rollout.discovered_by, deque()).append(min(appended_at_ms, now_ms))
            if rollout.origin_ms <= now_ms:
                self.seen.add(_update_of(rollout))

    def merge(self, rollout: Rollout) -> Announcement | None:
        """Take the latest record of a rollout in the log; return what must be announced if the log lacks something.

        Merging is commutative, associative and idempotent (`join`), so gateways that have read the same records know
        the same, whatever was written at once; what a record lacks is written again by whoever knows it.
        """
        known = self._rollouts.get(rollout.rollout)
        if known is None:
            if len(self._rollouts) >= ROLLOUTS_MAX:
                return None
            self._keep(rollout)
            self._heard[rollout.rollout] = self._clock.now_ms()
            if rollout.discovered_by:
                self._spent.setdefault(rollout.discovered_by, deque()).append(self._clock.now_ms())
            return None
        merged = join(known, rollout)
        if merged != known:
            self._keep(merged)
            self._unspoken.discard(merged.rollout)
            if merged.origin_ms > self._clock.now_ms():
                self.seen.discard(_update_of(merged))
        return None if merged == rollout else Announcement(merged, notify=False)

    def get(self, rollout: str) -> Rollout | None:
        """Return one rollout by its id."""
        return self._rollouts.get(rollout)

    def page(self, after: str, limit: int) -> list[Rollout]:
        """Return up to `limit` rollouts with ids after `after`, sorted by id."""
        if self._sorted is None:
            self._sorted = sorted(self._rollouts)
        start = bisect_right(self._sorted, after)
        return [self._rollouts[name] for name in self._sorted[start : start + limit]]

    def reveal(self, reports: Sequence[Offered | Installed]) -> list[Announcement]:
        """Return what must be announced before these reports, whose versions are not in `seen`."""
        first: dict[Update, Offered | Installed] = {}
        earliest: dict[Update, int] = {}
        for report in reports:
            update = (report.vendor, report.product, report.version)
            first.setdefault(update, report)
            earliest[update] = min(earliest.get(update, report.at_ms), report.at_ms)
        now_ms = self._clock.now_ms()
        announcements = []
        for update, report in first.items():
            announcement = self._reveal_one(update, report, min(earliest[update], now_ms))
            if announcement is not None:
                announcements.append(announcement)
        return announcements

    def _reveal_one(self, update: Update, report: Offered | Installed, at_ms: int) -> Announcement | None:
        known = self._rollouts.get(rollout_id(*update))
        bound = Bound.OFFERED if isinstance(report, Offered) else Bound.NONE
        if known is None:
            if not self._may_discover(report.tenant, update):
                return None
            self._metrics.count("rollouts_discovered_total")
            found = Rollout(
                rollout=rollout_id(*update),
                vendor=report.vendor,
                product=report.product,
                update_kind=report.update_kind,
                version=report.version,
                origin_ms=at_ms,
                origin_said_ms=self._clock.now_ms(),
                bound=bound,
                discovered_by=report.tenant,
            )
        else:
            found = self._with_origin(known, at_ms)
            if known.rollout in self._unspoken:
                found = replace(found, bound=stronger(bound, known.bound))
        self._unspoken.discard(found.rollout)
        self._keep(found)
        self.seen.add(update)
        heard_ms = self._heard.pop(found.rollout, None)
        again = heard_ms is not None and self._clock.now_ms() - heard_ms < NOTICE_AGAIN_MS
        return Announcement(found) if again or found != known else None

    def _with_origin(self, known: Rollout, origin_ms: int) -> Rollout:
        """Return the rollout with another origin, unless its own has passed."""
        now_ms = self._clock.now_ms()
        if known.origin_ms <= now_ms:
            return known
        return replace(known, origin_ms=origin_ms, origin_said_ms=now_ms)

    def _may_discover(self, tenant: str, update: Update) -> bool:
        """Tell whether the tenant's budget has room; count each version beyond it once."""
        now_ms = self._clock.now_ms()
        if self._refused.get(update, 0) > now_ms:
            return False
        if tenant not in self._spent and len(self._spent) >= _TENANTS_MAX:
            self._forget_idle_tenants(now_ms)
        spent = self._spent.setdefault(tenant, deque())
        while spent and spent[0] <= now_ms - DAY_MS:
            spent.popleft()
        room = len(self._rollouts) < ROLLOUTS_MAX and len(self._spent) <= _TENANTS_MAX
        if len(spent) < self._per_tenant_max and room:
            spent.append(now_ms)
            return True
        if len(self._refused) >= _REFUSED_MAX:
            self._refused.clear()
        self._refused[update] = (spent[0] if spent else now_ms) + DAY_MS
        self._metrics.count("rollouts_refused_total")
        return False

    def _forget_idle_tenants(self, now_ms: int) -> None:
        """Forget tenants that spent nothing for a day; a collector may name as many tenants as it likes."""
        self._spent = {tenant: spent for tenant, spent in self._spent.items() if spent and spent[-1] > now_ms - DAY_MS}

    def declare(
        self, declaration: RolloutDeclaration, declared_by: str, pushed: Sequence[PushedList]
    ) -> tuple[Rollout, bool, Announcement | None]:
        """Take a declaration; return the rollout, whether it is new, and what must be announced if anything.

        Args:
            declaration: what the rollout system says.
            declared_by: the token's name.
            pushed: its lists, already as pseudonyms by partition.

        Raises:
            RequestRefusedError: it contradicts what is recorded, or a bound is reached.
        """
        update = (declaration.vendor, declaration.product, declaration.version)
        known = self._rollouts.get(rollout_id(*update))
        if known is None and len(self._rollouts) >= ROLLOUTS_MAX:
            raise RequestRefusedError(Refusal.OVERLOADED, f"{ROLLOUTS_MAX} rollouts are known, no more are taken", 3600)
        if known is not None and known.update_kind != declaration.update_kind:
            detail = f"{known.rollout} is recorded as update_kind {known.update_kind}: declare it as that"
            raise RequestRefusedError(Refusal.CONFLICT, detail)
        taken = set(known.pushed_lists) if known else set()
        fresh = tuple({item.digest: item for item in pushed if item.digest not in taken}.values())
        if len(taken) + len(fresh) > PUSHED_LISTS_MAX:
            detail = f"more than {PUSHED_LISTS_MAX} lists for one rollout: put more devices into each"
            raise RequestRefusedError(Refusal.CONFLICT, detail)
        rollout = self._declared(known, declaration, declared_by, fresh)
        if rollout == known:
            return rollout, False, None
        if rollout.bound is Bound.NONE and known is None:
            self._unspoken.add(rollout.rollout)
        self._keep(rollout)
        if rollout.origin_ms <= self._clock.now_ms() and rollout.rollout not in self._unspoken:
            self.seen.add(update)
        else:
            self.seen.discard(update)
        notify = known is None or bool(fresh) or known.origin_ms != rollout.origin_ms
        return rollout, known is None, Announcement(rollout, notify, fresh)

    def _declared(
        self, known: Rollout | None, declaration: RolloutDeclaration, declared_by: str, fresh: Sequence[PushedList]
    ) -> Rollout:
        now_ms = self._clock.now_ms()
        starts = [ring.starts_at_ms for ring in declaration.rings if ring.starts_at_ms is not None]
        starts += [pushed.from_ms for pushed in fresh]
        said_ms = declaration.starts_at_ms if declaration.starts_at_ms is not None else min(starts, default=None)
        if known is None:
            known = Rollout(
                rollout=rollout_id(declaration.vendor, declaration.product, declaration.version),
                vendor=declaration.vendor,
                product=declaration.product,
                update_kind=declaration.update_kind,
                version=declaration.version,
                origin_ms=now_ms if said_ms is None else said_ms,
                origin_said_ms=now_ms,
                bound=Bound.NONE,
            )
        elif said_ms is not None and said_ms != known.origin_ms:
            known = self._with_origin(known, said_ms)
        rings, sizes = declaration.rings or known.rings, declaration.ring_devices or known.ring_devices
        names = _ring_names(rings, declaration)
        # The size of a ring that is declared no more is of nothing.
        sizes = {name: devices for name, devices in sizes.items() if name in names}
        if (rings, sizes) != (known.rings, known.ring_devices):
            known = replace(known, rings=rings, ring_devices=sizes, rings_said_ms=now_ms)
        lists = sorted({*known.pushed_lists, *(pushed.digest for pushed in fresh)})
        return replace(
            known,
            bound=stronger(known.bound, Bound.DECLARED if starts else Bound.NONE),
            pushed_devices=listed_devices(lists, known.pushed_devices),
            pushed_lists=lists,
            declared_by=known.declared_by or declared_by,
            discovered_by="",
        )

    def _keep(self, rollout: Rollout) -> None:
        if rollout.rollout not in self._rollouts:
            self._sorted = None
        self._rollouts[rollout.rollout] = rollout


def _ring_names(rings: Sequence[Ring], declaration: RolloutDeclaration) -> set[str]:
    try:
        return ring_names(rings, declaration.ring_devices)
    except ValueError as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error


def pushed_list(names: Iterable[str], from_ms: int, partitions: int) -> PushedList:
    """Return a list of pseudonyms by partition, each once, named by a digest of its content."""
    unique = sorted(set(names))
    by_partition: list[list[str]] = [[] for _ in range(partitions)]
    for name in unique:
        by_partition[partition_of(name, partitions)].append(name)
    digest = blake2b("".join([str(from_ms), ":", *unique]).encode(), digest_size=8).hexdigest()
    return PushedList(list_name(digest, len(unique)), from_ms, tuple(map(tuple, by_partition)))


def _update_of(rollout: Rollout) -> Update:
    return (rollout.vendor, rollout.product, rollout.version)
