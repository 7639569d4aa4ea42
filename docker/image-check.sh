#!/usr/bin/env bash
# Build both images, run them as they are meant to be run, and ask for a forecast:
#
#   1. the server, on a bundle directory, answers a forecast over HTTP to who has the key;
#   2. MLflow takes a model that the server, in a second run, fetches from its registry and serves.
#
# Uses Docker where it runs; else buildah, as root, on a base image made by debootstrap:
#   apt-get install buildah debootstrap
#
#   BASE_IMAGE=IMAGE   another base, in either case
#   TARGETS=server     the first part only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=.venv/bin/python
TARGETS=${TARGETS:-server mlflow}
NAME=statecast-check
UID_IN_IMAGE=10001
CAPACITY=120 # seconds that a server may take to be ready

scratch=$(mktemp -d "${TMPDIR:-/tmp}/statecast-image-check.XXXXXX")
chmod 755 "$scratch"

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'image-check: %s\n' "$*" >&2
    exit 1
}

show() { # the end of a log, and out
    tail -40 "$scratch/$1.log" >&2
    fail "see above, and $scratch/$1.log"
}

# --- Two engines, one interface: build, start, stop, in_image -----------------------------------
#
# build TARGET                  -> image $NAME-TARGET
# start TARGET [NAME=VALUE ...] -> runs it on port $port, its log in $scratch/TARGET.log
# stop TARGET                   -> asks it to stop and gives its exit status
# probe TARGET                  -> runs the image's own health check against it
# in_image TARGET COMMAND ...   -> runs a command as the image's user, nothing mounted

pip_arguments() { # $1: whether local folders can be mounted
    local kind value
    while read -r kind value; do
        case $kind in
            arg) printf '%s\n%s\n' --build-arg "$value" ;;
            mount) if $1; then printf '%s\n%s\n' --volume "$value:$value:ro"; fi ;;
        esac
    done < <("$PYTHON" docker/pip-settings.py)
}

use_docker() {
    build() {
        local arguments
        mapfile -t arguments < <(pip_arguments false)
        docker build -q ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} "${arguments[@]}" \
            --target "$1" -t "$NAME-$1" . >"$scratch/build.log" 2>&1 || show build
    }
    start() {
        local target=$1 inside=8000 options=() pair
        shift
        [[ $target == mlflow ]] && inside=5000
        for pair in "$@"; do options+=(--env "$pair"); done
        docker run -d --name "$NAME-$target" --read-only --tmpfs /tmp --cap-drop ALL \
            --security-opt no-new-privileges --add-host host.docker.internal:host-gateway \
            -p "127.0.0.1:$port:$inside" -v "$NAME-$target-data:/data" \
            -v "$scratch/bundle:/model:ro" "${options[@]}" "$NAME-$target" >/dev/null
    }
    stop() {
        docker stop -t 30 "$NAME-$1" >/dev/null
        local status
        status=$(docker inspect -f '{{.State.ExitCode}}' "$NAME-$1")
        docker logs "$NAME-$1" >>"$scratch/$1.log" 2>&1
        docker rm -v "$NAME-$1" >/dev/null
        return "$status"
    }
    in_image() {
        local target=$1
        shift
        docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --entrypoint "$1" \
            "$NAME-$target" "${@:2}"
    }
    probe() {
        local test
        mapfile -t test < <(docker inspect \
            -f '{{range .Config.Healthcheck.Test}}{{println .}}{{end}}' "$NAME-$1" | grep .)
        docker exec "$NAME-$1" "${test[@]:1}"
    }
    clean_up() {
        for target in server mlflow; do
            docker logs "$NAME-$target" >>"$scratch/$target.log" 2>&1 || true
            docker rm -f -v "$NAME-$target" >/dev/null 2>&1 || true
            docker volume rm -f "$NAME-$target-data" >/dev/null 2>&1 || true
        done
    }
    host_from_inside=host.docker.internal
}

use_buildah() {
    [[ $(id -u) == 0 ]] || fail 'buildah is used as root here; run with sudo, or start Docker'
    export BUILDAH_ISOLATION=chroot
    BASE_IMAGE=${BASE_IMAGE:-localhost/statecast-base:bookworm}
    if ! buildah inspect --type image "$BASE_IMAGE" >/dev/null 2>&1; then
        [[ $BASE_IMAGE == localhost/statecast-base:bookworm ]] || buildah pull "$BASE_IMAGE"
        make_base
    fi
    build() {
        local arguments
        mapfile -t arguments < <(pip_arguments true)
        buildah bud --quiet --layers --format docker --network host \
            --build-arg "BASE_IMAGE=$BASE_IMAGE" "${arguments[@]}" \
            --target "$1" -t "$NAME-$1" . >"$scratch/build.log" 2>&1 || show build
        container[$1]=$(buildah from "$NAME-$1")
        mkdir -p "$scratch/$1-data"
        chown "$UID_IN_IMAGE:$UID_IN_IMAGE" "$scratch/$1-data"
    }
    start() {
        local target=$1 options=() pair command
        shift
        for pair in "STATECAST_PORT=$port" "MLFLOW_PORT=$port" "$@"; do options+=(--env "$pair"); done
        mapfile -t command < <(buildah inspect --type image \
            --format '{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' "$NAME-$target" | grep .)
        # A process group of its own, so that clean_up ends all of it and nothing else.
        set -m
        buildah run --cap-drop all --network host --user "$UID_IN_IMAGE:$UID_IN_IMAGE" \
            --mount type=tmpfs,destination=/tmp -v "$scratch/$target-data:/data" \
            -v "$scratch/bundle:/model:ro" "${options[@]}" "${container[$target]}" -- "${command[@]}" \
            >"$scratch/$target.log" 2>&1 &
        running[$target]=$!
        set +m
    }
    stop() {
        local pid=${running[$1]} status=0
        unset "running[$1]"
        kill -TERM "$(server_pid "$pid")"
        wait "$pid" || status=$?
        return "$status"
    }
    server_pid() { # a signal to buildah itself would kill the server
        local pid=$1
        while [[ $(<"/proc/$pid/comm") == *buildah* ]]; do pid=$(pgrep -o -P "$pid"); done
        echo "$pid"
    }
    in_image() {
        buildah run --cap-drop all --mount type=tmpfs,destination=/tmp \
            --user "$UID_IN_IMAGE:$UID_IN_IMAGE" "${container[$1]}" -- "${@:2}"
    }
    probe() {
        local test
        mapfile -t test < <(buildah inspect --type image \
            --format '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' "$NAME-$1" | grep .)
        buildah run --network host --env "STATECAST_PORT=$port" --env "MLFLOW_PORT=$port" \
            "${container[$1]}" -- "${test[@]:1}"
    }
    clean_up() {
        local target
        for target in "${!running[@]}"; do kill -KILL -- "-${running[$target]}" || true; done
        for target in "${!container[@]}"; do buildah rm "${container[$target]}" >/dev/null || true; done
    }
    host_from_inside=127.0.0.1
    declare -gA container=() running=()
}

make_base() {
    command -v debootstrap >/dev/null || fail 'no debootstrap: apt-get install debootstrap'
    say "making the base image $BASE_IMAGE"
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
        bookworm "$scratch/base" >"$scratch/debootstrap.log" 2>&1 || show debootstrap
    local base
    base=$(buildah from scratch)
    tar -C "$scratch/base" -c . | tar -C "$(buildah mount "$base")" -x
    buildah umount "$base" >/dev/null
    buildah commit -q --rm "$base" "$BASE_IMAGE" >/dev/null
    rm -rf "$scratch/base"
}

if docker info >/dev/null 2>&1; then
    use_docker
elif command -v buildah >/dev/null; then
    use_buildah
else
    fail 'neither a running Docker nor buildah is here: apt-get install buildah debootstrap'
fi

finish() {
    local status=$?
    clean_up
    if ((status)); then
        for log in "$scratch"/{server,mlflow}.log; do
            if [[ -s $log ]]; then printf '\n-- %s\n' "$log" && tail -40 "$log"; fi
        done
        printf '\nimage-check: FAILED; logs in %s\n' "$scratch" >&2
    else
        rm -rf "$scratch"
    fi
    exit "$status"
}
trap finish EXIT

free_port() { "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
ask() { "$PYTHON" docker/ask.py --url "http://127.0.0.1:$port" --wait "$CAPACITY" "$@"; }

# --- The check ----------------------------------------------------------------------------------

say 'training a small model'
"$PYTHON" - "$scratch/bundle" <<'PYTHON'
import sys
from pathlib import Path

import pandas as pd

from forecast.bundle import save_bundle
from forecast.config import Config
from forecast.forecaster import Forecaster

sales = pd.read_parquet("examples/data/monthly_retail.parquet")[["unique_id", "ds", "y"]]
small = Config.from_dict({"train": {"max_steps": 40}, "model": {"hidden_size": 16}})
save_bundle(Forecaster(h=6, config=small).fit(sales).bundle_, Path(sys.argv[1]))
PYTHON
chmod -R a+rX "$scratch/bundle"
key=$("$PYTHON" -c 'import secrets; print(secrets.token_urlsafe(24))')
digest=sha256:$("$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.argv[1].encode()).hexdigest())' "$key")

say 'building the server image'
build server

say 'what is in it'
in_image server python -c '
import importlib.util, os, shutil, sys
assert os.getuid() == 10001, os.getuid()
tools = [name for name in ("gcc", "cc", "make", "git") if shutil.which(name)]
extra = [name for name in ("pip", "statsforecast", "ray", "pytest", "matplotlib", "dbos") if importlib.util.find_spec(name)]
open_folders = [
    top for root in ("/app", "/etc", "/usr", "/root", "/home")
    for top, _, _ in os.walk(root) if os.access(top, os.W_OK)
]
assert not tools + extra + open_folders, (tools, extra, open_folders)
print("user 10001, no build tools, nothing of its own to write on; Python", sys.version.split()[0])
'
if in_image server timeout 60 statecast serve --model /model >"$scratch/refused.log" 2>&1; then
    fail 'the server listened beyond loopback without a key'
fi
grep -q 'API key' "$scratch/refused.log" || show refused
echo 'without a key it refuses to start'

say 'the server on a bundle directory'
port=$(free_port)
start server STATECAST_MODEL=/model "STATECAST_API_KEYS=$digest" STATECAST_UNKNOWN_SERIES=create
ask --key "$key"
probe server || fail 'the health check of the image fails'
stop server || fail "the server ended with status $?"
echo 'stopped when asked, with status 0'

if [[ $TARGETS == *mlflow* ]]; then
    say 'building the MLflow image'
    build mlflow

    say 'a model through its registry'
    port=$(free_port)
    mlflow_port=$port
    start mlflow MLFLOW_SERVER_ALLOWED_HOSTS="127.0.0.1:$port,host.docker.internal:$port"
    ask --ready /health
    probe mlflow || fail 'the health check of the MLflow image fails'
    export STATECAST_TRACKING_URI=http://127.0.0.1:$port STATECAST_DATA_DIR=$scratch/trainer
    .venv/bin/statecast --quiet train examples/data/monthly_retail.parquet --freq MS --h 6 \
        --max-steps 40 --windows 1 --baselines '' || .venv/bin/statecast models promote 1
    port=$(free_port)
    start server STATECAST_MODEL=models:/statecast@champion "STATECAST_API_KEYS=$digest" \
        "STATECAST_TRACKING_URI=http://$host_from_inside:$mlflow_port" STATECAST_UNKNOWN_SERIES=create
    ask --key "$key"
    stop server || fail "the server ended with status $?"
    stop mlflow || true # how MLflow ends is not ours to judge
fi

say 'image-check: passed'
