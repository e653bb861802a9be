#!/usr/bin/env bash
# Installs the Debian packages that set-up needs. Does nothing, quickly, where all is there already.
# The embedded Cordon needs none besides Python's own venv; the distributed one will add its packages here.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$(deploy/setup/find-python.sh)
if "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
  echo "system packages: nothing to install"
  exit 0
fi
# Debian keeps ensurepip apart from Python, in a package named after the version (python3.12-venv).
version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
echo "system packages: $python lacks ensurepip, installing $version"
deploy/setup/apt.sh "$version"
