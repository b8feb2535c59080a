"""The executables: thin nodes over the other folders."""

try:
    import google.protobuf.internal.builder  # noqa: F401
except ImportError as error:
    raise ImportError(
        "protobuf is missing or older than 4.21.12, as Ubuntu 22.04's own is:"
        ' pip install "protobuf>=4.21.12" "grpcio>=1.51.1" "numpy>=1.26.4,<2"'
    ) from error
