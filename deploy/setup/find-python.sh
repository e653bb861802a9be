#!/usr/bin/env bash
# Prints the Python to build .venv with: python3 if it is 3.11 or later, else the newest python3.N that is.
# PYTHON=... overrides. Exits 1, saying what to install, where there is none.
set -euo pipefail

supported() {
  # Runs it: a version manager's shim may exist for a version that is not active.
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
  if supported "$PYTHON"; then
    echo "$PYTHON"
    exit 0
  fi
  echo "PYTHON=$PYTHON is not a Python 3.11 or later; unset it or name another" >&2
  exit 1
fi

for candidate in python3 python3.{19..11}; do
  if supported "$candidate"; then
    command -v "$candidate"
    exit 0
  fi
done

echo "Cordon needs Python 3.11 or later and found none. On Debian 12+ or Ubuntu 24.04+: apt-get install python3 python3-venv" >&2
exit 1
