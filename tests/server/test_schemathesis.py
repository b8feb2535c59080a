"""schemathesis calls what the OpenAPI document allows, and what it does not, on a real server with a token.

No server error, no status, media type, header or body that the document does not have; what breaks the schema is
rejected, and so is a call without its token. A longer run: PIRL_SCHEMATHESIS_EXAMPLES=500 pytest THIS_FILE.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import completed, patient

PROGRAM = Path(os.environ.get("PIRL_ORACLES", Path.home() / ".cache/pirl/oracles")) / "schemathesis/bin/schemathesis"
EXAMPLES = int(os.environ.get("PIRL_SCHEMATHESIS_EXAMPLES", "5"))
SEED = "20261201"
NOT_CHECKED = "positive_data_acceptance"
"""what fits the schema may name a version, robot or task that is not there"""
JOBS = """[[operations]]
include-operation-id = ["createJob", "dryRunJob"]
[operations.checks]
negative_data_rejection.enabled = false"""
"""a job's config may still say 0 for null, as earlier versions did, which the document no longer offers"""


@contextmanager
def serving(root: Path, *concealed: str) -> Iterator[dict[str, Any]]:
    command = [sys.executable, str(Path(__file__).with_name("api_process.py")), str(root), *concealed]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            assert process.stdin is not None
            process.stdin.close()


def settings(said: dict[str, Any]) -> str:
    """Names for the parameters of paths, so that half of all calls reach something."""
    lines = [f"[parameters]\n{_named(said['parameters'])}", JOBS]
    for operation, names in said["operations"].items():
        lines.append(f'[[operations]]\ninclude-operation-id = "{operation}"\n[operations.parameters]\n{_named(names)}')
    return "\n".join(lines)


def _named(names: dict[str, Any]) -> str:
    return "".join(f'"path.{name}" = {json.dumps(value)}\n' for name, value in names.items())


def run(folder: Path, said: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "schemathesis.toml").write_text(settings(said))
    command = [str(PROGRAM), "--config-file", "schemathesis.toml", "run", f"{said['url']}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {said['token']}", "--seed", SEED, "--exclude-checks", NOT_CHECKED]
    command += ["--no-shrink", "--continue-on-failure", "--request-timeout", str(patient(60))]
    return completed([*command, *options], limit_s=600, cwd=folder)


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not PROGRAM.is_file():
        pytest.skip("no schemathesis: docker/install_oracles.sh '' schemathesis")


@pytest.mark.slow
def test_every_operation_keeps_to_the_document(tmp_path: Path) -> None:
    with serving(tmp_path / "root") as said:
        done = run(tmp_path, said, "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES))
    assert done.returncode == 0, done.stdout[:200_000].partition("FAILURES")[2] + done.stdout[-2000:]
    tested, passed = re.search(r"Tested: (\d+)", done.stdout), re.search(r"generated, (\d+) passed", done.stdout)
    assert tested is not None
    assert int(tested[1]) > 40
    assert passed is not None
    assert int(passed[1]) > 2000


def test_a_status_that_the_document_conceals_is_found(tmp_path: Path) -> None:
    with serving(tmp_path / "root", "getJob") as said:
        said["parameters"]["job_id"] = "job_" + "0" * 24
        done = run(tmp_path, said, "--phases", "fuzzing", "--max-examples", "3", "--include-operation-id", "getJob")
    assert done.returncode == 1
    assert "404" in done.stdout
