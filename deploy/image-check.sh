#!/usr/bin/env bash
# Builds the image of ../Dockerfile without a container engine or an image registry, and really runs its daemon.
#
# The base is a small Debian 12 made by debootstrap from the package mirror this machine is configured for; the
# wheels are fetched with this machine's pip configuration and handed to the build as a folder. All of it is kept
# below build/image-check, so a second run takes seconds; remove that folder to start afresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SUITE=bookworm
readonly WORK="$PWD/build/image-check"
readonly BASE_ROOT="$WORK/base-$SUITE"
readonly WHEELS="$WORK/wheels"
readonly BASE_IMAGE="localhost/watcher-base:$SUITE"
readonly IMAGE="localhost/datasource-watcher:check"
readonly SLIM_IMAGE="localhost/datasource-watcher:check-slim"
readonly AGAIN_IMAGE="localhost/datasource-watcher:check-again"
# The time that every file and layer bears.
readonly EPOCH=1700000000
readonly PYTHON="${PYTHON:-$PWD/.venv/bin/python}"
readonly USER_ID=10001
readonly MOST_BYTES=250000000

say() { printf 'image-check: %s\n' "$*"; }
fail() { printf 'image-check: FAILED: %s\n' "$*" >&2; exit 1; }

for tool in buildah debootstrap tar timeout pgrep unshare nsenter; do
    command -v "$tool" >/dev/null || fail "'$tool' is missing; on Debian: apt-get install buildah debootstrap procps"
done
[ "$(id -u)" -eq 0 ] || fail "debootstrap and buildah's chroot isolation need root; run it as root or with sudo"
[ -x "$PYTHON" ] || fail "$PYTHON is missing: run 'make setup', or set PYTHON"

builder() { buildah --root "$WORK/storage" --runroot "$WORK/run" "$@"; }

container="" daemon="" data="" log=""
cleanup() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
        # shellcheck disable=SC2046 # a list of process ids
        kill -KILL $(descendants "$daemon") "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    [ -z "$container" ] || builder rm "$container" >/dev/null 2>&1 || true
    if [ "$status" -ne 0 ] && [ -n "$log" ] && [ -s "$log" ]; then
        printf -- '--- the last lines of the daemon ---\n' >&2
        tail -n 40 "$log" >&2
    fi
    [ -z "$data" ] || rm -rf "$data"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

descendants() {
    local child
    for child in $(pgrep -P "$1" || true); do
        descendants "$child"
        printf '%s\n' "$child"
    done
}

make_base() {
    if [ ! -e "$BASE_ROOT.complete" ]; then
        local mirror="${DEBOOTSTRAP_MIRROR:-}"
        if [ -z "$mirror" ] && command -v apt-get >/dev/null; then
            mirror="$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null \
                | awk -v suite="$SUITE" '$2 == suite {print $1; exit}')"
        fi
        say "making a Debian $SUITE base (once; some minutes)"
        rm -rf "$BASE_ROOT"
        # shellcheck disable=SC2086 # without a mirror debootstrap takes its own
        timeout 900 debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
            "$SUITE" "$BASE_ROOT" $mirror >"$WORK/debootstrap.log" 2>&1 \
            || { tail -n 20 "$WORK/debootstrap.log" >&2; fail "debootstrap ended with an error"; }
        rm -rf "$BASE_ROOT"/var/cache/apt/archives/*.deb "$BASE_ROOT"/var/lib/apt/lists/*
        touch "$BASE_ROOT.complete"
    fi
    if ! builder inspect --type image "$BASE_IMAGE" >/dev/null 2>&1; then
        container="$(builder from scratch)"
        tar -C "$BASE_ROOT" -cf "$WORK/base.tar" --one-file-system --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* .
        builder add --quiet "$container" "$WORK/base.tar" / >/dev/null
        rm -f "$WORK/base.tar"
        builder config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
        builder commit --quiet --rm --format docker "$container" "$BASE_IMAGE" >/dev/null
        container=""
    fi
}

fetch_wheels() {
    local wanted
    wanted="$(cat requirements/run.lock requirements/run-slim.lock requirements/build.lock | sha256sum)"
    if [ "$(cat "$WHEELS.complete" 2>/dev/null)" != "$wanted" ]; then
        say "fetching the locked wheels"
        rm -rf "$WHEELS" "$WHEELS.complete"
        local lock
        for lock in run run-slim build; do
            timeout 900 "$PYTHON" -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
                --only-binary=:all: --python-version 3.11 --dest "$WHEELS" --requirement "requirements/$lock.lock" \
                >"$WORK/wheels.log" 2>&1 || { tail -n 20 "$WORK/wheels.log" >&2; fail "a wheel could not be fetched"; }
        done
        printf '%s\n' "$wanted" >"$WHEELS.complete"
    fi
}

# build_image IMAGE VARIANT [OPTION...]
build_image() {
    say "building the image, $2"
    builder rmi "$1" >/dev/null 2>&1 || true
    timeout 900 buildah --root "$WORK/storage" --runroot "$WORK/run" bud --quiet --layers --isolation chroot \
        --pull-never --format docker --timestamp "$EPOCH" "${@:3}" \
        --build-arg "BASE_IMAGE=$BASE_IMAGE" --build-arg PIP_NO_INDEX=1 \
        --build-arg PIP_FIND_LINKS=/wheels --build-arg "VARIANT=$2" --volume "$WHEELS:/wheels:ro" --tag "$1" . \
        >"$WORK/build-$2.log" 2>&1 \
        || { tail -n 40 "$WORK/build-$2.log" >&2; fail "the build of $2 ended with an error"; }
}

# Prints every file of an image: kind, rights, owner, name, where a link leads, digest of the content.
describe_image() {
    local root
    container="$(builder from --pull-never "$1")"
    root="$(builder mount "$container")"
    (
        cd "$root"
        find . -xdev ! -type f -printf '%y %m %U:%G %p %l\n'
        find . -xdev -type f -printf 'f %m %U:%G %p ' -exec sha256sum {} ';' | sed 's/ *[^ ]*$//'
    ) | LC_ALL=C sort
    builder umount "$container" >/dev/null
    builder rm "$container" >/dev/null
    container=""
}

# Builds the image once more from the start, and expects the same files and the same layers.
build_again() {
    build_image "$AGAIN_IMAGE" full --no-cache
    describe_image "$IMAGE" >"$WORK/files-first.txt"
    describe_image "$AGAIN_IMAGE" >"$WORK/files-again.txt"
    diff "$WORK/files-first.txt" "$WORK/files-again.txt" >"$WORK/files.diff" \
        || { head -n 20 "$WORK/files.diff" >&2; fail "two builds of the same tree give other files"; }
    [ "$(layers_of "$IMAGE")" = "$(layers_of "$AGAIN_IMAGE")" ] || fail "two builds of the same tree give other layers"
    say "built twice: the same $(wc -l <"$WORK/files-first.txt") files, the same layers"
}

layers_of() {
    builder inspect --type image "$1" | "$PYTHON" -c '
import json, sys
print(*json.load(sys.stdin)["Docker"]["rootfs"]["diff_ids"], sep="\n")'
}

# Prints a part of the image's configuration, a list one element a line.
of_image() {
    builder inspect --type image "$IMAGE" | "$PYTHON" -c '
import json, sys
part = json.load(sys.stdin)["Docker"]["config"]
for key in sys.argv[1].split("."):
    part = part[int(key) if isinstance(part, list) else key]
print(*part if isinstance(part, (list, dict)) else [part], sep="\n")' "$1"
}

inspect_image() {
    [ "$(of_image User)" = "$USER_ID:$USER_ID" ] || fail "the image does not run as $USER_ID"
    [ "$(of_image Volumes)" = /data ] || fail "/data is not the image's one volume"
    [ "$(of_image Healthcheck.Test.0)" = CMD ] || fail "the image's HEALTHCHECK needs a shell"
}

# Looks into an image: its size, that nobody finds a shell or a package manager, and what it says it is made of.
# look_into IMAGE VARIANT
look_into() {
    local root bytes name
    container="$(builder from --pull-never "$1")"
    root="$(builder mount "$container")"
    bytes="$(find "$root" -xdev -type f -printf '%s\n' | awk '{sum += $1} END {print sum}')"
    say "the image, $2: $((bytes / 1000000)) MB"
    [ "$bytes" -lt "$MOST_BYTES" ] || fail "the image, $2, is larger than $((MOST_BYTES / 1000000)) MB"
    for name in sh bash dash busybox apt-get dpkg pip perl; do
        [ -z "$(find "$root/bin" "$root/usr" "$root/opt" -name "$name" ! -type d -print -quit 2>/dev/null)" ] \
            || fail "there is a '$name' in the image"
    done
    "$PYTHON" - "$root/opt/watcher/sbom.cdx.json" "$2" <<'END' || fail "the bill of materials of $2 is wrong"
import json, sys
names = {part["name"] for part in json.load(open(sys.argv[1]))["components"]}
assert {"datasource-watcher", "sqlalchemy", "apscheduler"} <= {name.lower() for name in names}, names
assert ("obstore" in names) == (sys.argv[2] == "full"), names
END
    builder umount "$container" >/dev/null
    builder rm "$container" >/dev/null
    container=""
}

free_port() { "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

in_container() {
    # exec: the caller's process id is then buildah's own
    exec buildah --root "$WORK/storage" --runroot "$WORK/run" run --isolation chroot --user "$USER_ID:$USER_ID" \
        --volume "$data:/data" --env "WATCHER_HTTP__PORT=$http_port" --env "WATCHER_PLATFORM__PORT=$platform_port" \
        "$container" -- "$@"
}

run_daemon() {
    data="$(mktemp -d "${TMPDIR:-/tmp}/image-check-data.XXXXXX")"
    chown "$USER_ID:$USER_ID" "$data"
    log="$WORK/daemon.log"
    http_port="$(free_port)" platform_port="$(free_port)"
    container="$(builder from --pull-never "$IMAGE")"
    builder config --volume /data- "$container"  # else buildah lays a volume of its own over the folder mounted below
    touch "$WORK/started"
    say "starting the daemon as user $USER_ID"
    mapfile -t command < <(of_image Entrypoint; of_image Cmd)
    in_container "${command[@]}" </dev/null >"$log" 2>&1 &
    daemon=$!
    "$PYTHON" deploy/image_probe.py --url "http://127.0.0.1:$http_port" --data "$data" --process "$daemon"

    mapfile -t health < <(of_image Healthcheck.Test | tail -n +2)
    (in_container "${health[@]}") || fail "the image's HEALTHCHECK does not pass on a healthy daemon"

    # Topmost comes last; above it are buildah's own processes, which pass no signal on.
    local process worker="" started
    for process in $(descendants "$daemon"); do
        [[ "$(tr '\0' ' ' <"/proc/$process/cmdline" 2>/dev/null)" != /opt/watcher/bin/* ]] || worker="$process"
    done
    [ -n "$worker" ] || fail "the daemon's process is not to be found"
    [ "$(stat -c %u "/proc/$worker")" = "$USER_ID" ] || fail "the daemon does not run as user $USER_ID"
    say "sending SIGTERM"
    kill -TERM "$worker"
    started=$SECONDS
    while kill -0 "$daemon" 2>/dev/null && [ $((SECONDS - started)) -lt 60 ]; do sleep 0.2; done
    kill -0 "$daemon" 2>/dev/null && fail "the daemon did not end within 60 s of SIGTERM"
    local status=0
    wait "$daemon" || status=$?
    daemon=""
    [ "$status" -eq 0 ] || fail "the daemon ended with $status after SIGTERM, not with 0"
    if (in_container "${health[@]}") >/dev/null 2>&1; then fail "the HEALTHCHECK passes without a daemon"; fi

    local root written
    root="$(builder mount "$container")"
    written="$(find "$root" -xdev -newer "$WORK/started" -type f -not -path "$root/tmp/*" -not -path "$root/run/*" \
        -not -path "$root/etc/*" -print -quit)"
    builder umount "$container" >/dev/null
    [ -z "$written" ] || fail "the daemon wrote outside /data and /tmp: ${written#"$root"}"
}

# As process 1 of a namespace of its own, which gets no signal it has no handler for; the HEALTHCHECK runs beside it.
# run_as_process_1 ROLE PATH VARIABLE...: PATH answers 200 on http_port when it is up.
run_as_process_1() {
    local role="$1" path="$2" root first status=0 asked
    local environ=(PATH=/opt/watcher/bin WATCHER_DATA_DIR=/data HOME=/tmp PYTHONDONTWRITEBYTECODE=1 "${@:3}")
    root="$(builder mount "$container")"
    log="$WORK/process-1-$role.log"
    say "$role as process 1"
    mkdir -p "$root/data"
    mount --bind "$data" "$root/data"
    # SIGTERM goes to the one child of unshare, which is process 1 in there.
    env --ignore-environment "${environ[@]}" \
        "$(command -v unshare)" --pid --fork --mount --root="$root" --setuid="$USER_ID" --setgid="$USER_ID" \
        --kill-child --mount-proc /opt/watcher/bin/watcher "$role" </dev/null >"$log" 2>&1 &
    daemon=$!
    for ((asked = 0; asked < 240; asked++)); do
        ! "$PYTHON" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$http_port$path', timeout=2)" \
            2>/dev/null || break
        kill -0 "$daemon" 2>/dev/null || fail "$role ended as process 1"
        sleep 0.25
    done
    first="$(pgrep -P "$daemon")"
    beside() {
        env --ignore-environment "${environ[@]}" "$(command -v nsenter)" --target "$first" --pid --mount --root \
            --wdns=/ --setuid="$USER_ID" --setgid="$USER_ID" "$@"
    }
    beside "${health[@]/#watcher//opt/watcher/bin/watcher}" >>"$log" 2>&1 || fail "the HEALTHCHECK does not pass on $role"
    kill -TERM "$first"
    wait "$daemon" || status=$?
    daemon=""
    umount "$root/data"
    builder umount "$container" >/dev/null
    [ "$status" -eq 0 ] || fail "as process 1 $role ended with $status after SIGTERM, not with 0"
}

main() {
    mkdir -p "$WORK"
    make_base
    fetch_wheels
    build_image "$IMAGE" full
    build_again
    build_image "$SLIM_IMAGE" slim
    inspect_image
    look_into "$IMAGE" full
    look_into "$SLIM_IMAGE" slim
    run_daemon
    run_as_process_1 run /health/ready "WATCHER_HTTP__PORT=$http_port" "WATCHER_PLATFORM__PORT=$platform_port"
    # Its folder was the daemon's, with the platform inside: the same keys and tables.
    run_as_process_1 platform /v1/versions/pip/minimum "WATCHER_PLATFORM__PORT=$http_port"
    say "passed: built, ran as $USER_ID, took an image through to done, ended with 0 on SIGTERM, in $SECONDS s"
}

main; exit
