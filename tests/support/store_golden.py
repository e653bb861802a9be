"""The SQL that the migrations become on one server, on replicas, on a cluster; `python store_golden.py` writes it anew.

A migration's text is fixed once it is applied somewhere; these files show what its placeholders make of it, so that a
change of engines or of cluster statements is seen in review.
"""

from pathlib import Path

from ingest.store.interface import Engines, MemoryStore
from ingest.store.migrate import Migrator

FOLDER = Path(__file__).parents[1] / "golden" / "store"
CLUSTER = Engines(replicated=True, cluster="main", database="cordon")
ENGINES = {
    "single": Engines(),
    "replicated": Engines(replicated=True, cluster="main"),
    "cluster": CLUSTER,
}


def statements(engines: Engines) -> list[str]:
    """Return every statement of a first run of all migrations."""
    twin = MemoryStore()
    Migrator(twin, engines).apply()
    return twin.statements


def rendered(engines: Engines) -> str:
    """Return the statements as one file."""
    return "".join(f"{statement};\n\n" for statement in statements(engines))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, engines in ENGINES.items():
        (FOLDER / f"{name}.sql").write_text(rendered(engines), encoding="utf-8")
