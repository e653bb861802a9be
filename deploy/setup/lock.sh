#!/usr/bin/env bash
# Resolves pyproject.toml into requirements.lock (what Cordon runs with) and requirements-dev.lock (that and the tools):
# lock.sh BIN [UV_ARGUMENT...]. Versions already locked stay unless --upgrade is given.
# Markers and hashes cover every platform and Python from 3.11 on. No index is written into the locks.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$1
shift

compile() {
  "$bin/uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --custom-compile-command "make lock" --allow-unsafe "$@" </dev/null
}

compile --output-file requirements.lock "$@"
compile --extra dev --constraints requirements.lock --output-file requirements-dev.lock "$@"
