"""The files of deploy/, tried with the programs they are for."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from bgx.cli.serve import serve
from bgx.cli.worker import worker
from support.pictures import encode
from support.serving import PATIENCE, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
_image = Image.new("RGB", (120, 80), "black")
_image.paste("white", (30, 20, 90, 60))
PHOTO = encode(_image, "JPEG")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """deploy/nginx.conf with this machine's paths and ports; gives the port of TLS."""
    folder.mkdir()
    for name in ("tls", "cache", "log"):
        (folder / name).mkdir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", "tls/privkey.pem", "-out", "tls/fullchain.pem", "-subj", "/CN=localhost"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    plain, secure = free_port(), free_port()
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for old, new in (
        ("127.0.0.1:7000", f"127.0.0.1:{upstream}"),
        ("/etc/nginx/tls", str(folder / "tls")),
        ("/var/cache/nginx", str(folder / "cache")),
        ("/var/log/nginx", str(folder / "log")),
        ("/run/nginx.pid", str(folder / "nginx.pid")),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{secure} ssl http2;"),
    ):
        assert old in text
        text = text.replace(old, new)
    text = re.sub(r"listen \[::\].*", "", text)
    # Without a name nginx would run as nobody, who may not enter this test's folder.
    (folder / "nginx.conf").write_text(f"user root;\n{text}")
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"],
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", secure)) == 0:
                    break
            time.sleep(0.05)
        yield secure
    finally:
        process.terminate()
        process.communicate()


def curl(folder: Path, *arguments: str) -> tuple[str, dict[str, str], bytes]:
    """The status line, the headers and the body."""
    subprocess.run(
        ["curl", "--silent", "--insecure", "--http2", "-D", "head", "-o", "body", *arguments],
        cwd=folder,
        check=True,
        timeout=PATIENCE,
    )
    # With `Expect: 100-continue` there are several heads.
    head = (folder / "head").read_text().strip().split("\n\n")[-1].splitlines()
    pairs = (line.partition(":") for line in head[1:])
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return head[0].strip(), headers, (folder / "body").read_bytes()


@pytest.mark.programs("nginx", "openssl", "curl")
def test_nginx_speaks_http_2_and_serves_results_while_bgx_is_stopped(
    stocked_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    with (
        serving("--cache", tmp_path / "bgx", "--log-json") as server,
        nginx(tmp_path / "nginx", server.port) as port,
    ):
        here = f"https://localhost:{port}"
        status, headers, made = curl(
            tmp_path, "-F", "image_file=@photo.jpg", f"{here}/v1.0/removebg"
        )
        assert status.split() == ["HTTP/2", "200"]
        result = here + headers["content-location"]

        first, again = curl(tmp_path, result), curl(tmp_path, result)
        assert [one[1]["x-proxy-cache"] for one in (first, again)] == ["MISS", "HIT"]
        # The client's own address and id reach bgx.
        server.wait_for(lambda: any("removebg" in line for line in server.lines), "a line")
        assert server.stop() == 0

        status, headers, body = curl(tmp_path, result)
        assert status.split()[1] == "200"
        assert headers["x-proxy-cache"] == "HIT"
        assert headers["cache-control"] == "public, max-age=31536000, immutable"
        assert body == first[2] == made
        gone = curl(tmp_path, f"{here}/livez")
        assert gone[0].split()[1] == "502"
        away = curl(tmp_path, "-F", "image_file=@photo.jpg", f"{here}/v1.0/removebg")
        assert (away[0].split()[1], away[1]["retry-after"]) == ("503", "5")
        assert json.loads(away[2])["errors"][0]["code"] == "unavailable"


@pytest.mark.programs("nginx", "openssl", "curl")
def test_nginx_keeps_figures_inside_and_large_bodies_out(
    stocked_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(47_000_000))
    with serving("--no-cache") as server, nginx(tmp_path / "nginx", server.port) as port:
        here = f"https://localhost:{port}"
        # The test is on the machine itself, which may see them.
        assert curl(tmp_path, f"{here}/metrics")[0].split()[1] == "200"
        refused = curl(tmp_path, "--data-binary", "@large", f"{here}/cutouts")
        assert refused[0].split()[1] == "413"
        refused = curl(tmp_path, "-F", "image_file=@large", f"{here}/v1.0/removebg")
        assert refused[0].split()[1] == "400"
        assert json.loads(refused[2])["errors"][0]["code"] == "file_too_large"
        assert curl(tmp_path, "-I", f"{here}/")[0].split()[1] == "200"
        # A client that follows it sends the photo again.
        plain = re.findall(r"listen (\S+);", (tmp_path / "nginx" / "nginx.conf").read_text())[0]
        moved = curl(tmp_path, "-d", "size=auto", f"http://{plain}/v1.0/removebg")
        assert moved[0].split()[1] == "308"


@pytest.mark.programs("systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "bgx.service").read_text(encoding="utf-8")
    unit = tmp_path / "bgx.service"
    # That is where it is to be installed, not where it is.
    unit.write_text(text.replace("/opt/bgx/bin/bgx", "/bin/true"))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=PATIENCE
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "keda.yaml", "bgx.service"])
def test_variables_are_those_that_bgx_reads(name: str) -> None:
    known = {"BGX_HOME"}
    for parameter in [*serve.params, *worker.params]:
        given = parameter.envvar or []
        known |= {given} if isinstance(given, str) else set(given)

    named = set(re.findall(r"BGX_[A-Z_]*[A-Z]", (DEPLOY / name).read_text(encoding="utf-8")))

    assert named - {"BGX_SERVE", "BGX_REDIS_PASSWORD"} <= known


def test_keda_reads_the_password_of_the_workers() -> None:
    comment, _, rest = (DEPLOY / "keda.yaml").read_text(encoding="utf-8").partition("apiVersion")

    [password] = re.findall(r"passwordFromEnv: (\w+)", rest)
    assert f"redis://:$({password})@redis" in comment
    assert f"${{{password}:-" in (DEPLOY / "compose.yaml").read_text(encoding="utf-8")


def dockerfile() -> dict[str, list[str]]:
    """The arguments of each instruction, in order; continued lines are joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, arguments = line.strip().partition(" ")
        if name and name != "#":
            found.setdefault(name, []).append(arguments.strip())
    return found


def test_the_container_s_command_serves_and_its_health_check_tells(tmp_path: Path) -> None:
    instructions = dockerfile()
    variables = dict(pair.split("=", 1) for pair in instructions["ENV"][0].split())
    program, *options = json.loads(instructions["CMD"][0])
    assert (program, options[0]) == ("bgx", "serve")
    health = json.loads(instructions["HEALTHCHECK"][0].partition("CMD ")[2])
    assert health[0] == "python"

    del variables["PATH"]
    with serving(*options[1:], env={**variables, "BGX_HOME": str(tmp_path)}) as server:
        port = str(server.port)
        check = [sys.executable, *(word.replace("7000", port) for word in health[1:])]
        healthy = subprocess.run(check, timeout=PATIENCE)
        made = server.send(PHOTO)
        listening = next(line for line in server.lines if "listening" in line)
        assert server.stop() == 0
    gone = subprocess.run(check, timeout=PATIENCE, stderr=subprocess.DEVNULL)

    assert (healthy.returncode, made.status) == (0, 200)
    assert gone.returncode != 0
    assert "0.0.0.0" in listening
    assert "with lite" in listening
    assert json.loads(next(line for line in server.lines if line.startswith("{")))["status"]
    assert instructions["EXPOSE"] == ["7000"]


def test_the_container_is_built_from_what_there_is() -> None:
    """And from all that the distribution is made from."""
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    build = project["tool"]["hatch"]["build"]["targets"]

    assert {name for name in kept if not (REPOSITORY / name).exists()} == set()
    named = {project["project"]["readme"], *project["project"]["license-files"]}
    named |= {path.partition("/")[0] for path in build["wheel"].get("packages", [])}
    named |= set(build["wheel"].get("force-include", {}))
    assert named <= kept
    extras = re.search(r"/src\[(.*)\]", " ".join(dockerfile()["RUN"]))
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])


def test_the_container_s_files_name_what_there_is() -> None:
    compose = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")

    assert dockerfile()["USER"] == ["bgx"]
    for named in re.findall(r"\./(\w+\.conf):|dockerfile: deploy/(\S+)", compose):
        assert (DEPLOY / "".join(named)).is_file()
