"""Rollout systems as Go modules: fetched as `go` fetches them, their manifests held to their CRDs."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

# What is released today needs a newer Go than most machines have; the web provider has not changed since.
ARGO = "github.com/argoproj/argo-rollouts@v1.8.3"
FLAGGER = "github.com/fluxcd/flagger@v1.36.1"
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "number": (int, float),
}
_ENVIRONMENT = {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}


def require_go() -> str:
    """Return the path of `go`; skip without it."""
    found = shutil.which("go")
    if found is None:
        pytest.skip("go is missing: Argo Rollouts and Flagger can't be fetched to test the manifests with")
    return found


def module_folder(module: str) -> Path:
    """Return the folder of a module's source; skip where it can't be fetched.

    Args:
        module: path and version, `github.com/x/y@v1.2.3`.
    """
    done = _go("mod", "download", "-json", module, folder=Path.cwd())
    said = json.loads(done.stdout) if done.stdout else {}
    if "Dir" not in said:
        pytest.skip(f"{module} can't be fetched: {said.get('Error') or done.stderr[-200:]}")
    return Path(said["Dir"])


def built(folder: Path, target: Path) -> Path:
    """Build the program in `folder` and return it; skip where what it needs can't be fetched."""
    fetched = _go("mod", "download", folder=folder)
    if fetched.returncode:
        pytest.skip(f"Go modules can't be fetched: {fetched.stderr[-200:]}")
    made = _go("build", "-o", str(target), ".", folder=folder)
    assert made.returncode == 0, made.stderr
    return target


def violations(crd_file: Path, manifest: dict[str, Any]) -> list[str]:
    """Return what a Kubernetes API server with this CRD would refuse or drop of a manifest."""
    crds = [crd for crd in yaml.safe_load_all(crd_file.read_text(encoding="utf-8")) if crd]
    group, _, version = manifest["apiVersion"].partition("/")
    crd = next(
        one for one in crds if one["spec"]["names"]["kind"] == manifest["kind"] and one["spec"]["group"] == group
    )
    served = next(one for one in crd["spec"]["versions"] if one["name"] == version)
    return list(_wrong(served["schema"]["openAPIV3Schema"], manifest, "$"))


def _wrong(schema: dict[str, Any], value: Any, where: str) -> Any:
    """Yield what is wrong with a value: an unknown field would be dropped in silence, so it is wrong as well."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str):
            yield f"{where}: {value!r} is neither a number nor a text"
        return
    kind = schema.get("type")
    if kind in _KINDS and (not isinstance(value, _KINDS[kind]) or (kind != "boolean" and isinstance(value, bool))):
        yield f"{where}: {value!r} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _wrong(schema.get("items", {}), item, f"{where}[{place}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        yield from (f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value)
        for name, item in value.items():
            if name in known:
                yield from _wrong(known[name], item, f"{where}.{name}")
            elif isinstance(rest, dict):
                yield from _wrong(rest, item, f"{where}.{name}")
            elif known and not rest and not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{where}.{name} is no field"


def _go(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_go(), *arguments],
        cwd=folder,
        env=os.environ | _ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
