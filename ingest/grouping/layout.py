"""The fields of packed rows, as chunks of the state name them: how rows of another version are read.

A row of this version may have fields that the version before does not know, and lack others. Fields go by name, so a
release can add or drop one while chunks of the release before are still in the log.
"""

from typing import Any

import numpy as np

Layout = list[tuple[str, str, int]]


def layout_of(row: np.dtype[Any]) -> Layout:
    """Return the fields of a row in order: name, type, and how many of it stand side by side."""
    fields = [(name, row.fields[name][0]) for name in row.names or ()] if row.fields else []
    return [(name, field.base.str, int(np.prod(field.shape, dtype=int))) for name, field in fields]


# Chunks of schema 2 say nothing of their rows' fields: these are theirs, whatever becomes of `ROW`.
LAYOUT_2: Layout = [
    ("key", "<u8", 1),
    ("seq_top", "<u8", 1),
    ("seq_bits", "<u8", 1),
    ("boot_at", "<u4", 1),
    ("heard", "<u4", 1),
    ("crashed", "<u4", 1),
    ("os_build", "<u2", 1),
    ("model", "<u2", 1),
    ("tenant", "<u2", 1),
    ("ring", "|u1", 1),
    ("form", "|u1", 1),
    ("since", "<u4", 4),
    ("update", "<u2", 4),
    ("base", "<u2", 4),
    ("state", "|u1", 4),
]


def as_rows(packed: bytes, layout: Layout, row: np.dtype[Any]) -> bytes:
    """Return rows of one layout as rows of type `row`: fields by name; a missing one is 0, an unknown one dropped.

    Raises:
        ValueError: a field stands there in another type or number than `row` has it.
    """
    wanted = layout_of(row)
    if layout == wanted:
        return packed
    known = {name: (kind, count) for name, kind, count in wanted}
    for name, kind, count in layout:
        if known.get(name, (kind, count)) != (kind, count):
            raise ValueError(f"the state's rows hold {name} as {count} of {kind}, this version as {known[name]}")
    there = np.frombuffer(packed, np.dtype([(name, kind, (count,)) for name, kind, count in layout]))
    rows = np.zeros(len(there), row)
    for name, _, _ in layout:
        if name in known:
            rows[name] = there[name] if rows[name].ndim > 1 else there[name][:, 0]
    return rows.tobytes()
