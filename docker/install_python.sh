#!/usr/bin/env bash
# .venv with pirl and the given extras (default: all of them), at the tested versions of docker/constraints.txt.
#   docker/install_python.sh [EXTRAS]      e.g. "server,sim"; VENV=PATH puts it elsewhere
# torch is installed first and alone: with it in place nothing pulls the CUDA build. Set PIRL_TORCH_INDEX to the
# URL of an index with the build you want (CPU, or your CUDA version); unset, pip's own configuration decides.
set -euo pipefail
cd "$(dirname "$0")/.."

extras=${1:-server,sim,metaworld,ros,test}
venv=${VENV:-.venv}
python=${PYTHON:-}
for candidate in python3.11 python3.12; do
    [ -n "$python" ] && break
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then python=$candidate; fi
done
: "${python:?no Python 3.11 or 3.12 with venv found: run docker/install_system.sh first}"

# A half-made environment is made anew.
[ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check install -q -c docker/constraints.txt "$@"; }

case ",$extras," in *,server,* | *,sim,*)
    # Not through the constraints' other pins: an index given for torch need not hold anything else.
    "$venv/bin/python" -c 'import torch' 2>/dev/null \
        || pip ${PIRL_TORCH_INDEX:+--index-url "$PIRL_TORCH_INDEX"} "$(grep '^torch==' docker/constraints.txt)"
    ;;
esac
pip hatchling editables
pip --no-build-isolation -e ".[$extras]"
# The client that the openpi wire is tested with. It asks for numpy < 2, which it does not need.
case ",$extras," in *,test,*) pip --no-deps openpi-client==0.1.2 ;; esac
