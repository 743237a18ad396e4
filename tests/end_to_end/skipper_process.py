"""Starts skipper as its users do, and ends it again."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def command_line(binary, arguments, ranks):
    """skipper under mpirun with `ranks` ranks; without mpirun for ranks = 0."""
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 0 else []
    return launcher + [binary] + list(arguments)


def run(binary, arguments, ranks=0, environment=None, timeout=600):
    """Runs to the end; returns the CompletedProcess with text output."""
    return subprocess.run(
        command_line(binary, arguments, ranks),
        env={**os.environ, **MPI_ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Server:
    """`skipper serve` on a free port of 127.0.0.1; a context manager."""

    def __init__(self, binary, arguments, ranks=0, environment=None, log_path=None):
        self.log_path = log_path or os.path.join(os.environ.get("TMPDIR", "/tmp"), f"skipper_serve_{os.getpid()}.log")
        self._log = open(self.log_path, "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            command_line(binary, ["serve", "--port", "0", *arguments], ranks),
            env={**os.environ, **MPI_ENVIRONMENT, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self.url = self._wait_until_listening()

    def _wait_until_listening(self):
        for line in self.process.stdout:
            match = re.match(r"skipper: listening on (http://\S+)$", line.strip())
            if match:
                return match.group(1)
        raise RuntimeError(f"the server ended with status {self.process.wait()}:\n{self.log()}")

    def log(self):
        self._log.flush()
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def rank_pids(self):
        """Process ids of the ranks: the server itself, or mpirun's children that run skipper."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        pids = [int(pid) for pid in children.stdout.split()]
        return pids or [self.process.pid]

    def stop(self, stop_signal=signal.SIGTERM, timeout=60):
        """Sends the signal and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(stop_signal)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        try:
            self.stop()
        finally:
            self.process.stdout.close()
            self._log.close()


def get(url, timeout=30):
    """Status and body of a GET, also for error statuses."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def post_json(url, body, timeout=120, headers=None):
    """Status and parsed JSON of a POST; `body` is an object or raw bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def metric(url, name, **labels):
    """Sum of a metric's samples that carry all these labels."""
    total = 0.0
    for line in get(url + "/metrics")[1].splitlines():
        match = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)", line)
        if not match or match.group(1) != name:
            continue
        found = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2) or ""))
        if all(found.get(key) == value for key, value in labels.items()):
            total += float(match.group(3))
    return total


def wait_until(condition, timeout=30.0, interval=0.02):
    """True as soon as condition() holds, False when it does not within `timeout` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(interval)
    return bool(condition())
