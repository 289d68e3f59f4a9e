"""Proxy before an S3 server that passes every request on and counts it by its kind.

Each client's connection has one of its own to the server, and both stay open, so that a request
costs little more than it does without the proxy. Who asks for ``/counts`` gets the counts so far.
"""

import json
import socket
import socketserver
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BufferedIOBase
from threading import Lock, Thread
from urllib.parse import urlsplit
from urllib.request import urlopen

COUNTS = "/counts"
_PIECE_BYTES = 1 << 20
_NO_BODY = (204, 304)


class Proxy(socketserver.ThreadingTCPServer):
    """Listens on a port of this machine.

    Args:
        server: the address that requests are passed on to, ``http://host:port``.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        at = urlsplit(server)
        self.onward = (at.hostname or "127.0.0.1", at.port or 80)
        self._counts, self._lock = Counter[str](), Lock()

    def count(self, method: str, target: str) -> None:
        """Count a request: by its method, listings by themselves."""
        kind = "LIST" if method == "GET" and "list-type=" in target else method
        with self._lock:
            self._counts[kind] += 1

    def counts(self) -> dict[str, int]:
        """Return the requests so far by their kind."""
        with self._lock:
            return dict(self._counts)


@contextmanager
def serve(server: str) -> Iterator[str]:
    """Serve while the block runs, and yield the proxy's address."""
    with Proxy(server) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
        proxy.shutdown()


def counts_at(address: str) -> Counter[str]:
    """Ask a proxy for its counts."""
    with urlopen(address + COUNTS) as answer:
        return Counter(json.load(answer))


class _Handler(socketserver.StreamRequestHandler):
    server: Proxy  # pyright: ignore[reportIncompatibleVariableOverride]  # which alone starts it
    disable_nagle_algorithm = True
    rbufsize = _PIECE_BYTES

    def handle(self) -> None:
        with closing(_Onward(self.server.onward)) as onward:
            try:
                while head := _read_head(self.rfile):
                    self._pass_on(head, onward)
            except ConnectionError:
                return  # either side went away, which the other one notices

    def _pass_on(self, head: list[bytes], onward: "_Onward") -> None:
        method, target, _ = head[0].decode("latin-1").split(" ", 2)
        if target == COUNTS:
            self._say_counts()
            return
        self.server.count(method, target)
        if any(line.lower().startswith(b"expect:") for line in head):
            head = [line for line in head if not line.lower().startswith(b"expect:")]
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.rfile.read(int(_header(head, b"content-length") or 0))
        answer = onward.ask(b"".join([*head, b"\r\n"]) + body)
        status = int(answer[0].split()[1])
        self.wfile.write(b"".join([*answer, b"\r\n"]))
        if method == "HEAD" or status in _NO_BODY:
            return
        if (length := _header(answer, b"content-length")) is not None:
            self._copy(onward.answers, int(length))
        elif b"chunked" in (_header(answer, b"transfer-encoding") or b""):
            self._copy_chunks(onward.answers)
        else:
            raise ConnectionError("an answer without a length")

    def _copy(self, source: BufferedIOBase, count: int) -> None:
        while count:
            piece = source.read(min(count, _PIECE_BYTES))
            if not piece:
                raise ConnectionError("an answer was cut short")
            self.wfile.write(piece)
            count -= len(piece)

    def _copy_chunks(self, source: BufferedIOBase) -> None:
        while True:
            line = source.readline()
            self.wfile.write(line)
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            self._copy(source, size + 2)
        while (line := source.readline()) not in (b"\r\n", b""):  # trailers
            self.wfile.write(line)
        self.wfile.write(b"\r\n")

    def _say_counts(self) -> None:
        body = json.dumps(self.server.counts()).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


class _Onward:
    """A connection to the server, opened again where the server has closed it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = self._socket.makefile("rb", _PIECE_BYTES)
        assert isinstance(answers, BufferedIOBase)
        self.answers = answers

    def ask(self, request: bytes) -> list[bytes]:
        """Send a request; return the head of its answer."""
        for _ in range(2):
            try:
                self._socket.sendall(request)
                if head := _read_head(self.answers):
                    return head
            except ConnectionError:
                pass
            self.close()
            self._connect()
        raise ConnectionError("the server does not answer")

    def close(self) -> None:
        self.answers.close()
        self._socket.close()


def _read_head(source: BufferedIOBase) -> list[bytes]:
    """Return a request or answer line and the headers after it; empty at the end."""
    head = []
    while (line := source.readline()) not in (b"\r\n", b""):
        head.append(line)
    return head


def _header(head: list[bytes], name: bytes) -> bytes | None:
    for line in head[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None
