"""Turns a `cordon` process into one of the next release: `ingest.events.SCHEMA` is one higher than in the source.

Python loads this at its start where the folder is on PYTHONPATH. A gateway stays as it is. Who was turned leaves a mark
in the folder that SCHEMA_REHEARSAL_MARKS names: a file of its worker name that holds the number.
"""

import importlib.abc
import importlib.machinery
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

_NAME = "ingest.events"


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads the module with the next schema."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the changed source, and never a cached one."""
        path = self.get_filename(fullname)
        source = self.get_data(path).decode()
        found = re.search(r"^SCHEMA = (\d+)$", source, re.MULTILINE)
        assert found is not None
        raised = int(found[1]) + 1
        name = os.environ.get("CORDON_WORKER_NAME", "")
        if name:
            (Path(os.environ["SCHEMA_REHEARSAL_MARKS"]) / name).write_text(str(raised))
        code: CodeType = compile(source.replace(found[0], f"SCHEMA = {raised}"), path, "exec")
        return code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds that one module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's specification with our loader, and nothing of any other."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == _NAME else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


if "SCHEMA_REHEARSAL_MARKS" in os.environ and "gateway" not in sys.orig_argv:
    sys.meta_path.insert(0, _Finder())
