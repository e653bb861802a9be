#!/usr/bin/env bash
# Makes the virtual environment match the lock: venv.sh VENV LOCK STAMP.
# An environment that exists is kept and updated; the stamp holds the hash of what was installed, so a touched but
# unchanged lock costs nothing. The stamp is written last: an interrupted set-up is done again.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$1 lock=$2 stamp=$3

# pyproject.toml counts too: it declares the `cordon` command that the editable install writes.
wanted=$(cat "$lock" pyproject.toml | sha256sum | cut -d ' ' -f 1)
if [ -x "$venv/bin/cordon" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  touch "$stamp"
  exit 0
fi

# Made anew where it is missing, broken (a moved checkout) or too old.
if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
  deploy/setup/system.sh
  python=$(deploy/setup/find-python.sh)
  echo "set-up: $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
fi

echo "set-up: dependencies from $lock (about 1.4 GB on disk; one to three minutes)"
# --no-compile halves the time: Python compiles what is used when it is used, and most of this is not.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile --require-hashes -r "$lock"
# setuptools comes from the lock, so the build needs no isolated environment and fetches nothing unhashed.
# Its warning about folders named like packages is about this checkout, where they are the packages.
PYTHONWARNINGS="ignore:Editable installation" \
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
echo "$wanted" >"$stamp"
