"""A real S3 server for tests (SeaweedFS): it can be killed, started again, and made to throttle."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

PORTS = (
    *("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port"),
    *("volume.port.grpc", "filer.port", "filer.port.grpc"),
)
ACCESS_KEY, SECRET_KEY = "longtake", "of-no-use-elsewhere"


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens at, and that no client or Ray is given by chance."""
    found: list[int] = []
    for port in random.sample(range(20000, 32000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


class Server:
    """One server with its data below `folder`; its address stays the same.

    Args:
        folder: of its data, its log and its keys.
        volumes: of 256 MB each, the most that it keeps.
    """

    def __init__(self, folder: Path, volumes: int = 8) -> None:
        self._folder, self._volumes = folder, volumes
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        identity = {"name": "tests", "credentials": [keys], "actions": ["Admin"]}
        (folder / "data").mkdir(parents=True)
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def environment(self) -> dict[str, str]:
        """What a client of the server has in its environment."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._ports['s3.port']}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start the server and return once it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "weed"), "server", "-master.telemetry=false",
                 f"-dir={self._folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
                 f"-s3.config={self._folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
                 "-master.electionTimeout=1s",
                 f"-volume.max={self._volumes}", "-master.volumeSizeLimitMB=256",
                 *(f"-{name}={port}" for name, port in self._ports.items())],
                cwd=self._folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._answers():
            said = (self._folder / "log").read_text()[-2000:]
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def kill(self) -> None:
        """End the server with SIGKILL, as a lost machine would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill the server, if it is up, and start it on the data that it had."""
        self.kill()
        self.start()

    def _answers(self) -> bool:
        """Return whether both the S3 gate and the volumes behind it are up."""
        try:
            with urllib.request.urlopen(self.environment["AWS_ENDPOINT_URL"] + "/healthz"):
                pass
            topology = f"http://127.0.0.1:{self._ports['master.port']}/dir/status"
            with urllib.request.urlopen(topology) as answer:
                return bool(json.load(answer)["Topology"]["DataCenters"])
        except (urllib.error.URLError, OSError, ValueError):
            return False


class Throttle:
    """Stands before a server, counts requests, and refuses each some times, as S3 under load does.

    Args:
        server: its address, which requests are passed on to as they came.
        times: how often each request is refused before it is passed on; 0 only counts.
    """

    def __init__(self, server: str, times: int) -> None:
        self.refused: Counter[str] = Counter()
        """How often each request was refused."""
        self.passed: Counter[str] = Counter()
        """How often each request was passed on, by its method, path and range."""
        self._server, self._times = urlsplit(server).netloc, times

    @contextlib.contextmanager
    def address(self) -> Iterator[str]:
        """Serve while the block runs, and yield the address."""
        throttle = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, answer = throttle._answer(self, body)
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    def _answer(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        name = f"{request.command} {request.path} {request.headers.get('Range', '')}"
        if self.refused[name] < self._times:
            self.refused[name] += 1
            error = b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
            error = b"" if request.command == "HEAD" else error
            return 503, [("Content-Length", str(len(error)))], error
        self.passed[name] += 1
        onward = http.client.HTTPConnection(self._server)
        with contextlib.closing(onward):
            onward.request(request.command, request.path, body, dict(request.headers))
            response = onward.getresponse()
            return response.status, response.getheaders(), response.read()
