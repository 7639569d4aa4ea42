#!/usr/bin/env bash
# Rewrite constraints.txt: what pip resolves for all extras together, beside the versions held by
# the caller. Nothing is installed.
#
#   docker/write-constraints.sh torch==2.13.0 mlflow==3.17.2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf '%s\n' "$@" >"$scratch/held.txt"

python=$(command -v python3.11 || command -v python3)
"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -qq --upgrade pip
"$scratch/venv/bin/pip" install -qq --dry-run --ignore-installed --report "$scratch/report.json" \
    -c "$scratch/held.txt" -e '.[server,trainer,postgres,ray,dev]'

"$python" - "$scratch/report.json" >"$scratch/constraints.txt" <<'PYTHON'
import json
import sys

print("""\
# Exact versions of everything that any extra installs, direct or not. The Makefile, CI and the
# Dockerfile all install with `-c constraints.txt`. Written by `make constraints`.""")
report = json.load(open(sys.argv[1]))
packages = [item["metadata"] for item in report["install"]]
# A local version such as +cpu names one build of a release; the constraint holds for all of them.
pins = {p["name"]: p["version"].split("+")[0] for p in packages if p["name"] != "statecast"}
for name in sorted(pins, key=str.lower):
    print(f"{name}=={pins[name]}")
PYTHON
mv "$scratch/constraints.txt" constraints.txt
git --no-pager diff --stat -- constraints.txt || true
