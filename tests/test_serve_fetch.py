"""Fetching URLs that clients send: never from internal addresses, never without limits."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgx.serve.addresses import is_public
from bgx.serve.fetch import (
    BadAddressError,
    FetchError,
    OversizeError,
    parse_target,
    permit_public,
)
from support.net import Net, ok, redirect

if TYPE_CHECKING:
    from pathlib import Path

OUTSIDE = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]

INSIDE = {
    "loopback": ["127.0.0.1", "127.255.0.9", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fc00::1"],
    "link-local, metadata": ["169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254"],
    "metadata elsewhere": ["100.100.100.200", "192.0.0.192", "168.63.129.16"],
    "carriers' NAT": ["100.64.0.1", "100.127.255.255"],
    "multicast, broadcast": ["224.0.0.1", "239.1.1.1", "255.255.255.255", "ff02::1"],
    "reserved": ["240.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"],
    "documentation": ["2001:db8::1", "3fff::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1"],
    "compatible": ["::127.0.0.1", "::7f00:1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::", "2002:c0a8:101::1"],
    "NAT64": ["64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "ISATAP": ["2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:7f00:1"],
    "site-local": ["fec0::1"],
    "no address": ["", "localhost", "1.2.3", "0x7f000001", "2130706433"],
}


@pytest.mark.parametrize("address", OUTSIDE)
def test_public_addresses_are_told(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", [one for kind in INSIDE.values() for one in kind])
def test_inside_addresses_are_told_in_every_disguise(address: str) -> None:
    assert not is_public(address)


@given(address=st.ip_addresses(v=6))
def test_what_python_calls_not_global_is_never_public(address: Any) -> None:
    assert address.is_global or not is_public(str(address))


@given(address=st.ip_addresses(v=4))
def test_what_python_calls_not_global_is_never_public_in_ipv4(address: Any) -> None:
    assert (address.is_global and not address.is_multicast) or not is_public(str(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.01/",
        "http://1.2.3.4.5/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://printer.local/",
        "http://metadata.google.internal/",
        "http://①②⑦.⓪.⓪.①⑥/".replace("⑥", ".1"),
        "http:///nothing",
        "http://",
        "ftp://example.com/a.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "//example.com/a.jpg",
        "example.com/a.jpg",
        "http://user:secret@example.com/",
        "http://example.com:99999/",
        "http://example.com:port/",
        "http://exam ple.com/",
        "http://example.com\\@10.0.0.1/",
        "http://example.com/\r\nHost: inside",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://" + "a" * 5000,
        "http://" + "a" * 70 + ".com/",
        "",
    ],
)
def test_what_is_no_web_address_is_refused_before_anything_is_resolved(url: str) -> None:
    with pytest.raises(BadAddressError):
        parse_target(url)


def test_an_address_is_taken_apart() -> None:
    target = parse_target("https://Bücher.example/a b.jpg?x=ü".replace(" ", "%20"))

    assert (target.scheme, target.host, target.port) == ("https", "xn--bcher-kva.example", 443)
    assert target.path == "/a%20b.jpg?x=%C3%BC"
    assert parse_target("http://[2606:4700::1]:8080").host == "2606:4700::1"
    assert parse_target("http://example.com?x").path == "/?x"


@pytest.mark.parametrize(
    ("port", "scheme", "permitted"),
    [
        (80, "http", True),
        (8080, "http", True),
        (443, "https", True),
        (25, "http", False),
        (6379, "http", False),
        (443, "http", False),
        (80, "https", False),
    ],
)
def test_only_ports_of_the_web_are_connected_to(port: int, scheme: str, permitted: bool) -> None:
    assert permit_public("8.8.8.8", port, scheme) is permitted


# From here on with real servers on this machine, which a fetcher for tests may connect to --------


def test_a_body_is_fetched_from_the_address_that_was_resolved() -> None:
    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with net.serve(ok(b"picture")) as port:
            body = await net.fetcher().fetch(f"http://photos.example:{port}/a.jpg?b=1")
        assert body == b"picture"
        assert net.asked == ["photos.example"]
        [request] = net.requests
        assert request.startswith(b"GET /a.jpg?b=1 HTTP/1.1\r\n")
        assert f"Host: photos.example:{port}\r\n".encode() in request

    asyncio.run(run())


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with net.serve(ok(b"picture")) as port:
            assert await net.fetcher().fetch(f"http://photos.example:{port}/") == b"picture"

    asyncio.run(run())


def test_chunks_and_a_body_without_length_are_read() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    until_end = b"HTTP/1.0 200 OK\r\n\r\nabcde"

    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        for answer in (chunked, until_end):
            async with net.serve(answer) as port:
                assert await net.fetcher().fetch(f"http://photos.example:{port}/") == b"abcde"

    asyncio.run(run())


def test_names_that_lead_inside_are_refused_and_nothing_is_connected() -> None:
    async def run() -> None:
        net = Net()
        async with net.serve(ok(b"secret"), known=False) as port:
            net.names["inside.example"] = [["127.0.0.1"]]
            net.names["mixed.example"] = [["8.8.8.8", "10.0.0.1"]]
            net.names["wrapped.example"] = [["2002:7f00:1::"]]
            for host in ("inside.example", "mixed.example", "wrapped.example", "unknown.example"):
                with pytest.raises(BadAddressError, match="no public web address"):
                    await net.fetcher().fetch(f"http://{host}:{port}/")
            with pytest.raises(BadAddressError):
                await net.fetcher().fetch(f"http://127.0.0.1:{port}/")
        assert net.requests == []

    asyncio.run(run())


def test_a_name_that_changes_its_address_is_asked_once() -> None:
    """DNS rebinding: public when it is checked, inside when it would be connected to."""

    async def run() -> None:
        net = Net()
        net.names["rebinding.example"] = [["127.0.0.1"], ["10.0.0.1"]]
        async with net.serve(ok(b"picture")) as port:
            assert await net.fetcher().fetch(f"http://rebinding.example:{port}/") == b"picture"
            assert net.asked == ["rebinding.example"]
            # And when it is asked again, it is checked again.
            with pytest.raises(BadAddressError):
                await net.fetcher().fetch(f"http://rebinding.example:{port}/")

    asyncio.run(run())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with (
            net.serve(ok(b"picture")) as second,
            net.serve(redirect(f"http://photos.example:{second}/b", status)) as first,
        ):
            assert await net.fetcher().fetch(f"http://photos.example:{first}/a") == b"picture"
        assert net.asked == ["photos.example", "photos.example"]

    asyncio.run(run())


def test_a_redirect_to_a_name_beyond_ascii_is_followed() -> None:
    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with (
            net.serve(ok(b"picture")) as second,
            net.serve(redirect(f"http://photos.example:{second}/schön.jpg")) as first,
        ):
            await net.fetcher().fetch(f"http://photos.example:{first}/a")
        assert net.requests[1].startswith(b"GET /sch%C3%B6n.jpg ")

    asyncio.run(run())


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{inside}/",
        "http://inside.example:{inside}/",
        "//inside.example:{inside}/",
        "http://[::ffff:127.0.0.1]:{inside}/",
        "http://2130706433:{inside}/",
        "file:///etc/passwd",
        "gopher://inside.example/",
        "http://[no-address/",
    ],
)
def test_redirects_to_the_inside_are_refused(location: str) -> None:
    async def run() -> None:
        net = Net()
        net.names |= {"photos.example": [["127.0.0.1"]], "inside.example": [["127.0.0.1"]]}
        async with (
            net.serve(ok(b"secret"), known=False) as inside,
            net.serve(redirect(location.format(inside=inside))) as port,
        ):
            with pytest.raises(BadAddressError):
                await net.fetcher().fetch(f"http://photos.example:{port}/")
        assert len(net.requests) == 1

    asyncio.run(run())


def test_redirects_in_a_circle_end() -> None:
    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with net.serve(redirect("/again")) as port:
            with pytest.raises(FetchError, match="more than 3 times"):
                await net.fetcher(max_redirects=3).fetch(f"http://photos.example:{port}/")
        assert len(net.requests) == 4

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"x" * 1001),
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"100\r\n" + b"x" * 256 + b"\r\n"
        b"400\r\n" + b"x" * 1024 + b"\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 1001,
    ],
)
def test_more_bytes_than_allowed_are_not_read(answer: bytes) -> None:
    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with net.serve(answer) as port:
            with pytest.raises(OversizeError, match="1,000 bytes"):
                await net.fetcher().fetch(f"http://photos.example:{port}/")

    asyncio.run(run())


def test_as_many_bytes_as_allowed_are_read() -> None:
    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with net.serve(ok(b"x" * 1000)) as port:
            assert len(await net.fetcher().fetch(f"http://photos.example:{port}/")) == 1000

    asyncio.run(run())


def test_a_server_that_drips_is_left() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with net.serve(drip) as port:
            with pytest.raises(FetchError, match=r"within 0\.2 s"):
                await net.fetcher(seconds=0.2).fetch(f"http://photos.example:{port}/")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (ok(b"zip", b"Content-Encoding: gzip"), "compressed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "no HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"),
        (b"", "no HTTP"),
    ],
)
def test_an_answer_without_a_picture_is_told(answer: bytes, told: str) -> None:
    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with net.serve(answer) as port:
            with pytest.raises(FetchError, match=told):
                await net.fetcher().fetch(f"http://photos.example:{port}/")

    asyncio.run(run())


def test_nobody_there_is_told() -> None:
    async def run() -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        async with net.serve(b"") as port:
            pass
        with pytest.raises(FetchError, match="cannot be fetched"):
            await net.fetcher().fetch(f"http://photos.example:{port}/")

    asyncio.run(run())


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS as photos.example, and a client's that trusts it."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=photos.example"),
            *("-addext", "subjectAltName=DNS:photos.example"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


@pytest.mark.programs("openssl")
def test_a_server_that_says_no_goodbye_is_not_waited_for(tmp_path: Path) -> None:
    server, trusting = make_certificate(tmp_path)

    def answer_and_stop_reading(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with server.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(ok(b"picture"))
            left.wait(60)

    async def run(port: int) -> None:
        net = Net()
        net.names["photos.example"] = [["127.0.0.1"]]
        net.ports.add(port)
        fetcher = net.fetcher(tls=trusting, seconds=2.0)
        assert await fetcher.fetch(f"https://photos.example:{port}/") == b"picture"

    left = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_and_stop_reading, args=(listener,))
        thread.start()
        try:
            asyncio.run(run(listener.getsockname()[1]))
        finally:
            left.set()
            thread.join()


@pytest.mark.programs("openssl")
def test_certificates_are_checked_for_the_name_asked_for(tmp_path: Path) -> None:
    server, trusting = make_certificate(tmp_path)

    async def run() -> None:
        net = Net()
        net.names |= {"photos.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]}
        async with net.serve(ok(b"picture"), tls=server) as port:
            url = f"https://photos.example:{port}/"
            assert await net.fetcher(tls=trusting).fetch(url) == b"picture"
            with pytest.raises(FetchError, match="certificate is not valid"):
                await net.fetcher(tls=trusting).fetch(f"https://other.example:{port}/")
            with pytest.raises(FetchError, match="certificate is not valid"):
                await net.fetcher().fetch(url)

    asyncio.run(run())
