"""Speaks with the admin listener of a server that was started with a key."""

import json
import os
import re
import urllib.error
import urllib.request

import skipper_process

KEY = "correct-horse-battery"


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def write_key(folder):
    """The path of a key file."""
    path = os.path.join(folder, "key")
    with open(path, "w", encoding="utf-8") as file:
        file.write(KEY + "\n")
    os.chmod(path, 0o600)
    return path


class Admin:
    def __init__(self, server):
        announcement = re.compile(r"skipper: admin on (http://127\.0\.0\.1:\d+)$", re.MULTILINE)
        announced = skipper_process.wait_until(lambda: announcement.search(server.log()), timeout=5)
        check(announced, f"the admin listener is not announced:\n{server.log()}")
        self.url = announcement.search(server.log()).group(1) + "/admin/operating_point"

    def ask(self, method, body=None, key=KEY, url=None):
        """Status and parsed JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **({"Authorization": "Bearer " + key} if key else {})}
        request = urllib.request.Request(url or self.url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def get(self):
        status, body = self.ask("GET")
        check(status == 200, f"GET: {status} {body}")
        return body

    def set(self, body):
        status, answer = self.ask("POST", body)
        check(status == 200, f"POST {body}: {status} {answer}")
        return answer
