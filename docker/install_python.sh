#!/usr/bin/env bash
# .venv with pirl and the given extras (default: all of them), at the tested versions of docker/constraints.txt.
#   docker/install_python.sh [EXTRAS]      e.g. "server,sim"; VENV=PATH puts it elsewhere
# Packages come from where pip is configured to look. uv, itself one of them, installs them in less time than pip;
# where it can't be had or fails, pip does it.
# torch is installed first and alone: with it in place nothing pulls the CUDA build. Set PIRL_TORCH_INDEX to the
# URL of an index with the build you want (CPU, or your CUDA version); unset, a machine without a GPU takes a CPU build
# where its index has one.
set -euo pipefail
cd "$(dirname "$0")/.."

extras=${1:-server,data,sim,metaworld,ros,test}
venv=${VENV:-.venv}
python=${PYTHON:-}
for candidate in python3.11 python3.12; do
    [ -n "$python" ] && break
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then python=$candidate; fi
done
: "${python:?no Python 3.11 or 3.12 with venv found: run docker/install_system.sh first}"

# A half-made environment is made anew.
[ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv --clear "$venv"

# Modules are compiled when they are first imported: most never are. PIRL_COMPILE=1 compiles all at the end, for an
# image whose user can't write there.
with_pip() { "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-compile -c docker/constraints.txt "$@"; }
with_uv() {
    "$venv/bin/python" -m uv pip install -q --python "$venv/bin/python" --index-strategy unsafe-best-match \
        -c docker/constraints.txt "$@"
}
install() { if [ -n "$uv" ]; then with_uv "$@" || with_pip "$@"; else with_pip "$@"; fi; }

# The settings of pip that say where packages are, as uv's variables. A later line wins, in pip's order of precedence.
pip_settings() {
    local name value listed level
    listed=$("$venv/bin/python" -m pip config list)
    while IFS='=' read -r name value; do
        value=${value#\'} value=${value%\'}
        value=${value//\\n/ }
        case ${name##*.} in
            index-url) export UV_DEFAULT_INDEX=$value ;;
            extra-index-url) export UV_INDEX=$value ;;
            find-links) export UV_FIND_LINKS=${value// /,} ;;
            no-index) case ${value,,} in 1 | true | yes | on) export UV_NO_INDEX=1 ;; esac ;;
            trusted-host) export UV_INSECURE_HOST=$value ;;
            constraint) export UV_CONSTRAINT=$value ;;
            cert) export SSL_CERT_FILE=$value ;;
            no-cache-dir) export UV_NO_CACHE=1 ;;
        esac
    done < <(for level in global user site :env:; do grep "^$level\." <<<"$listed" || true; done)
}
uv=
if with_pip "$(grep '^uv==' docker/constraints.txt)" 2>/dev/null; then
    uv=yes
    pip_settings
fi

has_gpu() { [ -e /dev/nvidiactl ] || [ -e /dev/nvhost-gpu ] || command -v nvidia-smi >/dev/null; }

install_torch() {
    local version
    version=$(grep '^torch==' docker/constraints.txt)
    # Not through the constraints' other pins: an index given for torch need not hold anything else.
    if [ -n "${PIRL_TORCH_INDEX:-}" ]; then
        with_pip --index-url "$PIRL_TORCH_INDEX" "$version"
        return
    fi
    if ! has_gpu; then
        install "$version+cpu" 2>/dev/null && return
        echo "No GPU is found here and the index has no CPU build of torch: a CUDA build of several gigabytes may be"
        echo "downloaded now. To avoid it: stop (Ctrl-C) and set PIRL_TORCH_INDEX to the URL of PyTorch's CPU wheels."
    fi
    install "$version"
}

case ",$extras," in *,server,* | *,sim,*)
    "$venv/bin/python" -c 'import torch' 2>/dev/null || install_torch
    ;;
esac
install hatchling editables
install --no-build-isolation -e ".[$extras]"
# The client that the openpi wire is tested with. It asks for numpy < 2, which it does not need.
case ",$extras," in *,test,*) install --no-deps openpi-client==0.1.2 ;; esac
[ -z "${PIRL_COMPILE:-}" ] || "$venv/bin/python" -m compileall -q "$venv/lib" || true
