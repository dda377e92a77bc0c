# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes, against sockets on this host that behave as broken networks and servers do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _probe
from ansible_collections.onprem.airflow.plugins.module_utils._probe import (
    BrokerFound,
    Failure,
    Found,
    Node,
    broker,
    broker_code,
    broker_nodes,
    clock,
    code,
    connect,
    first_bytes,
    http,
    in_parallel,
    masked,
    postgres_code,
)
from ansible_collections.onprem.airflow.plugins.module_utils._problems import CODES

# What a probe gets, and what it may take: the machine that runs the tests may be busy.
BUDGET = 0.8
LIMIT = BUDGET + 1.5
SECRET = "s3cret/with@signs"

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def within(seconds: float = LIMIT) -> Iterator[None]:
    """Fails when the block took longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@pytest.fixture
def serve() -> Iterator[Callable[[Serve], int]]:
    """Start a server that treats every connection with a function; returns its port."""
    ended = threading.Event()
    open_sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def treat(behave: Serve, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(10)
            behave(connection)
        # A server that is quiet keeps the connection; the others have closed it.

    def accept(listener: socket.socket, behave: Serve) -> None:
        while not ended.is_set():
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            open_sockets.append(connection)
            thread = threading.Thread(target=treat, args=(behave, connection), daemon=True)
            threads.append(thread)
            thread.start()

    def start(behave: Serve) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        open_sockets.append(listener)
        thread = threading.Thread(target=accept, args=(listener, behave), daemon=True)
        threads.append(thread)
        thread.start()
        return listener.getsockname()[1]

    yield start
    ended.set()
    for sock in list(open_sockets):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
    for thread in list(threads):
        thread.join(2)


def silent(connection: socket.socket) -> None:
    """Reads and says nothing."""
    while connection.recv(1000):
        pass


def closing(connection: socket.socket) -> None:
    """Closes at once, without a word."""
    connection.close()


def garbage(connection: socket.socket) -> None:
    """Says what is no protocol that we know."""
    connection.recv(1000)
    connection.sendall(b"220 mail.example.com ESMTP\r\n")
    connection.close()


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def blackhole() -> Iterator[int]:
    """A port whose packets are dropped: the queue of a listener that accepts nobody is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _filler in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        time.sleep(0.05)
        yield port


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for "localhost" that signs itself, with its key in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key, cert = path.with_name("key.pem"), path.with_name("cert.pem")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    path.write_text(key.read_text() + cert.read_text())
    return path


@pytest.fixture
def tls(certificate: Path) -> Callable[[Serve], Serve]:
    """Make a server speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def make(behave: Serve) -> Serve:
        def treat(connection: socket.socket) -> None:
            # A handshake that fails sends its alert and closes the socket.
            with context.wrap_socket(connection, server_side=True) as secure:
                behave(secure)

        return treat

    return make


def answer(body: bytes = b"ok", status: str = "200 OK", *headers: str) -> Serve:
    """Answers over HTTP."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode()

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head + body)
        connection.close()

    return behave


def drip(connection: socket.socket) -> None:
    """Begins an answer and sends one byte now and then: a timeout for each read is never reached."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _byte in range(100):
        time.sleep(0.05)
        connection.sendall(b".")


def drip_header(connection: socket.socket) -> None:
    """As drip(), within the headers."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _byte in range(100):
        time.sleep(0.05)
        connection.sendall(b".")


# --- HTTP; the steps before the first byte are those of all probes


@pytest.mark.parametrize(
    ("behave", "wanted", "stage"),
    [
        (silent, "api_half_open", "request"),
        (closing, "api_half_open", "request"),
        (garbage, "api_error", "request"),
        (drip, "api_timeout", "answer"),
        (drip_header, "api_half_open", "request"),
    ],
)
def test_http_server_that_misbehaves(serve: Callable[[Serve], int], behave: Serve, wanted: str, stage: str) -> None:
    with within():
        found = http(f"http://127.0.0.1:{serve(behave)}/", timeout=BUDGET)
    assert (found.code, found.stage) == (wanted, stage)
    assert found.detail
    assert found.address == "127.0.0.1"
    assert found.tcp_ms is not None


def test_closed_port(closed_port: int) -> None:
    with within():
        found = http(f"http://127.0.0.1:{closed_port}/", prefix="log", timeout=BUDGET)
    assert (found.code, found.stage) == ("log_refused", "tcp")
    assert found.tcp_ms is None


def test_dropped_packets(blackhole: int) -> None:
    with within():
        found = http(f"http://127.0.0.1:{blackhole}/", prefix="log", timeout=BUDGET)
    assert (found.code, found.stage) == ("log_timeout", "tcp")


def test_dropped_packets_of_one_address_leave_time_for_the_next(
    serve: Callable[[Serve], int], blackhole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
    answers = [(*kind, ("127.0.0.1", blackhole)), (*kind, ("127.0.0.1", serve(answer())))]
    monkeypatch.setattr(_probe.socket, "getaddrinfo", lambda *_args, **_kwargs: answers)
    found = http("http://two.example/", timeout=4)
    assert found.status == 200
    assert found.ms is not None and 1900 < found.ms < 3500


def test_unknown_name() -> None:
    found = http("http://nosuch.invalid/", prefix="log", timeout=5)
    assert (found.code, found.stage) == ("log_unresolved", "resolve")
    assert "nosuch.invalid" in found.detail


def test_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()
    monkeypatch.setattr(_probe.socket, "getaddrinfo", lambda *_args, **_kwargs: hung.wait(20))
    with within():
        found = http("http://api.example/", timeout=BUDGET)
    assert (found.code, found.stage) == ("api_unresolved", "resolve")
    hung.set()


def test_http_answer(serve: Callable[[Serve], int]) -> None:
    date = "Date: Sun, 22 Nov 2026 13:00:00 GMT"
    port = serve(answer(b"x" * 100_000, "403 Forbidden", date))
    with within():
        found = http(f"http://127.0.0.1:{port}/a?b=c", timeout=BUDGET)
    assert (found.code, found.status, found.stage) == (None, 403, "done")
    assert len(found.body) == 64 * 1024
    assert found.date == 1795352400
    assert found.offset == pytest.approx(time.time() - 1795352401, abs=3)
    assert found.uncertainty == pytest.approx(1, abs=0.5)


def test_http_sends_what_it_shall(serve: Callable[[Serve], int], monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        got.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        connection.close()

    # A proxy of the host's environment would get the request, and the token with it.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    port = serve(behave)
    assert http(f"http://127.0.0.1:{port}/a?b=c", timeout=BUDGET, headers={"Authorization": SECRET}).status == 204
    assert got[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n".encode() in got[0]
    assert f"Authorization: {SECRET}\r\n".encode() in got[0]


def test_redirection_stays_on_the_host(serve: Callable[[Serve], int]) -> None:
    asked: list[str] = []

    def other(connection: socket.socket) -> None:
        asked.append("other")
        connection.close()

    there = serve(other)

    def behave(connection: socket.socket) -> None:
        path = connection.recv(65536).split()[1].decode()
        asked.append(path)
        target = {"/a": "/b", "/b": f"http://127.0.0.1:{there}/"}[path]
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())
        connection.close()

    assert http(f"http://127.0.0.1:{serve(behave)}/a", timeout=BUDGET).status == 302
    assert asked == ["/a", "/b"]


def test_redirection_without_end(serve: Callable[[Serve], int]) -> None:
    with within():
        found = http(f"http://127.0.0.1:{serve(answer(b'', '302 Found', 'Location: /'))}/", timeout=BUDGET)
    assert found.status == 302


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "127.0.0.1:80", "http://[::1/", "http://h:99999/"])
def test_unusable_url(url: str) -> None:
    assert http(url, timeout=BUDGET).code == "api_error"


def test_plain_client_of_a_tls_server(serve: Callable[[Serve], int], tls: Callable[[Serve], Serve]) -> None:
    with within():
        found = http(f"http://127.0.0.1:{serve(tls(silent))}/", timeout=BUDGET)
    assert found.code == "api_tls_mismatch"


@pytest.mark.parametrize("client_certificate", [False, True])
def test_plain_client_of_a_tls_server_that_sends_no_alert(
    serve: Callable[[Serve], int], certificate: Path, client_certificate: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if client_certificate:
        # Then the second look cannot finish its handshake either: it gets an alert.
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    def behave(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) != b"\x16":
            connection.close()
        else:
            with context.wrap_socket(connection, server_side=True) as secure:
                silent(secure)

    with within():
        found = http(f"http://127.0.0.1:{serve(behave)}/", timeout=BUDGET)
    assert found.code == "api_tls_mismatch"


@pytest.mark.parametrize("behave", [answer(b"", "400 Bad Request"), garbage])
def test_tls_client_of_a_plain_server(serve: Callable[[Serve], int], behave: Serve) -> None:
    with within():
        found = http(f"https://127.0.0.1:{serve(behave)}/", timeout=BUDGET)
    assert (found.code, found.stage) == ("api_tls_mismatch", "tls")


@pytest.mark.parametrize("behave", [silent, closing])
def test_tls_client_without_an_answer(serve: Callable[[Serve], int], behave: Serve) -> None:
    with within():
        found = http(f"https://127.0.0.1:{serve(behave)}/", timeout=BUDGET)
    assert (found.code, found.stage) == ("api_half_open", "tls")


def test_certificate(serve: Callable[[Serve], int], tls: Callable[[Serve], Serve], certificate: Path) -> None:
    port = serve(tls(answer()))
    found = http(f"https://localhost:{port}/", timeout=5, ca=str(certificate))
    assert (found.code, found.status) == (None, 200)
    assert found.tls_ms is not None
    # Nobody whom this host trusts has signed it.
    assert http(f"https://localhost:{port}/", timeout=5).code == "api_certificate"
    # It is for another name.
    other = http(f"https://127.0.0.1:{port}/", timeout=5, ca=str(certificate))
    assert other.code == "api_certificate"
    assert "127.0.0.1" in other.detail
    missing = http(f"https://localhost:{port}/", timeout=5, ca="/nonexistent/ca.pem")
    assert missing.code == "api_certificate"
    assert "No such file" in missing.detail


# --- the broker: what its answers mean


@pytest.mark.parametrize(
    ("reply_code", "text", "stage", "kind", "right"),
    [
        (
            403,
            "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.",
            "login",
            "login_refused",
            None,
        ),
        (530, "NOT_ALLOWED - vhost nope not found", "login", "vhost_missing", None),
        (
            530,
            "NOT_ALLOWED - access to vhost 'airflow' refused for user 'other'",
            "login",
            "permission_missing",
            "vhost",
        ),
        (530, "NOT_ALLOWED - vhost 'airflow' is down", "login", "error", None),
        (
            403,
            "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost 'airflow' refused for user 'airflow'",
            "publish",
            "permission_missing",
            "write",
        ),
        # The broker's word counts more than what was being done.
        (
            403,
            "ACCESS_REFUSED - configure access to queue 'default' in vhost 'airflow' refused for user 'airflow'",
            "queues",
            "permission_missing",
            "configure",
        ),
        (
            403,
            "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused",
            "declare",
            "permission_missing",
            "configure",
        ),
        (403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused", "get", "permission_missing", "read"),
        (403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused", "queues", "permission_missing", None),
        (404, "NOT_FOUND - no queue 'gpu' in vhost 'airflow'", "queues", "queue_missing", None),
        (404, "NOT_FOUND - no exchange", "publish", "error", None),
        (320, "CONNECTION_FORCED - broker forced connection closure", "queues", "error", None),
        (541, "INTERNAL_ERROR", "declare", "error", None),
    ],
)
def test_broker_code(reply_code: int, text: str, stage: str, kind: str, right: str | None) -> None:
    failure = broker_code(reply_code, text, stage)
    assert (failure.kind, failure.right) == (kind, right)
    assert text in failure.detail


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x01\x00\x00\x00\x00\x01\xdd\x00", None),
        (b"\x15\x03\x03\x00\x02\x02\x0a", "tls_mismatch"),
        (b"AMQP\x00\x01\x00\x00", "error"),
        (b"HTTP/1.1", "error"),
    ],
)
def test_first_bytes(data: bytes, kind: str | None) -> None:
    failure = first_bytes(data, "mq1:5672")
    assert (failure.kind if failure else None) == kind


def test_nodes_of_a_url() -> None:
    first, second = broker_nodes("amqp://a:p%40%2Fq@mq1:5673/air%2Fflow;amqps://b@[fd00::1]")
    assert first == Node("mq1", 5673, "a", "p@/q", "air/flow")
    assert second == Node("fd00::1", 5671, "b", "guest", "/", tls=True)
    assert broker_nodes("amqp://mq1//", tls={"ca_certs": "x"}) == [Node("mq1", 5671, tls={"ca_certs": "x"}, vhost="/")]
    assert "p@/q" not in repr(first)


@pytest.mark.parametrize("url", ["redis://:pass@h/0", f"amqp://u:{SECRET}@h:port/"])
def test_unusable_broker_url(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        broker_nodes(url)
    assert "pass" not in str(raised.value) and "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None


# --- the broker: with the library of Celery, where this environment has it


def method(channel: int, numbers: tuple[int, int], arguments: bytes = b"") -> bytes:
    """A frame of AMQP with a method."""
    payload = struct.pack(">HH", *numbers) + arguments
    return struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce"


def short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def closed(numbers: tuple[int, int], reply_code: int, text: str) -> Callable[[int], bytes]:
    """The answer that closes a channel, (20, 40), or the connection, (10, 50)."""
    arguments = struct.pack(">H", reply_code) + short(text) + struct.pack(">HH", 0, 0)
    return lambda channel: method(channel, numbers, arguments)


START = method(0, (10, 10), b"\x00\x09" + struct.pack(">I", 0) + struct.pack(">I", 5) + b"PLAIN" + struct.pack(">I", 0))
# What a broker answers to a method when all is well.
WELL: dict[tuple[int, int], Callable[[int], bytes]] = {
    (10, 11): lambda _channel: method(0, (10, 30), struct.pack(">HIH", 10, 131072, 0)),
    (10, 40): lambda _channel: method(0, (10, 41), b"\x00"),
    (10, 50): lambda _channel: method(0, (10, 51)),
    (20, 10): lambda channel: method(channel, (20, 11), struct.pack(">I", 0)),
    (20, 40): lambda channel: method(channel, (20, 41)),
    (50, 10): lambda channel: method(channel, (50, 11), short("amq.gen-x") + struct.pack(">II", 7, 2)),
    (85, 10): lambda channel: method(channel, (85, 11)),
}


def amqp(changes: dict[tuple[int, int], Callable[[int], bytes]], start: bytes = START) -> Serve:
    """A broker that answers as WELL, but for the changes."""
    answers = {**WELL, **changes}

    def exactly(connection: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = connection.recv(size - len(data))
            if not more:
                raise OSError
            data += more
        return data

    def behave(connection: socket.socket) -> None:
        assert exactly(connection, 8) == b"AMQP\x00\x00\x09\x01"
        connection.sendall(start)
        while True:
            kind, channel, size = struct.unpack(">BHI", exactly(connection, 7))
            payload = exactly(connection, size + 1)
            numbers = struct.unpack(">HH", payload[:4]) if kind == 1 else None
            if numbers in answers:
                connection.sendall(answers[numbers](channel))

    return behave


@pytest.fixture
def ask(serve: Callable[[Serve], int]) -> Callable[..., BrokerFound]:
    """Probe a broker that behaves in a way, with a password that must not show."""
    # Loading it takes a while, once, which is no part of a budget.
    pytest.importorskip("kombu.transport.pyamqp")

    def probe(behave: Serve, **options: Any) -> BrokerFound:
        node = Node("127.0.0.1", serve(behave), "airflow", SECRET, "airflow", options.pop("tls", False))
        with within():
            found = broker(node, timeout=BUDGET, **options)
        assert SECRET not in repr(found)
        return found

    return probe


REFUSED = "ACCESS_REFUSED - {} access to queue 'q' in vhost 'airflow' refused for user 'airflow'"


@pytest.mark.parametrize(
    ("behave", "wanted", "stage", "right"),
    [
        (silent, "broker_half_open", "login", None),
        (closing, "broker_half_open", "login", None),
        (garbage, "broker_error", "login", None),
        (amqp({(10, 11): closed((10, 50), 403, "ACCESS_REFUSED - Login")}), "broker_login_refused", "login", None),
        (amqp({(10, 40): closed((10, 50), 530, "vhost x not found")}), "broker_vhost_missing", "login", None),
        (amqp({(10, 40): lambda _channel: b""}), "broker_half_open", "login", None),
        (
            amqp({(50, 10): closed((20, 40), 403, REFUSED.format("configure"))}),
            "broker_permission_missing",
            "declare",
            "configure",
        ),
        (
            amqp({(60, 40): closed((20, 40), 403, REFUSED.format("write"))}),
            "broker_permission_missing",
            "publish",
            "write",
        ),
        # Nobody confirms the message.
        (amqp({}), "broker_unconfirmed", "publish", None),
        (
            amqp({(60, 40): lambda channel: method(channel, (60, 120), struct.pack(">QB", 1, 0))}),
            "broker_unconfirmed",
            "publish",
            None,
        ),
        (
            amqp({(60, 40): lambda _channel: method(0, (10, 60), short("low on disk"))}),
            "broker_blocked",
            "publish",
            None,
        ),
        # Garbage that says that a frame of a gigabyte follows.
        (amqp({}, start=b"\x01\x00\x00\x40\x00\x00\x00"), "broker_half_open", "login", None),
    ],
)
def test_broker(ask: Callable[..., BrokerFound], behave: Serve, wanted: str, stage: str, right: str | None) -> None:
    found = ask(behave)
    assert (found.code, found.stage, found.right) == (wanted, stage, right), found.detail
    assert found.detail


def test_broker_tells_why_it_is_blocked(ask: Callable[..., BrokerFound]) -> None:
    found = ask(amqp({(60, 40): lambda _channel: method(0, (10, 60), short("low on memory"))}))
    assert "low on memory" in found.detail


def test_broker_drips(ask: Callable[..., BrokerFound]) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(8)
        for byte in START[:-1] * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    assert ask(behave).code == "broker_half_open"


def test_broker_round_trip(ask: Callable[..., BrokerFound]) -> None:
    bodies: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        # The body of what was published, given back by basic.get: class, weight, size, no properties; then the body.
        class Eavesdropper:
            def recv(self, size: int) -> bytes:
                data = connection.recv(size)
                if b"executor_check " in data and data.endswith(b"\xce"):
                    bodies.append(data[:-1])
                return data

            sendall = staticmethod(connection.sendall)

        def give(channel: int) -> bytes:
            body = bodies[-1]
            header = struct.pack(">HHQH", 60, 0, len(body), 0)
            return (
                method(channel, (60, 71), struct.pack(">QB", 1, 0) + short("") + short("q") + struct.pack(">I", 0))
                + struct.pack(">BHI", 2, channel, len(header)) + header + b"\xce"
                + struct.pack(">BHI", 3, channel, len(body)) + body + b"\xce"
            )  # fmt: skip

        changes = {
            (60, 40): lambda channel: method(channel, (60, 80), struct.pack(">QB", 1, 0)),
            (60, 70): give,
            (50, 40): lambda channel: method(channel, (50, 41), struct.pack(">I", 0)),
        }
        amqp(changes)(Eavesdropper())  # type: ignore[arg-type]

    found = ask(behave, queues=["default"])
    assert (found.code, found.stage) == (None, "done"), found.detail
    assert found.round_trip_ms is not None and found.login_ms is not None
    assert [(queue.name, queue.code, queue.messages, queue.consumers) for queue in found.queues] == [
        ("default", None, 7, 2)
    ]


@pytest.mark.parametrize(
    ("reply_code", "text", "wanted"),
    [
        (404, "NOT_FOUND - no queue 'gpu' in vhost 'airflow'", "queue_missing"),
        (403, REFUSED.format("read"), "broker_permission_missing"),
        (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue", None),
    ],
)
def test_broker_queue(ask: Callable[..., BrokerFound], reply_code: int, text: str, wanted: str | None) -> None:
    found = ask(amqp({(50, 10): closed((20, 40), reply_code, text)}), queues=["gpu", "cpu"], round_trip=False)
    assert found.code is None, found.detail
    assert [(queue.name, queue.code) for queue in found.queues] == [("gpu", wanted), ("cpu", wanted)]


def test_broker_tls(ask: Callable[..., BrokerFound], tls: Callable[[Serve], Serve], certificate: Path) -> None:
    refusing = amqp({(10, 11): closed((10, 50), 403, "ACCESS_REFUSED - Login")})
    assert ask(tls(silent)).code == "broker_tls_mismatch"
    assert ask(garbage, tls=True).code == "broker_tls_mismatch"
    assert ask(silent, tls=True).code == "broker_half_open"
    assert ask(tls(refusing), tls=True).code == "broker_certificate"
    assert (
        ask(tls(refusing), tls={"ca_certs": "/nonexistent", "cert_reqs": ssl.CERT_REQUIRED}).code
        == "broker_certificate"
    )
    trusting = {"ca_certs": str(certificate), "cert_reqs": ssl.CERT_REQUIRED}
    # As the library does: without a server_hostname the name is not compared.
    assert ask(tls(refusing), tls=trusting).code == "broker_login_refused"
    assert ask(tls(silent), tls=trusting).code == "broker_half_open"
    named = {**trusting, "server_hostname": "other.example"}
    assert ask(tls(refusing), tls=named).code == "broker_certificate"


# --- PostgreSQL: what its words mean


ATTEMPT = 'connection to server at "10.0.0.1", port 5432 failed: '
PASSWORD = f'{ATTEMPT}FATAL:  password authentication failed for user "a"'
UNKNOWN = f'{ATTEMPT}FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "a", database "d", '


@pytest.mark.parametrize(
    ("sqlstate", "text", "kind"),
    [
        (None, f"connection failed: {PASSWORD}", "login_refused"),
        (None, f"{UNKNOWN}SSL off", "tls_mismatch"),
        (None, f"{UNKNOWN}no encryption", "tls_mismatch"),
        # Tried with TLS, then without.
        (None, f"connection failed: {UNKNOWN}SSL encryption\n{UNKNOWN}no encryption", "login_refused"),
        (None, f"{PASSWORD}\n{UNKNOWN}no encryption", "login_refused"),
        # And the other way round: sslmode=allow.
        (None, f"{UNKNOWN}no encryption\n{PASSWORD}", "login_refused"),
        (None, f"{ATTEMPT}server does not support SSL, but SSL was required", "tls_mismatch"),
        (None, f"{ATTEMPT}SSL error: certificate verify failed", "certificate"),
        (None, f'{ATTEMPT}root certificate file "/x" does not exist\nEither provide the file', "certificate"),
        (None, f'{ATTEMPT}FATAL:  database "airflow" does not exist', "missing"),
        (None, f'{ATTEMPT}FATAL:  role "airflow" does not exist', "login_refused"),
        (None, f"{ATTEMPT}server closed the connection unexpectedly\n\tThis probably means", "half_open"),
        (None, "connection timeout expired", "half_open"),
        (None, f"{ATTEMPT}received invalid response to SSL negotiation: A", "error"),
        (None, f"{ATTEMPT}FATAL:  sorry, too many clients already", "error"),
        ("28P01", "Passwort-Authentifizierung fehlgeschlagen", "login_refused"),
        ("3D000", "Datenbank existiert nicht", "missing"),
        ("42501", "permission denied", "error"),
    ],
)
def test_postgres_code(sqlstate: str | None, text: str, kind: str) -> None:
    failure = postgres_code(sqlstate, text)
    assert failure.kind == kind
    # Each of the server's words once, without what libpq says before them.
    assert "connection to server at" not in failure.detail


def test_postgres_closed_port(closed_port: int) -> None:
    # The network is looked at before the library is needed.
    with within():
        found = _probe.postgres(
            "127.0.0.1", closed_port, "airflow", "airflow", SECRET, prefix="results", timeout=BUDGET
        )
    assert (found.code, found.stage, found.connection) == ("results_refused", "tcp", None)


@pytest.mark.parametrize("behave", [silent, closing, garbage])
def test_postgres_server_that_misbehaves(serve: Callable[[Serve], int], behave: Serve) -> None:
    pytest.importorskip("psycopg")
    with within():
        found = _probe.postgres("127.0.0.1", serve(behave), "airflow", "airflow", SECRET, timeout=BUDGET)
    assert found.code == ("database_error" if behave is garbage else "database_half_open"), found.detail
    assert SECRET not in repr(found)


# --- what all share


def test_every_code_exists() -> None:
    kinds = ("unresolved", "refused", "timeout", "half_open", "tls_mismatch", "certificate", "error")
    for prefix in ("broker", "database", "results", "api"):
        for kind in kinds:
            assert code(prefix, kind) == f"{prefix}_{kind}"
    assert code("broker", "queue_missing") == "queue_missing"
    # Airflow's log servers know no TLS.
    assert code("log", "certificate") == "log_error"
    assert {code("log", kind) for kind in kinds} <= set(CODES)


def test_clock() -> None:
    assert clock(server=100, before=104, after=106) == (5, 1)
    # A server that shows 100 for all of 100 to 102 is as likely at 101.
    assert clock(server=100, before=104, after=106, resolution=2) == (4, 2)


def test_masked() -> None:
    text = f"x {SECRET} amqp://u:{SECRET}@h s3cret%2Fwith%40signs amqp://a:b@h/v\nnext"
    assert masked(text, [SECRET]) == "x *** amqp://***@h *** amqp://***@h/v next"


def test_in_parallel() -> None:
    hung = threading.Event()

    def fails() -> int:
        raise ValueError("no")

    with within():
        outcomes = in_parallel([lambda: 1, fails, lambda: int(hung.wait(20)), lambda: 4], timeout=BUDGET)
    hung.set()
    assert [outcome.value for outcome in outcomes] == [1, None, None, 4]
    assert [outcome.late for outcome in outcomes] == [False, False, True, False]
    assert str(outcomes[1].error) == "no"
    assert in_parallel([], timeout=BUDGET) == []


def test_in_parallel_does_not_wait_for_the_slowest_of_none() -> None:
    with within(BUDGET / 2):
        assert in_parallel([lambda: 1], timeout=20)[0].value == 1


def test_process_ends_while_a_function_hangs() -> None:
    source = Path(_probe.__file__).resolve()
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.onprem.airflow.plugins.module_utils._probe import in_parallel\n"
        "assert in_parallel([lambda: time.sleep(60)], 0.1)[0].late\n"
    )
    path = next(entry for entry in sys.path if (Path(entry) / "ansible_collections/onprem/airflow/plugins").exists())
    assert source.exists()
    with within(20):
        subprocess.run([sys.executable, "-c", program, path], check=True, timeout=30)


def test_what_comes_late_does_not_change_the_result() -> None:
    go = threading.Event()
    ended = threading.Event()

    def work(run: _probe.Run[Found]) -> None:
        run.found.stage = "login"
        go.wait(20)
        run.found.stage = "publish"
        ended.set()
        raise Failure("error", "too late")

    found = _probe.probe(work, _probe.Run(Found(), "broker", "h:1", 0.1, []))
    go.set()
    assert ended.wait(5)
    assert (found.code, found.stage) == ("broker_half_open", "login")


def test_a_late_probe_closes_its_socket(serve: Callable[[Serve], int]) -> None:
    port = serve(silent)
    ended = threading.Event()

    def work(run: _probe.Run[Found]) -> None:
        sock = connect(run, "127.0.0.1", port)
        sock.settimeout(None)
        # Waits for ever, unless somebody ends it.
        sock.recv(1)
        ended.set()

    _probe.probe(work, _probe.Run(Found(), "broker", "h:1", 0.2, []))
    assert ended.wait(5)
