#!/bin/bash
# Benchmark training and recording on a GPU for benchmarks/README.md (records go to benchmarks/results, or $OUT).
#
#     bash benchmarks/gpu.sh              # English, Intents, and two bert-base shapes with random weights
#     bash benchmarks/gpu.sh base128      # only one of them, if the running time of commands is limited
#
# Corpora and encoders come from `make fetch`. A machine without them needs _build/benchmarks/packs from a machine that
# has them: .venv/bin/python benchmarks/training.py --pack-only --corpora english intents
# On a machine without git, set the commit yourself: SOI_COMMIT=... bash benchmarks/gpu.sh
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH=.:${PYTHONPATH:-} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
out=${OUT:-benchmarks/results}
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "error: torch cannot use a GPU on this machine. Next: run \`soi doctor\` to see why" >&2; exit 2; }
[ $# -gt 0 ] || set -- english intents base128 basemixed
"$python" benchmarks/training.py --device cuda --out "$out/training.json" --corpora "$@"
case " $* " in *" english "*) "$python" benchmarks/recording.py --device cuda --out "$out/recording.json" ;; esac
[ -n "${OUT:-}" ] || "$python" benchmarks/table.py
