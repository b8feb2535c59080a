#!/usr/bin/env bash
# nginx 1.22.1 (Debian bookworm's package) in front of a gRPC server (grpcio 1.85.3) with `grpc_pass` and nothing else set: a
# stream from client to server that lives long, of small messages.
# Expected: `client_max_body_size` (1 MiB unless set) bounds one upload, so at most one message; a stream of messages of 1 kB
# goes on for ever.
# Seen: nginx takes the whole stream for one body. After 1 MiB *in all* it resets the stream: an observation stream ends after
# seconds or days, by its rate, and the client gets INTERNAL with a text that names no limit. One message above 1 MiB gets
# UNKNOWN with "413" in the text, not RESOURCE_EXHAUSTED. `client_max_body_size 0` lets both through.
# Output seen: "unset: stream ended after 0.99 MB: INTERNAL Stream removed (RST_STREAM (Received RST_STREAM with error code
# 2))", "unset: one message of 2 MiB: UNKNOWN Received http2 header with status: 413", "0: stream of 2.00 MB whole".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q grpcio==1.85.3
cd "$folder"
apt-get download -q nginx >/dev/null 2>&1
dpkg -x nginx_*.deb nginx
nginx/usr/sbin/nginx -v 2>&1 | grep -q '/1\.22\.1' || { echo "CHANGED: Debian ships $(nginx/usr/sbin/nginx -v 2>&1)"; exit 1; }
cat >try.py <<'PY'
import subprocess
import time
from concurrent import futures

import grpc

LIMITS = {"unset": "", "0": "client_max_body_size 0;"}
CONF = """daemon off; pid nginx.pid; error_log stderr crit; events {{}}
http {{ access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
  server {{ listen unix:proxy.sock http2; {limit} location / {{ grpc_pass grpc://127.0.0.1:{port}; }} }} }}
"""


def echo_size(requests, context):
    for request in requests:
        yield str(len(request)).encode()


def numbers():
    for _ in range(2000):
        yield bytes(1000)
        time.sleep(0.0005)


def error(call):
    return f"{call.code().name} {call.details()}"


server = grpc.server(futures.ThreadPoolExecutor(8))
methods = {"Stream": grpc.stream_stream_rpc_method_handler(echo_size)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("robot.Robot", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
found = {}
for name, limit in LIMITS.items():
    with open("nginx.conf", "w") as file:
        file.write(CONF.format(limit=limit, port=port))
    proxy = subprocess.Popen(["nginx/usr/sbin/nginx", "-p", ".", "-c", "nginx.conf"])
    try:
        with grpc.insecure_channel("unix:proxy.sock", [("grpc.max_receive_message_length", -1)]) as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
            stream = channel.stream_stream("/robot.Robot/Stream")
            replies = stream(numbers(), timeout=60)
            count = 0
            try:
                for _ in replies:
                    count += 1
                found[f"{name}: stream"] = "whole"
                print(f"{name}: stream of {count / 1000:.2f} MB whole")
            except grpc.RpcError as reset:
                found[f"{name}: stream"] = error(reset)
                print(f"{name}: stream ended after {count / 1000:.2f} MB: {error(reset)}")
            try:
                found[f"{name}: message"] = next(stream(iter([bytes(2 << 20)]), timeout=20)).decode()
            except grpc.RpcError as reset:
                found[f"{name}: message"] = error(reset)
            print(f"{name}: one message of 2 MiB: {found[f'{name}: message']}")
    finally:
        proxy.terminate()
        proxy.wait()
server.stop(0).wait()
assert found["0: stream"] == "whole" and found["0: message"] == str(2 << 20), "without a limit both pass"
assert found["unset: stream"].startswith("INTERNAL Stream removed"), "CHANGED: the stream"
assert found["unset: message"].startswith("UNKNOWN") and "413" in found["unset: message"], "CHANGED: the message"
PY
venv/bin/python try.py
