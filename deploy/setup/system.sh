#!/usr/bin/env bash
# Installs the Debian packages that set-up and tests need. Does nothing, quickly, where all is there already.
# The embedded Cordon needs none besides Python's own venv; the tests of the distributed one run a Kafka broker (Java,
# Maven) and read it with a consumer of another make (kcat); those of the boards run a Prometheus, those of
# the pagers an Alertmanager, those of the console look at it in a Chromium.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
python=$(deploy/setup/find-python.sh)
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
  # Debian keeps ensurepip apart from Python, in a package named after the version (python3.12-venv).
  missing+=("$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
fi
# `java -version` says: openjdk version "17.0.15" 2025-04-15. Java 8 calls itself 1.8.
java_major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1 || true)
if [ "${java_major:-0}" -lt 17 ]; then
  # A release without 17 has a later one as its default.
  missing+=('openjdk-17-jre-headless|default-jre-headless')
fi
command -v mvn >/dev/null 2>&1 || missing+=(maven)
command -v kcat >/dev/null 2>&1 || missing+=(kcat)
command -v prometheus >/dev/null 2>&1 || missing+=(prometheus)
command -v prometheus-alertmanager >/dev/null 2>&1 || missing+=(prometheus-alertmanager)
command -v chromium >/dev/null 2>&1 || missing+=(chromium)

if [ "${#missing[@]}" -eq 0 ]; then
  echo "system packages: nothing to install"
  exit 0
fi
echo "system packages: installing ${missing[*]}"
deploy/setup/apt.sh "${missing[@]}"
