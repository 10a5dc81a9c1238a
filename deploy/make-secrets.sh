#!/usr/bin/env bash
# Makes the secret files of docker-compose.yml at random, those that are missing; never overwrites one.
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/secrets}"

# Others are kept out by the folder: the files themselves must be readable to the users inside the containers.
chmod 0700 .
umask 0222
made=()

random() { od -An "-N$1" -tx1 /dev/urandom | tr -d ' \n'; }
keep() {
    if [ ! -e "$1" ]; then
        printf '%s' "$2" >"$1"
        made+=("$1")
    fi
}

if [ -e postgres_password ] || [ ! -e store_url ]; then
    keep postgres_password "$(random 24)"
    keep store_url "postgresql://watcher:$(cat postgres_password)@postgres:5432/watcher"
fi
keep platform_token "$(random 24)"
keep control_token "$(random 24)"
keep grafana_password "$(random 12)"

if [ "${#made[@]}" -eq 0 ]; then
    printf 'make-secrets: %s already holds secrets; the database knows their password, so they stay\n' "$PWD" >&2
    exit 1
fi
printf 'make-secrets: wrote %s to %s\n' "${made[*]}" "$PWD"
