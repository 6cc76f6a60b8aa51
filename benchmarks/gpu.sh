#!/bin/bash
# Training and recording on a CUDA machine that has this checkout and torch, transformers, accelerate, pandas, pyarrow.
# It needs no corpora and no encoders there: on a machine that has them, first make packs of token ids and weights,
#
#     .venv/bin/python benchmarks/training.py --pack-only --half --packs .packs --corpora english intents
#
# and bring .packs along (22 MB and 43 MB). Where a command may run ten minutes only, give one corpus a call. Without git
# there, say which commit it is: BENCH_COMMIT=$(git rev-parse HEAD). Of the light dependencies platformdirs may be missing:
# a wheel of it on PYTHONPATH is enough. The records lie in $OUT, or in benchmarks/results.
# Usage: bash benchmarks/gpu.sh [CORPUS ...]     (default: the packs that are there, and the bert-base shapes)
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH=.:${PYTHONPATH:-} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
out=${OUT:-benchmarks/results}
python=${PYTHON:-python3}
packed() { [ -d ".packs/$1-400-half" ] && echo "$1" || true; }
corpora=${*:-$(packed english) $(packed intents) base128 basemixed}
"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())'
# shellcheck disable=SC2086 - a list of words
"$python" benchmarks/training.py --device cuda --half --packs .packs --out "$out/training.json" --corpora $corpora
if [ -n "$(packed english)" ]; then
  "$python" benchmarks/recording.py --device cuda --half --packs .packs --out "$out/recording.json"
fi
