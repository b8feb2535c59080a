#!/usr/bin/env bash
# The independent implementations that our pi0 and pi0.5 are compared with, each in a virtual environment of its own:
#   docker/install_oracles.sh [DIR] [transformers|lerobot|cyclonedds|zarr34|schemathesis ...]   default: the first two, in ~/.cache/pirl/oracles
# DIR/transformers  Python 3.11, transformers 5.5 (its PI0) on the torch of docker/constraints.txt; 1.2 GB
# DIR/lerobot       Python 3.12, lerobot 0.6.1 (pi0, pi0.5, its policy server); it brings its own, CUDA build of torch; 5 GB
# DIR/cyclonedds    Python 3.11, Eclipse Cyclone DDS: an implementation that our nodes' Fast DDS talks to in a test; 50 MB
# DIR/zarr34        Python 3.12, zarr 3.4.2: reads our episodes and writes what we read, and runs our reader; 250 MB
# DIR/schemathesis  Python 3.11, schemathesis 4.32: calls our REST API with what its OpenAPI document allows; 60 MB
# Nothing of pirl is installed into them. An environment that cannot be made is skipped, with the reason on stderr.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=${1:-$HOME/.cache/pirl/oracles}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- transformers lerobot
mkdir -p "$directory"

skip() { echo "$1 skipped: $2" >&2; }

# python3.X of the given minor version: on PATH, or kept by pyenv, and able to make environments.
find_python() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# make NAME MINOR CHECK REQUIREMENT...: an environment that already passes CHECK is left as it is.
make() {
    local name=$1 minor=$2 check=$3 python
    shift 3
    if "$directory/$name/bin/python" -c "$check" 2>/dev/null; then return; fi
    if ! python=$(find_python "$minor"); then
        skip "$name" "no Python $minor with venv found"
        return
    fi
    "$python" -m venv --clear "$directory/$name"
    local requirement
    for requirement in "$@"; do
        # Word splitting is meant: one argument may hold several requirements that are solved together.
        # shellcheck disable=SC2086
        if ! "$directory/$name/bin/python" -m pip --disable-pip-version-check install -q $requirement; then
            skip "$name" "pip could not install $requirement"
            rm -rf "${directory:?}/$name"
            return
        fi
    done
    "$directory/$name/bin/python" -c "$check" || skip "$name" "installed, but its check fails"
}

for name in "$@"; do
    case $name in
        transformers)
            # torch first and alone, pinned: with it in place nothing pulls the CUDA build.
            make transformers 3.11 'from transformers import PI0ForConditionalGeneration' \
                "${PIRL_TORCH_INDEX:+--index-url $PIRL_TORCH_INDEX }$(grep '^torch==' docker/constraints.txt)" \
                'transformers>=5.5,<5.6 safetensors numpy'
            ;;
        lerobot)
            make lerobot 3.12 'import importlib.metadata as m, transformers; assert m.version("lerobot") == "0.6.1"' \
                'lerobot[pi]==0.6.1'
            # its policy server, which bench/serving.py asks: also into an environment that was made without it
            python=$directory/lerobot/bin/python
            if [ -x "$python" ] && ! "$python" -c 'import lerobot.transport.services_pb2_grpc' 2>/dev/null; then
                "$python" -m pip --disable-pip-version-check install -q 'lerobot[async]==0.6.1' ||
                    skip "lerobot's policy server" "pip could not install lerobot[async]==0.6.1"
            fi
            # its datasets, which tests/interchange/episodes opens, trains on and appends to
            if [ -x "$python" ] && ! "$python" -c 'import av, datasets, pandas' 2>/dev/null; then
                "$python" -m pip --disable-pip-version-check install -q 'lerobot[dataset]==0.6.1' ||
                    skip "lerobot's datasets" "pip could not install lerobot[dataset]==0.6.1"
            fi
            ;;
        cyclonedds)
            make cyclonedds 3.11 'import cyclonedds' 'cyclonedds==11.0.1'
            ;;
        zarr34)
            make zarr34 3.12 'import zarr, cv2, google_crc32c, pydantic; assert zarr.__version__ == "3.4.2"' \
                'zarr==3.4.2 google-crc32c opencv-python-headless pydantic grpcio protobuf'
            ;;
        schemathesis)
            make schemathesis 3.11 'import importlib.metadata as m; assert m.version("schemathesis").startswith("4.32.")' \
                'schemathesis==4.32.*'
            ;;
        *)
            echo "no such oracle: $name (transformers, lerobot, cyclonedds, zarr34, schemathesis)" >&2
            exit 2
            ;;
    esac
done
