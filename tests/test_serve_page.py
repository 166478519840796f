"""The page for people, used in a real Chromium."""

from __future__ import annotations

import io
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from support.browser import browsing
from support.pictures import encode
from support.serving import Answer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.browser import Browser
    from support.serving import Server

pytestmark = pytest.mark.programs("chromium")

DONE = "document.querySelectorAll('.card.done').length"
FAILED = "document.querySelectorAll('.card.failed').length"


@pytest.fixture(scope="module")
def server(_stocked_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        *("--model", "u2netp", "--model", "lite", "--cache", tmp_path_factory.mktemp("cache")),
        env={"BGX_HOME": str(_stocked_home)},
    ) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Browser]:
    """The server's page, opened anew; in the end nothing went wrong in it."""
    chromium.resize(1280, 900)
    chromium.messages.clear()
    chromium.requests.clear()
    chromium.open(f"http://127.0.0.1:{server.port}/")
    yield chromium
    assert chromium.messages == []
    # No other host was asked for anything.
    own = (f"http://127.0.0.1:{server.port}/", "blob:", "data:")
    assert [url for url in chromium.requests if not url.startswith(own)] == []


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Twenty, each with a subject of another colour."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = []
    for number in range(20):
        image = Image.new("RGB", (240, 160), "black")
        image.paste((255, 255 - number, 200), (60, 40, 180, 120))
        path = folder / f"photo {number:02}.jpg"
        path.write_bytes(encode(image, "JPEG", quality=95))
        paths.append(path)
    return paths


def text(page: Browser, selector: str) -> str:
    return str(page.run(f"document.querySelector({selector!r}).textContent"))


def choose(page: Browser, name: str, value: str) -> None:
    page.run(
        f"(() => {{ const field = document.querySelector('[name={name}]'); field.value = {value!r};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_twenty_photos_are_dropped_and_cut_out(
    page: Browser, photos: list[Path], tmp_path: Path
) -> None:
    page.drop(*photos)
    page.wait_for(f"{DONE} === 20")

    assert text(page, "#summary").startswith("20 of 20 done")
    assert text(page, ".card .name") == "photo 00.jpg"
    assert text(page, ".card .state").startswith("240 \N{MULTIPLICATION SIGN} 160 · ")
    shown = page.run(
        "[...document.querySelectorAll('.card .after img')]"
        ".every(image => image.complete && image.naturalWidth === 240)"
    )
    assert shown
    for width, phone in ((1280, False), (390, True)):
        for dark in (False, True):
            page.resize(width, 900, dark=dark, phone=phone)
            # Nothing is wider than the window.
            assert page.run("document.documentElement.scrollWidth") <= width
            name = tmp_path / f"{width}-{dark}.png"
            page.screenshot(name)
            with Image.open(name) as picture:
                corner = picture.convert("L").getpixel((3, 3))
            assert isinstance(corner, int)
            assert (corner < 60) == dark


def test_a_folder_is_searched_and_what_is_no_picture_is_left_out(
    page: Browser, photos: list[Path]
) -> None:
    folder = photos[0].parent
    (folder / "below").mkdir()
    photos[19].rename(folder / "below" / "deep.jpg")
    (folder / "notes.txt").write_text("no picture")

    page.drop(folder)
    page.wait_for(f"{DONE} === 20")

    names = page.run("[...document.querySelectorAll('.name')].map(one => one.textContent)")
    assert "deep.jpg" in names
    assert "notes.txt" not in names


def test_what_cannot_be_read_in_a_folder_keeps_nothing_else_back(page: Browser) -> None:
    page.run(
        """(async () => {
          const canvas = Object.assign(document.createElement('canvas'), {width: 90, height: 60});
          const blob = await new Promise(done => canvas.toBlob(done));
          const good = new File([blob], 'good.png', {type: 'image/png'});
          const refuse = (_, reject) => reject(new DOMException('no', 'NotReadableError'));
          const file = (name, read) => ({name, isFile: true, file: read});
          const folder = (name, ...portions) => ({name, isDirectory: true, createReader: () => ({
            readEntries: (resolve, reject) => portions.shift()(resolve, reject),
          })});
          const all = folder('all',
            resolve => resolve([
              file('bad.png', refuse), file('good.png', resolve => resolve(good)),
              folder('locked', refuse),
            ]),
            resolve => resolve([]));
          const drop = new Event('drop', {bubbles: true});
          drop.dataTransfer = {items: [{webkitGetAsEntry: () => all}], files: []};
          document.dispatchEvent(drop);
        })()"""
    )
    page.wait_for(f"{DONE} === 1")

    assert text(page, ".card .name") == "good.png"
    assert text(page, "#note") == "Cannot be read: bad.png, locked"


def test_doubtful_ones_are_marked(page: Browser, tmp_path: Path, photos: list[Path]) -> None:
    (tmp_path / "night.png").write_bytes(encode(Image.new("RGB", (240, 160), "black"), "PNG"))

    page.drop(photos[0], tmp_path / "night.png")
    page.wait_for(f"{DONE} === 2")

    assert text(page, ".card.doubtful .name") == "night.png"
    assert text(page, "#summary") == "2 of 2 done, 1 to look at closely"


def test_the_divider_moves_by_keyboard(page: Browser, photos: list[Path]) -> None:
    page.drop(photos[0])
    page.wait_for(f"{DONE} === 1")
    page.run("document.querySelector('.compare input').focus()")

    for _ in range(10):
        page.press("ArrowRight", 39)

    assert page.run("document.querySelector('.compare input').value") == "10"
    assert "photo 00.jpg" in page.run("document.querySelector('.compare input').ariaLabel")
    clip = page.run("getComputedStyle(document.querySelector('.after')).clipPath")
    assert clip == "inset(0px 0px 0px 10%)"


def test_everything_can_be_reached_by_keyboard(page: Browser, photos: list[Path]) -> None:
    page.drop(photos[0])
    page.wait_for(f"{DONE} === 1")
    page.run("document.activeElement.blur()")
    reached = set()
    for _ in range(30):
        page.press("Tab", 9)
        reached.add(
            page.run("(e => e.id || e.name || e.className || e.tagName)(document.activeElement)")
        )

    assert {"files", "folder", "model", "preset", "format", "ground", "clear", "all"} <= reached
    assert {"enlarge", "save", "remove"} <= reached


def test_the_large_view_opens_goes_on_and_closes(page: Browser, photos: list[Path]) -> None:
    page.drop(*photos[:3])
    page.wait_for(f"{DONE} === 3")
    page.run("document.querySelector('.enlarge').focus()")
    page.press("Enter", 13)

    assert page.run("document.querySelector('dialog').open")
    assert text(page, "dialog p") == "photo 00.jpg"
    page.press("PageDown", 34)
    assert text(page, "dialog p") == "photo 01.jpg"
    page.press("Escape", 27)
    assert not page.run("document.querySelector('dialog').open")


def test_all_come_as_a_zip(page: Browser, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "down").mkdir()
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "down"))
    twins = [tmp_path / "photo 00.png", tmp_path / "PHOTO 01.png"]
    for twin in twins:
        twin.write_bytes(encode(Image.new("RGB", (90, 60), "white"), "PNG"))
    page.drop(*photos[:3], *twins)
    page.wait_for(f"{DONE} === 5")

    page.run("document.querySelector('#all').click()")
    target = tmp_path / "down" / "cut-outs.zip"
    for _ in range(200):
        if target.exists():
            break
        page.run("new Promise(done => setTimeout(done, 50))")

    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            "PHOTO 01-cut-2.png",
            "photo 00-cut-2.png",
            "photo 00-cut.png",
            "photo 01-cut.png",
            "photo 02-cut.png",
        ]
        with Image.open(io.BytesIO(archive.read("photo 01-cut.png"))) as picture:
            assert (picture.mode, picture.size) == ("RGBA", (240, 160))


def test_options_make_the_pictures_anew(page: Browser, photos: list[Path]) -> None:
    page.drop(photos[0])
    page.wait_for(f"{DONE} === 1")

    choose(page, "format", "webp")
    page.wait_for("document.querySelector('.save')?.download === 'photo 00-cut.webp'")
    choose(page, "background", "colour")
    choose(page, "format", "jpg")
    page.wait_for("document.querySelector('.save')?.download === 'photo 00-cut.jpg'")
    assert "JPEG" in text(page, "#chosen")
    choose(page, "preset", "ebay")
    page.wait_for("document.querySelector('[name=format]').options[0].text === 'As ebay asks'")
    choose(page, "model", "lite")
    page.wait_for(f"{DONE} === 1")


def test_a_photo_that_comes_again_is_not_sent_again(
    page: Browser, server: Server, photos: list[Path]
) -> None:
    page.drop(photos[5])
    page.wait_for(f"{DONE} === 1")
    sent = server.figure('bgx_requests_total{route="/cutouts",status="200"}')
    page.open(f"http://127.0.0.1:{server.port}/")

    page.drop(photos[5])
    page.wait_for(f"{DONE} === 1")

    assert text(page, ".card .state").startswith("240 \N{MULTIPLICATION SIGN} 160 · ")
    assert server.figure('bgx_requests_total{route="/cutouts",status="200"}') == sent


def test_a_photo_is_pasted(page: Browser) -> None:
    page.run(
        """new Promise(done => {
          const canvas = Object.assign(document.createElement('canvas'), {width: 90, height: 60});
          canvas.getContext('2d').fillRect(20, 20, 40, 30);
          canvas.toBlob(blob => {
            const data = new DataTransfer();
            data.items.add(new File([blob], 'image.png', {type: 'image/png'}));
            document.dispatchEvent(
              new ClipboardEvent('paste', {clipboardData: data, bubbles: true}));
            done();
          });
        })"""
    )
    page.wait_for(f"{DONE} === 1")

    assert text(page, ".card .name") == "image.png"


def test_what_cannot_be_cut_out_says_why(chromium: Browser, server: Server, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    chromium.resize(1280, 900)
    chromium.open(f"http://127.0.0.1:{server.port}/")

    chromium.drop(broken)
    chromium.wait_for(f"{FAILED} === 1")

    assert "ot a picture" in text(chromium, ".card .state")
    assert text(chromium, "#summary") == "0 of 1 done, 1 failed"
    # The same photo would be refused again.
    assert chromium.run("document.querySelector('.again').hidden")
    chromium.run("document.querySelector('.remove').click()")
    assert chromium.run("document.querySelector('#bar').hidden")
    # The browser itself notes the 422.
    chromium.messages.clear()


def test_a_full_queue_is_waited_for(
    chromium: Browser, stocked_home: Path, photos: list[Path]
) -> None:
    chromium.resize(1280, 900)
    with serving("--queue", "1", "--workers", "1", "--no-cache") as small:
        chromium.open(f"http://127.0.0.1:{small.port}/")
        chromium.drop(*photos)
        chromium.wait_for(f"{DONE} + {FAILED} === 20")

        assert chromium.run(FAILED) == 0
    chromium.messages.clear()


def test_a_server_that_is_gone_is_waited_for(
    chromium: Browser, stocked_home: Path, photos: list[Path]
) -> None:
    chromium.resize(1280, 900)
    with serving("--no-cache") as first:
        chromium.open(f"http://127.0.0.1:{first.port}/")
    chromium.drop(photos[0])
    chromium.wait_for("document.querySelector('.state')?.textContent.includes('be reached; again')")

    with serving("--no-cache", "--port", str(first.port)):
        chromium.wait_for(f"{DONE} + {FAILED} === 1")

        assert chromium.run(FAILED) == 0
    chromium.messages.clear()


class _Proxy(BaseHTTPRequestHandler):
    """Of a server, which it says is stopped when a picture comes for the first time."""

    upstream: Server
    refusals: list[int]

    def do_GET(self) -> None:
        self._answer(self.upstream.get(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refusals:
            html = {"content-type": "text/html"}
            self._answer(Answer(self.refusals.pop(), html, b"<html>Bad Gateway</html>"))
        else:
            self._answer(self.upstream.send(body))

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["content-type"])
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_is_gone_behind_a_proxy_is_waited_for(
    chromium: Browser, server: Server, photos: list[Path]
) -> None:
    chromium.resize(1280, 900)
    handler = type("Handler", (_Proxy,), {"upstream": server, "refusals": [502]})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        chromium.open(f"http://127.0.0.1:{proxy.server_port}/")
        chromium.drop(photos[0])
        chromium.wait_for(f"{DONE} + {FAILED} === 1")
        proxy.shutdown()

    assert chromium.run(FAILED) == 0
    chromium.messages.clear()


def test_a_network_that_cannot_be_loaded_is_not_waited_for(
    chromium: Browser, stocked_home: Path, photos: list[Path]
) -> None:
    chromium.resize(1280, 900)
    with serving("--no-cache", "--model", "u2netp", "--model", "silueta", "--offline") as poor:
        chromium.open(f"http://127.0.0.1:{poor.port}/")
        choose(chromium, "model", "silueta")
        chromium.drop(photos[0])
        chromium.wait_for(f"{FAILED} === 1")

        assert text(chromium, ".card .state").startswith("Silueta: not on this machine")
    chromium.messages.clear()


def test_a_photo_that_is_too_large_is_not_sent(
    chromium: Browser, stocked_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(9000))
    chromium.resize(1280, 900)
    with serving("--no-cache", "--max-body", "8kB") as small:
        chromium.open(f"http://127.0.0.1:{small.port}/")
        chromium.drop(tmp_path / "large.jpg")
        chromium.wait_for(f"{FAILED} === 1")

        assert text(chromium, ".card .state") == "Larger than the 8 kB that this server takes"


def test_a_key_is_asked_for(chromium: Browser, stocked_home: Path, photos: list[Path]) -> None:
    chromium.resize(1280, 900)
    with serving("--no-cache", "--api-key", "open-sesame") as locked:
        chromium.open(f"http://127.0.0.1:{locked.port}/")
        assert not chromium.run("document.querySelector('#key-form').hidden")
        chromium.drop(photos[0])
        chromium.wait_for(f"{FAILED} === 1")

        for key, end in (("öffne dich €", FAILED), ("open-sesame", DONE)):
            chromium.run(f"document.querySelector('#key').value = {key!r}")
            chromium.run("document.querySelector('#key-form').requestSubmit()")
            chromium.wait_for(f"{end} === 1")
            assert ("API key" in text(chromium, ".card .state")) == (end == FAILED)
    chromium.messages.clear()
