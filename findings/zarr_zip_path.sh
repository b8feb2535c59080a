#!/usr/bin/env bash
# zarr 3.1.6 (3.4.2 does the same): a hierarchy in a ZIP file, `episode.zarr.zip`, named by its path.
# Expected: `zarr.open_group("episode.zarr.zip")` reads the file, as zarr 2 did, and mode "w" writes one.
# Seen: reading says that there is no group; writing makes a directory of that name. Only a `ZipStore` that is made by hand
# reads or writes the file. `consolidate_metadata` on one that is being written adds a second member `zarr.json`, with a
# warning of Python's zipfile; other ZIP tools may give the first one, which has no consolidated metadata.
# Output seen: "read by path: GroupNotFoundError", "written by path: a directory", "members: 2 x zarr.json".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zarr==3.1.6
cat >"$folder/zip.py" <<'PY'
import os
import sys
import warnings
import zipfile

import numpy as np
import zarr

warnings.simplefilter("ignore")
print(f"zarr {zarr.__version__}")
path, written = f"{sys.argv[1]}/episode.zarr.zip", f"{sys.argv[1]}/new.zarr.zip"
with zarr.storage.ZipStore(path, mode="w") as store:
    zarr.create_group(store).create_array("a", data=np.arange(3), chunks=(3,))
    zarr.consolidate_metadata(store)
with zarr.storage.ZipStore(path, mode="r") as store:
    assert zarr.open_group(store, mode="r")["a"][:].tolist() == [0, 1, 2], "the file is a good one"
try:
    zarr.open_group(path, mode="r")
    raise SystemExit("read by path: it works now")
except zarr.errors.GroupNotFoundError as error:
    print(f"read by path: {type(error).__name__}")
zarr.open_group(written, mode="w").create_array("a", data=np.arange(3), chunks=(3,))
print(f"written by path: a {'directory' if os.path.isdir(written) else 'file'}")
count = zipfile.ZipFile(path).namelist().count("zarr.json")
print(f"members: {count} x zarr.json")
raise SystemExit(0 if os.path.isdir(written) and count == 2 else "it behaves otherwise now")
PY
"$folder/venv/bin/python" "$folder/zip.py" "$folder"
