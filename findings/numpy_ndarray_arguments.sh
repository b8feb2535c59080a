#!/usr/bin/env bash
# numpy 2.4.6 and 2.5.5: code that reads the dtype out of an annotation `NDArray[np.float32]`, as schemas do.
# Expected: `typing.get_args(NDArray[np.float32])` is the shape's type and `numpy.dtype[numpy.float32]`, whose argument is
# the scalar: `get_args(get_args(hint)[1])[0]`.
# Seen: with 2.5 the alias has one argument, the scalar itself; the same line raises IndexError. numpy 2.5 needs
# Python 3.12, so a program that is tested on 3.11 does not meet it.
# Output seen: "numpy 2.4.6: float32", "numpy 2.5.5: IndexError: tuple index out of range".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for python in python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python; do
    if "$python" -c 'import venv' 2>/dev/null; then break; fi
done
cat >"$folder/dtype.py" <<'PY'
import sys
from typing import get_args

import numpy as np
from numpy.typing import NDArray

try:
    found = get_args(get_args(NDArray[np.float32])[1])[0].__name__
except IndexError as error:
    found = f"IndexError: {error}"
print(f"numpy {np.__version__}: {found}")
raise SystemExit(0 if found.startswith(sys.argv[1]) else "it behaves otherwise now")
PY
for pair in 2.4.6:float32 2.5.5:IndexError; do
    "$python" -m venv --clear "$folder/venv"
    "$folder/venv/bin/pip" install -q "numpy==${pair%%:*}"
    "$folder/venv/bin/python" "$folder/dtype.py" "${pair##*:}"
done
