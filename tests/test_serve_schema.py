"""The server against its OpenAPI description, with schemathesis: no 5xx, and no violation."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = int(os.environ.get("BGX_SCHEMA_SECONDS", "40"))


@pytest.mark.skipif(sys.platform == "win32", reason="takes the command of a POSIX environment")
def test_no_request_that_the_description_allows_or_forbids_breaks_the_server(
    stocked_home: Path, tmp_path: Path
) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    assert schemathesis.__version__
    with serving("--cache", tmp_path / "cache", "--max-pixels", "1000000") as server:
        address = f"http://127.0.0.1:{server.port}/openapi.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", address),
                *(
                    "--checks",
                    "not_a_server_error,status_code_conformance,content_type_conformance",
                ),
                *("--max-time", str(SECONDS), "--seed", "1", "--no-color"),
                *("--generation-database", "none", "--max-examples", "2000", "--workers", "2"),
                *("--exclude-path", "/metrics"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS + 120,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.get("/livez").status == 200
        assert server.figure("bgx_waiting") == 0
