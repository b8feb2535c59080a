#!/usr/bin/env bash
# rosbags 0.11.9, `rosbag2.Writer`, in a process that ends without closing it: killed, or by an exception outside of `with`.
# 20,000 messages of 200 bytes, 4 MB, were written by then.
# Expected: as with `ros2 bag record`, all but the last moments can be read: rows of the database, chunks of the MCAP file.
# Seen: with StoragePlugin.SQLITE3 nothing is there, however long it recorded: the writer commits once, when it is closed. With
# StoragePlugin.MCAP whole chunks of 1 MiB are in the file, without an index; what the last chunk held is lost. A converter
# that runs for hours keeps nothing of a recording that it did not finish, and the error is that of an empty file.
# Output seen: "SQLITE3, killed: 0 of 20000 messages", "SQLITE3, exception: 0 of 20000 messages", "SQLITE3, closed: 20000 of
# 20000 messages", "MCAP, killed: 17479 of 20000 messages".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rosbags==0.11.9 mcap==1.6.0 numpy==2.4.6
cat >"$folder/record.py" <<'PY'
import os
import signal
import sys

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

path, plugin, end = sys.argv[1:]
store = get_typestore(Stores.ROS2_JAZZY)
String = store.types["std_msgs/msg/String"]
writer = Writer(path, version=9, storage_plugin=StoragePlugin[plugin])
writer.open()
topic = writer.add_connection("/said", String.__msgtype__, typestore=store)
for step in range(20_000):
    writer.write(topic, step * 1_000_000, store.serialize_cdr(String("x" * 200), String.__msgtype__))
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "exception":
    raise SystemExit(1)
writer.close()
PY
cat >"$folder/count.py" <<'PY'
import sqlite3
import sys
from pathlib import Path

from mcap.exceptions import McapError
from mcap.records import Message
from mcap.stream_reader import StreamReader

folder, plugin, end = sys.argv[1:]
[path] = [each for each in Path(folder).iterdir() if each.suffix in (".db3", ".mcap")]
count = 0
if plugin == "SQLITE3":
    [count] = sqlite3.connect(path).execute("select count(*) from messages").fetchone()
else:
    with path.open("rb") as file:
        try:
            for record in StreamReader(file).records:
                count += isinstance(record, Message)
        except (McapError, EOFError):
            pass
print(f"{plugin}, {end}: {count} of 20000 messages")
if end == "closed":
    assert count == 20_000, "a bag that was closed is whole"
elif plugin == "SQLITE3":
    assert count == 0, "CHANGED: rows are committed on the way"
else:
    assert 10_000 < count < 20_000, "CHANGED: what an MCAP file keeps"
PY
for plugin in SQLITE3 MCAP; do
    for end in killed exception closed; do
        ("$folder/venv/bin/python" "$folder/record.py" "$folder/$plugin-$end" "$plugin" "$end" || true) 2>/dev/null
        "$folder/venv/bin/python" "$folder/count.py" "$folder/$plugin-$end" "$plugin" "$end"
    done
done
