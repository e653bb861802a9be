"""Groups of near-duplicate signatures: one bug that a new build, an inlined frame or a renamed driver made into many.

For people, boards and the store: so that forty names of one bug are read as one. Never for a kill: whoever writes the
frames of a crash report chooses what it resembles. Plain texts and counts only; the same signatures give the same
groups in whatever order they come.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

SIGNATURES_MAX: Final = 4096
FRAMES_MAX: Final = 8
NAME_CHARS_MAX: Final = 256
TEXT_CHARS_MAX: Final = 128
# How alike to its group's representative a signature must be, 0 to 1: below, it is a resemblance and no near-duplicate.
ALIKE_LEAST: Final = 0.6
# What each part says of sameness. Frames most; a stop code differs between two faces of one bug.
WEIGHTS: Final = (0.35, 0.15, 0.5)
PARTS: Final = ("module", "stop code", "frames")
DIMENSIONS: Final = 96
_FEATURES_MAX: Final = 1 << 15


class SignatureText(msgspec.Struct, frozen=True, kw_only=True):
    """A signature as its crashes show it.

    Attributes:
        name: the signature's name, unique among those given.
        module: the module it blames; empty where unknown.
        bugcheck: the stop code as text, for instance `0x50`; empty where unknown.
        frames: the stack, innermost first, as `module+offset`; the first eight count.
        devices: devices that crashed with it: who represents a group is decided by it.
    """

    name: str
    module: str = ""
    bugcheck: str = ""
    frames: tuple[str, ...] = ()
    devices: int = 0


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A signature in a group, and how alike it is to the representative: overall and by part, 0 to 1."""

    name: str
    devices: int
    alike: float
    parts: tuple[float, float, float]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Signatures that are likely one bug.

    Attributes:
        representative: the member seen on most devices.
        members: all of them, the representative first, then by devices.
        devices: the members' devices summed; one that showed two of the names counts twice.
        why: a sentence with numbers.
    """

    representative: str
    members: list[Member]
    devices: int
    why: str


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        groups: the largest by devices first.
        alone: names that are like no other, sorted.
        left_out: signatures beyond the bound that were not looked at.
    """

    groups: list[Group]
    alone: list[str]
    left_out: int


def clean(text: str, most: int = TEXT_CHARS_MAX) -> str:
    """Return text without what is not printable, in lower case, cut: what is compared and shown."""
    return "".join(character for character in text[: 4 * most].lower() if character.isprintable())[:most]


def group_signatures(signatures: Iterable[SignatureText], alike_least: float = ALIKE_LEAST) -> Groups:
    """Return the groups of near-duplicates among `signatures`.

    Model. Each part of a signature (module, stop code, frames) becomes character n-grams of length 2 to 5 weighted by
    how rare they are (TF-IDF), of length 1; the parts are put side by side with the weights 0.35, 0.15 and 0.5, so that
    the cosine of two signatures is the weighted mean of their parts' cosines. Reduced to 96 dimensions by SVD, they are
    clustered by density (HDBSCAN), which needs no number of groups and leaves what is like nothing alone. Whoever is
    less alike to the group's representative than `alike_least`, by the full features, is put out again; those put out
    are looked at by themselves, for among few signatures density joins what is merely not far.

    Assumptions. Names of one bug share modules on the stack and most letters. Offsets may all differ.

    What it can't see: one bug whose stacks share nothing, and two bugs with the same stack. A false grouping costs a
    second look at a board; no number that a verdict rests on uses it.

    Args:
        signatures: with unique names. Beyond 4,096 those on the fewest devices are left out, and counted.
        alike_least: 0 to 1.

    Raises:
        ValueError: two signatures of one name, or a limit outside 0 to 1.

    Example:
        >>> bug = SignatureText(
        ...     name="a", module="csagent.sys", bugcheck="0x50", frames=("csagent.sys+0xe14ed",), devices=9
        ... )
        >>> moved = msgspec.structs.replace(bug, name="b", frames=("csagent.sys+0xe1500",), devices=2)
        >>> other = SignatureText(name="c", module="nvlddmkm.sys", bugcheck="0x116", frames=("dxgkrnl.sys+0x7f0",))
        >>> found = group_signatures([other, moved, bug])
        >>> [(group.representative, [member.name for member in group.members]) for group in found.groups], found.alone
        ([('a', ['a', 'b'])], ['c'])

    Source: Campello, Moulavi and Sander (2013), "Density-based clustering based on hierarchical density estimates";
    Dhaliwal, Khomh and Zou (2011), "Classifying field crash reports for fixing bugs", for frames over names.
    """
    if not 0 <= alike_least <= 1:
        raise ValueError(f"alike_least {alike_least} lies outside 0 to 1")
    ordered = sorted(signatures, key=lambda one: (-one.devices, one.name))
    if len({one.name for one in ordered}) != len(ordered):
        raise ValueError("two signatures have one name: add their devices up first")
    kept, left_out = sorted(ordered[:SIGNATURES_MAX], key=lambda one: one.name), len(ordered[SIGNATURES_MAX:])
    if not kept:
        return Groups(groups=[], alone=[], left_out=0)
    parts = _features(kept)
    parts.append(_side_by_side(parts))
    labels = _labels(parts[-1])
    found = []
    for label in sorted(set(labels.tolist()) - {-1}):
        found += _groups(kept, parts, np.flatnonzero(labels == label), alike_least)
    found.sort(key=lambda group: (-group.devices, group.representative))
    grouped = {member.name for group in found for member in group.members}
    return Groups(groups=found, alone=[one.name for one in kept if one.name not in grouped], left_out=left_out)


def _features(signatures: Sequence[SignatureText]) -> list[Any]:
    """Return a sparse matrix of shape (n, features) for each part, rows of length 1 (or 0 where the part is empty)."""
    # Imported here: scikit-learn takes a second to import, and most of Cordon needs none of it.
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [
        [clean(one.module) for one in signatures],
        [clean(one.bugcheck) for one in signatures],
        [" ".join(f"<{clean(frame)}>" for frame in one.frames[:FRAMES_MAX]) for one in signatures],
    ]
    matrices = []
    for part in texts:
        if not any(len(text) >= 2 for text in part):
            matrices.append(csr_matrix((len(part), 1), dtype=np.float64))
            continue
        vectors = TfidfVectorizer(
            analyzer="char", ngram_range=(2, 5), lowercase=False, sublinear_tf=True, max_features=_FEATURES_MAX
        )
        matrices.append(vectors.fit_transform(part))
    return matrices


def _side_by_side(parts: Sequence[Any]) -> Any:
    """Return the parts weighted and joined, each row of length 1: what is missing in a signature weighs nothing."""
    from scipy.sparse import hstack
    from sklearn.preprocessing import normalize

    weighted = [part * np.sqrt(weight) for part, weight in zip(parts, WEIGHTS, strict=True)]
    return normalize(hstack(weighted, format="csr"))


def _labels(whole: Any) -> npt.NDArray[np.int64]:
    """Return the cluster of each row, -1 for none; `whole` is sparse, shape (n, features), rows of length 1 or 0."""
    from sklearn.cluster import HDBSCAN
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # It ships no types.

    told = np.flatnonzero(np.asarray(whole.multiply(whole).sum(axis=1)).ravel() > 0)
    labels: npt.NDArray[np.int64] = np.full(whole.shape[0], -1, dtype=np.int64)
    if len(told) < 2:
        return labels
    rows = whole[told]
    if min(rows.shape) > DIMENSIONS + 1:
        # Seeded and on one thread, so that the same signatures give the same groups however many cores there are.
        with threadpool_limits(1):
            rows = TruncatedSVD(DIMENSIONS, random_state=0).fit_transform(rows)
    else:
        rows = rows.toarray()
    dense = np.round(normalize(rows), 9)
    # HDBSCAN never takes its root for a cluster: two pairs far from everything else make one group be one of several.
    anchors = np.zeros((4, dense.shape[1] + 3))
    anchors[[0, 1], -1] = anchors[[2, 3], -2] = 1.0
    anchors[[0, 2], -3] = 0.1
    model = HDBSCAN(min_cluster_size=2, min_samples=1, cluster_selection_method="leaf", copy=True)
    labels[told] = model.fit(np.vstack([np.pad(dense, ((0, 0), (0, 3))), anchors])).labels_[: len(told)]
    return labels


def _groups(
    signatures: Sequence[SignatureText], parts: Sequence[Any], members: npt.NDArray[np.int64], alike_least: float
) -> list[Group]:
    """Return the groups in one cluster: round the most seen signature, then round the most seen of the rest."""
    ranked = np.array(sorted(members.tolist(), key=lambda i: (-signatures[i].devices, signatures[i].name)))
    found = []
    while len(ranked) >= 2:
        # Cosines to the representative: by part, then of the whole.
        alike = np.column_stack([np.asarray((part[ranked] @ part[ranked[0]].T).todense()).ravel() for part in parts])
        alike = np.round(np.clip(alike, 0.0, 1.0), 6)
        alike[0, -1] = 1.0
        near = alike[:, -1] >= alike_least
        if near.sum() >= 2:
            found.append(_group(signatures, ranked[near].tolist(), alike[near].tolist()))
        ranked = ranked[~near]
    return found


def _group(signatures: Sequence[SignatureText], members: Sequence[int], alike: Sequence[Sequence[float]]) -> Group:
    kept = [
        Member(name=one.name, devices=one.devices, alike=row[3], parts=(row[0], row[1], row[2]))
        for one, row in zip([signatures[index] for index in members], alike, strict=True)
    ]
    return Group(
        representative=kept[0].name,
        members=kept,
        devices=sum(member.devices for member in kept),
        why=_why(signatures[members[0]], kept),
    )


def _why(first: SignatureText, members: Sequence[Member]) -> str:
    others = members[1:]
    least = min(others, key=lambda member: member.alike)
    told = [
        f"{part} {min(member.parts[i] for member in others):.2f}"
        for i, part in enumerate(PARTS)
        if any(member.parts[i] > 0 for member in others)
    ]
    where = " ".join(text for text in (clean(first.module), clean(first.bugcheck)) if text) or "no module"
    return (
        f"{len(others)} {'name is' if len(others) == 1 else 'names are'} like {clean(first.name, NAME_CHARS_MAX)}"
        f" ({where}): alike {least.alike:.2f} of 1 or more; at least {', '.join(told)}"
    )
