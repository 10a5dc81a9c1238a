#!/bin/sh
# Builds `.label-studio`, an environment with the Label Studio of `requirements/label-studio.lock`, once a lock.
set -eu
cd "$(dirname "$0")/../.."
lock=requirements/label-studio.lock
if [ -e .label-studio/.built ] && cmp -s "$lock" .label-studio/.built; then exit 0; fi
"${PYTHON:-python3}" -m venv --clear .label-studio
.label-studio/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r "$lock"
cp "$lock" .label-studio/.built
