#!/usr/bin/env bash
# Installs Debian packages: apt.sh PACKAGE... where A|B means B if there is no A. As root or with passwordless sudo;
# otherwise prints the command that a person with the right to run it has to run, and exits 1. Never asks a question.
set -euo pipefail

if ! command -v apt-get >/dev/null 2>&1; then
  echo "no apt-get here: install what corresponds to Debian's \"$*\", then try again" >&2
  exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
  as_root=()
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
else
  echo "needs root, please run: sudo apt-get update && sudo apt-get install -y ${*%%|*}" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq </dev/null
packages=()
for package in "$@"; do
  apt-cache show "${package%%|*}" >/dev/null 2>&1 || package=${package##*|}
  packages+=("${package%%|*}")
done
# sudo drops the environment, so the setting is handed on by env.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null
