"""Existing clients of remove.bg's API, with only the server's address changed.

They come from their registries; the tests are skipped where npm is missing.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from support.pictures import encode
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Server

ADDRESS = "https://api.remove.bg"

pytestmark = pytest.mark.programs("npm", "node", "curl")


def draw() -> Image.Image:
    image = Image.new("RGB", (1200, 800), "black")
    image.paste("white", (300, 200, 900, 600))
    return image


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    path.write_bytes(encode(draw(), "JPEG"))
    return path


@pytest.fixture(scope="module")
def server(_stocked_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        *("--model", "u2netp", "--cache", tmp_path_factory.mktemp("cache"), "--api-key", "secret"),
        env={"BGX_HOME": str(_stocked_home)},
    ) as running:
        yield running


def replace_address(file: Path, server: Server) -> None:
    text = file.read_text(encoding="utf-8")
    assert ADDRESS in text
    file.write_text(text.replace(ADDRESS, f"http://127.0.0.1:{server.port}"), encoding="utf-8")


def run(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(data: bytes, size: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(data)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGBA", size)
        assert opened.getpixel((size[0] // 2, size[1] // 2)) == (255, 255, 255, 255)
        assert opened.getpixel((1, 1)) == (0, 0, 0, 0)


# npm: remove.bg 1.3.0 -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node_client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    run("npm", "install", "--no-audit", "--no-fund", "remove.bg@1.3.0", cwd=folder)
    replace_address(folder / "node_modules" / "remove.bg" / "dist" / "index.js", server)
    return folder


def call_node(folder: Path, function: str, options: dict[str, Any]) -> Any:
    """What the promise gave, or ``{"rejected": …}``."""
    script = (
        f"require('remove.bg').{function}({json.dumps({'apiKey': 'secret'} | options)})"
        ".catch(rejected => ({rejected})).then(given => console.log(JSON.stringify(given)))"
    )
    return json.loads(run("node", "-e", script, cwd=folder))


def test_npm_s_client_sends_a_file(node_client: Path, photo: Path) -> None:
    target = node_client / "out.png"

    answer = call_node(
        node_client,
        "removeBackgroundFromImageFile",
        {"path": str(photo), "outputFile": str(target), "size": "full", "type": "product"},
    )

    check(target.read_bytes(), (1200, 800))
    assert base64.b64decode(answer["base64img"]) == target.read_bytes()
    assert (answer["resultWidth"], answer["resultHeight"]) == ("1200", "800")
    assert answer["detectedType"] == "product"
    assert answer["creditsCharged"] == "0"
    assert int(answer["rateLimit"]) > 0
    assert answer["rateLimitReset"].isdigit()


def test_npm_s_client_sends_base64_with_every_option(node_client: Path, photo: Path) -> None:
    answer = call_node(
        node_client,
        "removeBackgroundFromImageBase64",
        {
            "base64img": base64.b64encode(photo.read_bytes()).decode(),
            "size": "preview",
            "crop": True,
            "crop_margin": "10%",
            "scale": "80%",
            "position": "center",
            "roi": "0% 0% 100% 100%",
            "channels": "rgba",
            "add_shadow": False,
        },
    )

    with Image.open(io.BytesIO(base64.b64decode(answer["base64img"]))) as opened:
        assert opened.mode == "RGBA"
        assert opened.width * opened.height <= 250_000


def test_npm_s_client_is_told_of_errors_as_it_expects(node_client: Path, photo: Path) -> None:
    wrong_size = call_node(
        node_client, "removeBackgroundFromImageFile", {"path": str(photo), "size": "huge"}
    )
    no_key = call_node(
        node_client, "removeBackgroundFromImageFile", {"path": str(photo), "apiKey": "wrong"}
    )
    address = call_node(
        node_client, "removeBackgroundFromImageUrl", {"url": "https://photos.example/a.jpg"}
    )

    codes = [answer["rejected"][0]["code"] for answer in (wrong_size, no_key, address)]
    assert codes == ["invalid_size", "auth_failed", "invalid_image_url"]
    assert all(answer["rejected"][0]["title"] for answer in (wrong_size, no_key, address))


# PyPI: removebg 0.04 ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python_client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "removebg==0.04"),
        cwd=folder,
    )
    [archive] = folder.glob("removebg-*")
    with tarfile.open(archive) as packed:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later
            packed.extraction_filter = tarfile.data_filter
        packed.extractall(folder)
    client = folder / "removebg-0.04"
    replace_address(client / "removebg" / "removebg.py", server)
    return client


def call_python(folder: Path, call: str, key: str = "secret") -> subprocess.CompletedProcess[str]:
    script = f"from removebg import RemoveBg; RemoveBg({key!r}, 'error.log').{call}"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_pypi_s_client_sends_a_file(python_client: Path, photo: Path) -> None:
    done = call_python(python_client, f"remove_background_from_img_file({str(photo)!r})")

    assert done.returncode == 0, done.stderr
    check((photo.parent / "photo.jpg_no_bg.png").read_bytes(), (612, 408))


def test_pypi_s_client_sends_base64(python_client: Path, photo: Path) -> None:
    text = base64.b64encode(photo.read_bytes()).decode()
    done = call_python(
        python_client,
        f"remove_background_from_base64_img({text!r}, size='4k', new_file_name='b64.png')",
    )

    assert done.returncode == 0, done.stderr
    check((python_client / "b64.png").read_bytes(), (1200, 800))


def test_pypi_s_client_raises_on_errors(python_client: Path, photo: Path) -> None:
    refused = call_python(
        python_client, f"remove_background_from_img_file({str(photo)!r})", key="wrong"
    )

    assert "HTTPError: 403" in refused.stderr
    assert not (python_client / "wrong.png").exists()


# curl, as remove.bg's documentation has it --------------------------------------------------------


def test_curl_sends_a_form(server: Server, photo: Path, tmp_path: Path) -> None:
    run(
        *("curl", "--silent", "--fail", "-H", "X-API-Key: secret"),
        *("-F", f"image_file=@{photo}", "-F", "size=auto", "-F", "format=zip"),
        *("-o", "out.zip", f"http://127.0.0.1:{server.port}/v1.0/removebg"),
        cwd=tmp_path,
    )

    assert (tmp_path / "out.zip").read_bytes()[:2] == b"PK"
