#!/usr/bin/env bash
# Set up the environment of the peers, apart from that of Statecast: their versions must not hold
# ours back. About 2 GB on disk. Run again after a change of constraints.txt.
#
#   benchmarks/peers/install.sh .venv-peers
set -euo pipefail
target=$1
here=$(dirname "${BASH_SOURCE[0]}")

if [ ! -x "$target/bin/python" ]; then
    "${PYTHON:-$(command -v python3.11 || command -v python3)}" -m venv "$target"
fi
echo '*' >"$target/.gitignore" # nothing in it is for git
"$target/bin/python" -m pip install -qq --disable-pip-version-check -c "$here/constraints.txt" \
    torch pandas pyarrow neuralforecast 'gluonts[torch]' 'darts' mlforecast lightgbm statsforecast
