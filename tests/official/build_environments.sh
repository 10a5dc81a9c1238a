#!/bin/sh
# Builds what the tests here need, each once: the environments of the two generations of official clients. 1.5.26 needs no torch; 1.2.8 wants one at
# import, the CPU build will do (found wherever pip is set up to look).
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
pip="-m pip --disable-pip-version-check install --quiet"

if [ ! -e .official-1.5.26/.built ]; then
    "$python" -m venv --clear .official-1.5.26
    .official-1.5.26/bin/python $pip --no-deps lightly==1.5.26
    .official-1.5.26/bin/python $pip certifi 'pydantic>=1.10.5' python-dateutil requests tqdm urllib3 aenum \
        'numpy>=2' pillow lightly-utils==0.0.2 hydra-core
    touch .official-1.5.26/.built
fi

if [ ! -e .official-1.2.8/.built ]; then
    "$python" -m venv --clear .official-1.2.8
    .official-1.2.8/bin/python $pip lightly==1.2.8 torch==2.13.0 torchvision==0.28.0 \
        pytorch-lightning==2.6.6
    touch .official-1.2.8/.built
fi

# The double of Azure's blob store, where there is npm.
if [ ! -e .official-azurite/.built ] && command -v npm >/dev/null; then
    mkdir -p .official-azurite
    npm install --prefix .official-azurite --silent --no-fund --no-audit azurite@3.35.0
    touch .official-azurite/.built
fi
