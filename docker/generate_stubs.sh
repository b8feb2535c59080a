#!/usr/bin/env bash
# gRPC stubs of msg/proto into the folder given (the committed ones: msg). A test compares the two.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m grpc_tools.protoc -Ipirl_contract/v1=msg/proto/pirl/v1 \
    --python_out="$1" --pyi_out="$1" --grpc_python_out="$1" pirl_contract/v1/policy.proto
