# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: asks a broker, an HTTP server or PostgreSQL, within a time, and names what is wrong.

Every probe has one budget of seconds for all that it does, the resolution of the name included, and returns when that
is spent, whatever the network does. What a network may do is a result, never an exception.
"""

from __future__ import annotations

import contextlib
import copy
import email.utils
import errno
import math
import re
import socket
import ssl
import threading
import time
import typing as t
import urllib.parse
from dataclasses import dataclass, field
from http import client

from ansible_collections.onprem.airflow.plugins.module_utils._problems import CODES

T = t.TypeVar("T")

# What a peer sends first when it speaks TLS and does not understand what it got: an alert record of SSL 3 or TLS 1.
TLS_ALERT = b"\x15\x03"
BODY_LIMIT = 64 * 1024
REDIRECTS = 3
# The header Date has whole seconds, and servers such as uvicorn write it once a second for all answers.
DATE_RESOLUTION = 2.0
# The steps of a probe stop this much (seconds) before its budget ends: what they say is better than "not in time".
SLACK = 0.05


@dataclass
class Found:
    """How far a probe came, and what is wrong.

    C(stage) is the step that it reached: resolve, tcp, tls, login, ... or done. C(code) is one of CODES, or None when
    all is well. C(detail) says what happened in words, without any secret. Times are milliseconds, None when that step
    was not finished.
    """

    stage: str = "resolve"
    code: str | None = None
    detail: str = ""
    address: str | None = None
    resolve_ms: float | None = None
    tcp_ms: float | None = None
    tls_ms: float | None = None
    ms: float | None = None


@dataclass
class QueueFound:
    """A queue, as the broker describes it to a client. C(code) is queue_missing, broker_..., or None."""

    name: str
    code: str | None = None
    detail: str = ""
    messages: int | None = None
    consumers: int | None = None


@dataclass
class BrokerFound(Found):
    """What a broker's node answered. C(right) is the permission that lacks, if the broker named it."""

    login_ms: float | None = None
    round_trip_ms: float | None = None
    right: str | None = None
    version: str | None = None
    queues: list[QueueFound] = field(default_factory=list)


@dataclass
class HttpFound(Found):
    """An answer over HTTP, of any status. C(offset) is this host's clock minus the server's, in seconds."""

    status: int | None = None
    body: str = ""
    date: float | None = None
    offset: float | None = None
    uncertainty: float | None = None


@dataclass
class PostgresFound(Found):
    """A connection to a database, which the caller closes. C(offset) as in HttpFound."""

    login_ms: float | None = None
    connection: t.Any = None
    offset: float | None = None
    uncertainty: float | None = None


@dataclass(frozen=True)
class Node:
    """A node of the broker. C(tls) is Celery's broker_use_ssl: false, true, or a dictionary."""

    host: str
    port: int = 5672
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    tls: bool | dict[str, t.Any] = False
    login_method: str = "PLAIN"


@dataclass(frozen=True)
class Outcome(t.Generic[T]):
    """What came of a function: its value, or what it raised, or C(late) when it was not back in time."""

    value: T | None = None
    error: Exception | None = None
    late: bool = False


F = t.TypeVar("F", bound=Found)


# --- time


class Deadline:
    """A moment in the future, by a clock that nobody sets."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds until then; never 0, which sockets take for "do not wait at all"."""
        return max(self.end - time.monotonic(), 0.001)

    @property
    def over(self) -> bool:
        """Whether it is past."""
        return time.monotonic() >= self.end


def _ms(since: float) -> float:
    return round((time.monotonic() - since) * 1000, 2)


def in_parallel(functions: t.Sequence[t.Callable[[], T]], timeout: float) -> list[Outcome[T]]:
    """Runs functions at the same time, and returns what came of each, in order, after C(timeout) seconds at most.

    They run in daemon threads: one that hangs keeps nothing from its end, not even the process.
    """
    outcomes: list[Outcome[T]] = [Outcome(late=True) for _function in functions]
    done = threading.Condition()
    waiting = set(range(len(functions)))

    def run(index: int, function: t.Callable[[], T]) -> None:
        try:
            outcome = Outcome(value=function())
        except Exception as error:
            outcome = Outcome(error=error)
        with done:
            outcomes[index] = outcome
            waiting.remove(index)
            done.notify_all()

    deadline = Deadline(timeout)
    for index, function in enumerate(functions):
        threading.Thread(target=run, args=(index, function), daemon=True).start()
    with done:
        done.wait_for(lambda: not waiting, timeout=deadline.left())
        # A copy, which one that comes late does not change.
        return list(outcomes)


# --- failures


class Failure(Exception):
    """What a probe found out; ends its steps. C(kind) is the code without the prefix, unless it is a whole code."""

    def __init__(self, kind: str, detail: str, right: str | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.right = right


class Run(t.Generic[F]):
    """A probe under way: what it found so far, its deadline, and what must be closed to end it."""

    def __init__(self, found: F, prefix: str, target: str, timeout: float, secrets: t.Iterable[str]) -> None:
        self.found = found
        self.prefix = prefix
        self.target = target
        self.timeout = timeout
        self.deadline = Deadline(timeout - min(SLACK, timeout / 10))
        self.secrets = [secret for secret in secrets if secret]
        self.lock = threading.Lock()
        self.abandoned = False
        self.open: list[socket.socket] = []

    def holds(self, sock: socket.socket) -> None:
        """Remembers a socket, so that stop() ends who waits for it."""
        with self.lock:
            if not self.abandoned:
                self.open.append(sock)
                return
        sock.close()
        raise TimeoutError

    def stop(self) -> F:
        """Ends it from outside; returns what it found until now."""
        with self.lock:
            self.abandoned = True
            found = copy.copy(self.found)
            if isinstance(found, BrokerFound):
                found.queues = list(found.queues)
            for sock in self.open:
                # Not close(): the thread would go on with the number of a file that is another one by then.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        return found

    def fail(self, found: F, failure: Failure) -> F:
        """Writes a failure into a result."""
        found.code = code(self.prefix, failure.kind)
        found.detail = masked(failure.detail, self.secrets)
        if failure.right is not None and isinstance(found, BrokerFound):
            found.right = failure.right
        return found


def code(prefix: str, kind: str) -> str:
    """The code for a kind of failure of one service; its "error" when the service does not know the kind."""
    for name in (f"{prefix}_{kind}", kind):
        if name in CODES:
            return name
    return f"{prefix}_error"


def masked(text: str, secrets: t.Iterable[str]) -> str:
    """The text on one line, without the secrets, and without the password of any URL."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for form in (secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret)):
            # A very short one may be part of any word: then only where it is quoted or assigned.
            if len(form) > 3:
                text = text.replace(form, "***")
    text = re.sub(r"(?<=://)[^/\s@]*@", "***@", text)
    return " ".join(text.split())[:600]


def late(stage: str, target: str, timeout: float) -> Failure:
    """What it means that the budget ended in this stage."""
    seconds = f"{timeout:g} s"
    if stage == "resolve":
        return Failure("unresolved", f"the name of {target} was not resolved within {seconds}")
    if stage == "tcp":
        return Failure("timeout", f"{target} did not accept a connection within {seconds}")
    if stage in ("tls", "login", "request"):
        return Failure("half_open", f"{target} accepted the connection and did not answer within {seconds} ({stage})")
    if stage == "publish":
        return Failure("unconfirmed", f"{target} did not confirm a message within {seconds}")
    return Failure("timeout", f"{target} stopped answering; {seconds} were over ({stage})")


# Words of OpenSSL that say that the other side's first bytes were no TLS at all.
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG")
# Alerts by which a server refuses the certificate of the client, or its lack.
_CERTIFICATE_ALERT = re.compile(r"ALERT_\w*(CERTIFICATE|UNKNOWN_CA)")


def tls_failure(error: Exception, target: str) -> Failure:
    """What a failed TLS handshake means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure("certificate", f"the certificate of {target} is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return Failure("half_open", f"{target} closed the connection within the TLS handshake")
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).upper().replace(" ", "_")
        if any(word in reason for word in _NO_TLS):
            return Failure("tls_mismatch", f"{target} does not speak TLS, but TLS is wanted")
        if _CERTIFICATE_ALERT.search(reason):
            return Failure("certificate", f"{target} refuses the certificate of this host, or its lack: {reason}")
        if "NO_CERTIFICATE_OR_CRL_FOUND" in reason or "PEM" in reason or "KEY_VALUES_MISMATCH" in reason:
            return Failure("certificate", f"a certificate or key file of this host is unusable: {reason}")
        return Failure("error", f"the TLS handshake with {target} failed: {reason}")
    if isinstance(error, TimeoutError):
        return Failure("half_open", f"{target} accepted the connection and left the TLS handshake unanswered")
    if isinstance(error, OSError):
        # The files of the context; errors of the network are above.
        return Failure("certificate", f"a certificate or key file of this host cannot be read: {error.strerror}")
    return Failure("error", f"the TLS settings for {target} are unusable: {error}")


def connect_failure(errors: t.Sequence[tuple[str, OSError]], target: str) -> Failure:
    """What it means that none of a name's addresses could be connected to."""
    told = "; ".join(f"{address}: {error.strerror or 'timed out'}" for address, error in errors)
    numbers = [error.errno for _address, error in errors]
    if numbers and all(number == errno.ECONNREFUSED for number in numbers):
        return Failure("refused", f"nothing listens at {target} ({told})")
    lost = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ETIMEDOUT)
    if any(isinstance(error, TimeoutError) or error.errno in lost for _address, error in errors):
        return Failure("timeout", f"{target} cannot be reached ({told})")
    return Failure("error", f"no connection to {target} ({told or 'the name has no address'})")


# --- the steps that all have


def probe(work: t.Callable[[Run[F]], None], run: Run[F]) -> F:
    """Runs the steps of a probe in a thread of its own, and returns its result in time."""

    def steps() -> None:
        started = time.monotonic()
        try:
            work(run)
            run.found.stage = "done"
        except Failure as failure:
            run.fail(run.found, failure)
        except TimeoutError:
            run.fail(run.found, late(run.found.stage, run.target, run.timeout))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            run.fail(run.found, Failure("error", f"{run.target}: unexpected, at {run.found.stage}: {said}"))
        finally:
            run.found.ms = _ms(started)
            if run.found.code is not None or run.abandoned:
                for sock in run.open:
                    with contextlib.suppress(OSError):
                        sock.close()

    outcome = in_parallel([steps], run.timeout)[0]
    if not outcome.late:
        return run.found
    found = run.stop()
    return run.fail(found, late(found.stage, run.target, run.timeout))


def connect(run: Run[t.Any], host: str, port: int) -> socket.socket:
    """Resolves a name and connects to the first of its addresses that accepts."""
    found = run.found
    started = time.monotonic()
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise Failure("unresolved", f"the name {host} cannot be resolved: {said}") from error
    found.resolve_ms = _ms(started)
    found.stage = "tcp"
    errors: list[tuple[str, OSError]] = []
    for index, (family, kind, protocol, _name, address) in enumerate(answers):
        started = time.monotonic()
        sock = socket.socket(family, kind, protocol)
        run.holds(sock)
        # One address that does not answer must leave time for the others.
        sock.settimeout(run.deadline.left() / (len(answers) - index))
        try:
            sock.connect(address)
        except OSError as error:
            errors.append((str(address[0]), error))
            run.open.remove(sock)
            sock.close()
        else:
            found.address = str(address[0])
            found.tcp_ms = _ms(started)
            return sock
    raise connect_failure(errors, run.target)


def _handshake(run: Run[t.Any], context: ssl.SSLContext, sock: socket.socket, host: str) -> ssl.SSLSocket:
    """Puts TLS around a socket; the run holds the new one before it waits for anything."""
    secure = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    run.holds(secure)
    try:
        secure.do_handshake()
    except BaseException:
        secure.close()
        raise
    return secure


def _speaks_tls(run: Run[t.Any], host: str, port: int) -> bool:
    """Whether the other side takes part in a TLS handshake; a second look, to explain a failure."""
    if run.deadline.over:
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((run.found.address or host, port), timeout=run.deadline.left()) as plain:
            plain.settimeout(run.deadline.left())
            with _handshake(run, context, plain, host):
                return True
    except ssl.SSLError as error:
        # An alert is TLS as well.
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False


def _silent(run: Run[t.Any], host: str, port: int) -> Failure:
    """The other side closed the connection without a word: because it expects TLS, or is none of ours."""
    if _speaks_tls(run, host, port):
        return Failure("tls_mismatch", f"{run.target} speaks TLS, but none is wanted")
    return Failure("half_open", f"{run.target} accepted the connection and closed it without a word")


# --- the broker


def broker_nodes(url: str, tls: bool | dict[str, t.Any] = False) -> list[Node]:
    """The nodes that Celery's broker_url names, read as kombu does: URLs with ";" between them.

    Raises ValueError on a URL of another kind, or with an unusable port; its text has no secret.
    """
    nodes = []
    for part in filter(None, (part.strip() for part in url.split(";"))):
        parsed = urllib.parse.urlsplit(part)
        if parsed.scheme not in ("amqp", "amqps", "pyamqp"):
            raise ValueError(f"{parsed.scheme or 'a broker without a scheme'} is no AMQP")
        secure = tls or parsed.scheme == "amqps"
        try:
            port = parsed.port or (5671 if secure else 5672)
        except ValueError:
            raise ValueError("the port of the broker is no number up to 65535") from None
        nodes.append(
            Node(
                host=parsed.hostname or "localhost",
                port=port,
                user=urllib.parse.unquote(parsed.username or "guest"),
                password=urllib.parse.unquote(parsed.password or "guest"),
                vhost=urllib.parse.unquote(parsed.path[1:]) or "/",
                tls=secure,
            )
        )
    return nodes


_RIGHT = re.compile(r"\b(configure|write|read) access to (\w+) '([^']*)'")


def broker_code(reply_code: int, text: str, stage: str) -> Failure:
    """What a refusal of the broker means, from AMQP's reply code and the broker's words.

    AMQP has one number for several things: 403 is a wrong password and a missing right, 530 a vhost that is not there
    and one that the user may not enter.
    """
    said = text.strip()
    lower = said.lower()
    if reply_code == 403 and stage == "login":
        return Failure("login_refused", f"the broker refuses the user or the password: {said}")
    if reply_code in (402, 530):
        if "not found" in lower:
            return Failure("vhost_missing", f"the virtual host does not exist: {said}")
        if "refused" in lower:
            return Failure("permission_missing", f"the user may not enter the virtual host: {said}", "vhost")
    if reply_code == 403:
        matched = _RIGHT.search(said)
        # Brokers before 3.12 do not name the right; what was being done does.
        right = matched.group(1) if matched else {"declare": "configure", "publish": "write", "get": "read"}.get(stage)
        which = f'the user has no right to "{right}"' if right else "the user lacks a right"
        return Failure("permission_missing", f"{which}: {said}", right)
    if reply_code == 404 and stage == "queues":
        return Failure("queue_missing", f"the queue does not exist: {said}")
    return Failure("error", f"the broker refuses ({reply_code}, {stage}): {said}")


def first_bytes(data: bytes, target: str) -> Failure | None:
    """What the first bytes of an answer to AMQP's header mean; None when they may be AMQP."""
    if data.startswith(TLS_ALERT):
        return Failure("tls_mismatch", f"{target} speaks TLS, but none is wanted")
    if data.startswith(b"AMQP"):
        version = ".".join(str(byte) for byte in data[5:8])
        return Failure("error", f"{target} speaks another version of AMQP ({version}), not 0.9.1")
    if data[:1] != b"\x01":
        return Failure("error", f"{target} does not speak AMQP; it begins with {data[:8]!r}")
    return None


class Blocked(Exception):
    """The broker told that it takes no messages now, and why."""


def _amqp_connection(run: Run[BrokerFound], node: Node, sock: socket.socket) -> t.Any:
    """A connection of the library that Celery uses, over a socket that is connected already."""
    from amqp.transport import SSLTransport, TCPTransport
    from kombu.transport.pyamqp import Connection

    found = run.found

    class Plain(TCPTransport):
        """Looks at the first bytes: the library would wait for the rest of a frame that is none."""

        def _connect(self, host: str, port: int, timeout: float) -> None:
            self.sock = sock

        def _init_socket(self, *args: t.Any, **kwargs: t.Any) -> None:
            super()._init_socket(*args, **kwargs)
            sock.settimeout(run.deadline.left())
            data = sock.recv(8, socket.MSG_PEEK)
            sock.settimeout(None)
            if not data:
                raise ConnectionResetError
            failure = first_bytes(data, run.target)
            if failure:
                raise failure

    class Secure(SSLTransport):
        """Tells the handshake's failures from those of AMQP."""

        def _connect(self, host: str, port: int, timeout: float) -> None:
            self.sock = sock

        def _wrap_socket(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
            wrapped = super()._wrap_socket(*args, **kwargs)
            # It has taken the socket's place, which is of no use any more to end the probe.
            run.holds(wrapped)
            return wrapped

        def _setup_transport(self) -> None:
            found.stage = "tls"
            started = time.monotonic()
            try:
                super()._setup_transport()
            except Exception as error:
                raise tls_failure(error, run.target) from error
            found.tls_ms = _ms(started)
            found.stage = "login"

    class Watched(Connection):
        """Fails on connection.blocked, which the library takes note of without its reason."""

        def Transport(
            self,
            host: str,
            connect_timeout: float,
            ssl: t.Any = False,
            read_timeout: float | None = None,
            write_timeout: float | None = None,
            **kwargs: t.Any,
        ) -> t.Any:
            return (Secure if ssl else Plain)(
                host,
                connect_timeout=connect_timeout,
                ssl=ssl,
                read_timeout=read_timeout,
                write_timeout=write_timeout,
                **kwargs,
            )

        def dispatch_method(self, method_sig: tuple[int, int], payload: bytes, content: t.Any) -> t.Any:
            if tuple(method_sig) == (10, 60):
                # Two numbers of two bytes, then the reason with its length before it.
                raise Blocked(payload[5 : 5 + payload[4]].decode(errors="replace"))
            return super().dispatch_method(method_sig, payload, content)

    tls = node.tls
    if isinstance(tls, dict) and "server_hostname" in tls and tls["server_hostname"] is None:
        # As kombu does.
        tls = {**tls, "server_hostname": node.host}
    left = run.deadline.left()
    return Watched(
        host=f"[{node.host}]:{node.port}" if ":" in node.host else f"{node.host}:{node.port}",
        userid=node.user,
        password=node.password,
        login_method=node.login_method,
        virtual_host=node.vhost,
        ssl=tls,
        connect_timeout=left,
        read_timeout=left,
        write_timeout=left,
        heartbeat=0,
        confirm_publish=True,
        client_properties={"connection_name": "onprem.airflow executor_check"},
    )


def _amqp_failure(run: Run[BrokerFound], node: Node, error: Exception, stage: str) -> Failure:
    """What an exception of the library means."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, Blocked):
        return Failure("blocked", f"{run.target} takes no messages: {error}")
    reply = getattr(error, "reply_code", None)
    if reply:
        return broker_code(int(reply), str(getattr(error, "reply_text", "") or ""), stage)
    if type(error).__name__ == "MessageNacked":
        return Failure("unconfirmed", f"{run.target} refused the message (nack)")
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        if getattr(error, "errno", None) == errno.ETIMEDOUT:
            return Failure("timeout", f"{run.target} is gone: packets are not acknowledged any more")
        return late(stage, run.target, run.timeout)
    if isinstance(error, OSError):
        if stage == "login":
            if not node.tls:
                return _silent(run, node.host, node.port)
            return Failure("half_open", f"{run.target} closed the connection before the login was answered")
        return Failure("half_open", f"{run.target} closed the connection without a word ({stage})")
    return Failure("error", f"{run.target}: {type(error).__name__} at {stage}: {error}")


def _look_at_queues(run: Run[BrokerFound], node: Node, connection: t.Any, names: t.Iterable[str]) -> None:
    for name in names:
        # A refusal closes the channel, so each has its own.
        channel = connection.channel()
        queue = QueueFound(name)
        try:
            _name, queue.messages, queue.consumers = channel.queue_declare(name, passive=True)
        except Exception as error:
            reply = getattr(error, "reply_code", None)
            if reply == 405:
                # Another connection owns it alone: it is there.
                queue.detail = "exclusive to another connection"
            elif reply in (403, 404):
                failure = _amqp_failure(run, node, error, "queues")
                queue.code = code("broker", failure.kind)
                queue.detail = masked(failure.detail, run.secrets)
            else:
                raise
        run.found.queues.append(queue)
        channel.close()


def _round_trip(run: Run[BrokerFound], connection: t.Any) -> None:
    """A message to a queue of our own, and back."""
    from amqp import Message

    found = run.found
    channel = connection.channel()
    found.stage = "declare"
    # A classic queue by name: the virtual host's default may be quorum, which cannot be exclusive.
    name = channel.queue_declare("", exclusive=True, auto_delete=True, arguments={"x-queue-type": "classic"}).queue
    started = time.monotonic()
    found.stage = "publish"
    body = f"executor_check {started}"
    # The time is for its confirmation as well.
    channel.basic_publish(Message(body, delivery_mode=1), "", name, mandatory=True, timeout=run.deadline.left())
    found.stage = "get"
    message = channel.basic_get(name, no_ack=True)
    back = None if message is None else message.body
    if back not in (body, body.encode()):
        raise Failure("error", f"{run.target} confirmed a message and did not give it back")
    found.round_trip_ms = _ms(started)
    found.stage = "close"
    channel.queue_delete(name)


def broker(node: Node, queues: t.Iterable[str] = (), timeout: float = 5.0, round_trip: bool = True) -> BrokerFound:
    """Logs in to a node of the broker, looks at queues, and sends a message to itself.

    Nothing but a queue of its own is made or written to; that one vanishes with the connection.
    """

    def work(run: Run[BrokerFound]) -> None:
        found = run.found
        # As kombu does, so that we ask what Celery asks.
        sock = connect(run, "127.0.0.1" if node.host == "localhost" else node.host, node.port)
        found.stage = "login"
        started = time.monotonic()
        connection = None
        try:
            connection = _amqp_connection(run, node, sock)
            connection.connect()
            found.login_ms = _ms(started)
            found.version = str(connection.server_properties.get("version") or "") or None
            # Before the message: a broker with an alarm reads nothing more from who has published.
            found.stage = "queues"
            _look_at_queues(run, node, connection, queues)
            if round_trip:
                _round_trip(run, connection)
        except Exception as error:
            raise _amqp_failure(run, node, error, found.stage) from error
        with contextlib.suppress(Exception):
            # The answer is of no use any more.
            connection.close()

    target = f"{node.host}:{node.port}"
    # Now, or loading the library is part of the budget, and of the login's time. Its lack is a failure, further on.
    with contextlib.suppress(ImportError):
        import kombu.transport.pyamqp  # noqa: F401
    return probe(work, Run(BrokerFound(), "broker", target, timeout, [node.password]))


# --- HTTP


def clock(server: float, before: float, after: float, resolution: float = 0.0) -> tuple[float, float]:
    """This clock minus the server's, and by how much that may be wrong, in seconds.

    The server read its clock at some moment between C(before) and C(after), and shows a time that is up to
    C(resolution) older than that.
    """
    offset = (before + after) / 2 - (server + resolution / 2)
    return offset, (after - before) / 2 + resolution / 2


def _request(
    run: Run[HttpFound], url: urllib.parse.SplitResult, headers: t.Mapping[str, str], ca: str | None, limit: int
) -> str:
    """One request; returns where a redirection leads, or nothing."""
    found = run.found
    secure = url.scheme == "https"
    host = url.hostname or ""
    port = url.port or (443 if secure else 80)
    found.stage = "resolve"
    sock = connect(run, host, port)
    if secure:
        found.stage = "tls"
        started = time.monotonic()
        sock.settimeout(run.deadline.left())
        try:
            context = ssl.create_default_context(cafile=ca)
            sock = _handshake(run, context, sock, host)
        except Exception as error:
            raise tls_failure(error, run.target) from error
        found.tls_ms = _ms(started)
    found.stage = "request"
    connection = client.HTTPConnection(host, port, timeout=run.deadline.left())
    connection.default_port = 443 if secure else 80
    connection.sock = sock
    path = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
    sock.settimeout(run.deadline.left())
    before = time.time()
    try:
        connection.request("GET", path, headers={"Connection": "close", **headers})
        response = connection.getresponse()
        after = time.time()
        found.stage = "answer"
        found.status = response.status
        date = response.headers.get("Date")
        if date:
            with contextlib.suppress(ValueError):
                found.date = email.utils.parsedate_to_datetime(date).timestamp()
                found.offset, found.uncertainty = clock(found.date, before, after, DATE_RESOLUTION)
        sock.settimeout(run.deadline.left())
        found.body = response.read(limit).decode(errors="replace")
        return response.headers.get("Location") or "" if 300 <= response.status < 400 else ""
    except TimeoutError:
        raise
    except (client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError) as error:
        if found.stage == "request" and not secure:
            raise _silent(run, host, port) from error
        raise Failure("half_open", f"{run.target} closed the connection within its answer") from error
    except client.BadStatusLine as error:
        line = str(error.args[0])
        if line.encode("latin-1", "replace").startswith(TLS_ALERT):
            raise Failure("tls_mismatch", f"{run.target} speaks TLS, but the URL has http://") from error
        raise Failure("error", f"{run.target} does not speak HTTP; it begins with {line[:20]!r}") from error
    except client.IncompleteRead as error:
        raise Failure("half_open", f"{run.target} closed the connection within its answer") from error
    except (client.HTTPException, ValueError, ssl.SSLError) as error:
        raise Failure("error", f"{run.target}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def http(
    url: str,
    prefix: str = "api",
    timeout: float = 5.0,
    headers: t.Mapping[str, str] | None = None,
    ca: str | None = None,
    limit: int = BODY_LIMIT,
) -> HttpFound:
    """Asks for a URL, past every proxy. An answer of any status is no failure; redirections stay on the same host.

    No more than C(limit) bytes of the answer are read.
    """
    try:
        parsed = urllib.parse.urlsplit(url)
        target = f"{parsed.hostname}:{parsed.port or (443 if parsed.scheme == 'https' else 80)}"
        usable = parsed.scheme in ("http", "https") and bool(parsed.hostname)
    except ValueError:
        usable, target, parsed = False, "the URL", urllib.parse.urlsplit("")

    def work(run: Run[HttpFound]) -> None:
        if not usable:
            raise Failure("error", f"this is no URL of a web server: {url}")
        current = parsed
        for _redirection in range(REDIRECTS + 1):
            location = _request(run, current, headers or {}, ca, limit)
            there = urllib.parse.urlsplit(urllib.parse.urljoin(current.geturl(), location))
            if not location or (there.scheme, there.netloc) != (parsed.scheme, parsed.netloc):
                return
            current = there

    secrets = [parsed.password or "", *(headers or {}).values()]
    return probe(work, Run(HttpFound(), prefix, target, timeout, secrets))


# --- PostgreSQL


# In this order: the first that fits counts.
_POSTGRES_TEXTS = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        # The server refuses a client that it does not know likewise, but this one may be known with TLS.
        ("tls_mismatch", r"no pg_hba\.conf entry .*(no encryption|SSL off)"),
        ("tls_mismatch", r"server does not support SSL"),
        ("error", r"received invalid response to \w+ negotiation|expected authentication request"),
        ("certificate", r"certificate verify failed|root certificate|does not match host name"),
        ("certificate", r"certificate .*(required|does not exist)|private key file|alert unknown ca"),
        ("login_refused", r"\w+ authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects"),
        ("login_refused", r'role ".*" (does not exist|is not permitted)|no password supplied'),
        ("missing", r'database ".*" does not exist'),
        ("half_open", r"server closed the connection unexpectedly|connection reset by peer"),
        ("half_open", r"timeout expired|connection timeout"),
    )
)
# What libpq puts before the words of the server, once for every attempt.
_POSTGRES_ATTEMPT = re.compile(r"^(connection failed: )?(connection to server .*? failed: )?", re.IGNORECASE)


def postgres_code(sqlstate: str | None, text: str) -> Failure:
    """What a refusal of PostgreSQL means; while connecting, libpq gives its words only, without their code.

    Without other orders libpq tries with TLS and then without, and gives the words of both attempts. That the server
    does not take clients without TLS is the reason only where nothing else is.
    """
    lines = [_POSTGRES_ATTEMPT.sub("", line.strip()) for line in text.splitlines()]
    lines = list(dict.fromkeys(filter(None, lines)))
    kinds = []
    for line in lines:
        kinds += [kind for kind, pattern in _POSTGRES_TEXTS if pattern.search(line)][:1]
    kinds.sort(key="tls_mismatch".__eq__)
    known = {"28P01": "login_refused", "28000": "login_refused", "3D000": "missing"}
    kind = kinds[0] if kinds else known.get(sqlstate or "", "error")
    return Failure(kind, f"the server or libpq says: {' / '.join(lines)}")


def _login(run: Run[PostgresFound], parameters: dict[str, t.Any]) -> t.Any:
    import psycopg

    try:
        return psycopg.connect(**parameters)
    except psycopg.Error as error:
        text = str(error)
        if parameters.get("options") and "unsupported startup parameter" in text:
            # PgBouncer takes no options; we only read anyway.
            return _login(run, {**parameters, "options": ""})
        raise postgres_code(error.sqlstate, text) from error


def postgres(
    host: str,
    port: int,
    dbname: str,
    user: str,
    password: str,
    parameters: t.Mapping[str, t.Any] | None = None,
    prefix: str = "database",
    timeout: float = 5.0,
) -> PostgresFound:
    """Logs in to a database, for reading only, and compares the clocks. C(parameters) are more of libpq's.

    The caller closes the connection.
    """
    target = f"{host}:{port}/{dbname}"

    def work(run: Run[PostgresFound]) -> None:
        found = run.found
        wanted = dict(parameters or {})
        if not host.startswith("/"):
            # libpq would wait at least two seconds, and tell a closed port and a dropped packet in words only.
            with connect(run, host, port) as sock:
                run.open.remove(sock)
            wanted.setdefault("hostaddr", found.address)
        found.stage = "login"
        started = time.monotonic()
        limit = math.ceil(run.timeout * 1000)
        settings = f"-c default_transaction_read_only=on -c statement_timeout={limit}"
        connection = _login(
            run,
            {
                "application_name": "executor_check",
                **wanted,
                "host": host,
                "port": port,
                "dbname": dbname,
                "user": user,
                "password": password,
                "options": f"{wanted.get('options') or ''} {settings}".strip(),
                "connect_timeout": max(2, math.ceil(run.deadline.left())),
                "autocommit": True,
            },
        )
        try:
            found.login_ms = _ms(started)
            found.stage = "query"
            for _attempt in range(3):
                before = time.time()
                row = connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
                offset, uncertainty = clock(float(row[0]), before, time.time())
                # The quickest answer says most.
                if found.uncertainty is None or uncertainty < found.uncertainty:
                    found.offset, found.uncertainty = offset, uncertainty
            with run.lock:
                if run.abandoned:
                    raise TimeoutError
                found.connection = connection
        except Exception as error:
            connection.close()
            if isinstance(error, TimeoutError) or not hasattr(error, "sqlstate"):
                raise
            raise postgres_code(error.sqlstate, str(error)) from error

    # As for the broker.
    with contextlib.suppress(ImportError):
        import psycopg  # noqa: F401
    found = probe(work, Run(PostgresFound(), prefix, target, timeout, [password]))
    if found.code is not None and found.connection is not None:
        # Ready in the very moment that the budget ended.
        found.connection.close()
        found.connection = None
    return found
