#!/bin/sh
# Builds what tests and benchmarks need of the outside, each once: `1.5.26` and `1.2.8`, environments with the official
# clients, and `azurite`, the double of Azure's blob store, where there is npm. Without arguments all three.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
pip="-m pip --disable-pip-version-check install --quiet"

for name in ${*:-1.5.26 1.2.8 azurite}; do
    folder=.official-$name
    if [ -e "$folder/.built" ]; then continue; fi
    case $name in
    1.5.26) # needs no torch
        "$python" -m venv --clear "$folder"
        "$folder/bin/python" $pip --no-deps lightly==1.5.26
        "$folder/bin/python" $pip certifi 'pydantic>=1.10.5' python-dateutil requests tqdm urllib3 aenum \
            'numpy>=2' pillow lightly-utils==0.0.2 hydra-core
        ;;
    1.2.8) # wants torch at import; the CPU build will do, found wherever pip is set up to look
        "$python" -m venv --clear "$folder"
        "$folder/bin/python" $pip lightly==1.2.8 torch==2.13.0 torchvision==0.28.0 pytorch-lightning==2.6.6
        ;;
    azurite)
        command -v npm >/dev/null || continue
        mkdir -p "$folder"
        npm install --prefix "$folder" --silent --no-fund --no-audit azurite@3.35.0
        ;;
    *)
        echo "$0: there is no environment '$name'" >&2
        exit 2
        ;;
    esac
    touch "$folder/.built"
done
