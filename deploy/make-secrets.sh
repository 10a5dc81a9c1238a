#!/usr/bin/env bash
# Makes the secret files of docker-compose.yml at random; never overwrites them.
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/secrets}"

if [ -e postgres_password ] || [ -e store_url ]; then
    printf 'make-secrets: %s already holds secrets; the database knows their password, so they stay\n' "$PWD" >&2
    exit 1
fi
# Others are kept out by the folder: the files themselves must be readable to the users inside the containers.
chmod 0700 .
umask 0222
password="$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
printf '%s' "$password" >postgres_password
printf 'postgresql://watcher:%s@postgres:5432/watcher' "$password" >store_url
od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >platform_token
od -An -N12 -tx1 /dev/urandom | tr -d ' \n' >grafana_password
printf 'make-secrets: wrote postgres_password, store_url, platform_token and grafana_password to %s\n' "$PWD"
