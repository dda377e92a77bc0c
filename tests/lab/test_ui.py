# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A person with a web browser logs in and sees the DAG run that finished."""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import http.client
import json
import pathlib
import re
import shutil
import subprocess
import time
import typing as t
from urllib.parse import quote

import pytest
from conftest import ROOT  # type: ignore[import-not-found]

CHROMIUM = "/usr/bin/chromium"
CHROMEDRIVER = "/usr/bin/chromedriver"
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync --no-proxy-server"
    " --window-size=1400,1000 --lang=en-US"
).split()
ELEMENT = (
    "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, fixed by https://www.w3.org/TR/webdriver2/
)
TIMEOUT = 60.0


class Browser:
    """The few commands of the WebDriver protocol that we need; ChromeDriver speaks it as JSON over HTTP."""

    def __init__(self, port: int, profile: pathlib.Path) -> None:
        self.port = port
        self.path = ""
        options = [*OPTIONS, f"--user-data-dir={profile}"]
        chrome = {"binary": CHROMIUM, "args": options}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": chrome}}}
        self.path = f"/session/{self.call('POST', '/session', wanted)['sessionId']}"

    def call(self, method: str, path: str, body: dict[str, t.Any] | None = None) -> t.Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, self.path + path, text, {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise LookupError(f"{value['error']}: {value['message']}")
        return value

    def open(self, url: str) -> None:
        self.call("POST", "/url", {"url": url})

    def find(self, selector: str) -> str:
        """The path of the first element that a CSS selector finds, as soon as there is one."""
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                found = self.call("POST", "/element", {"using": "css selector", "value": selector})
                return f"/element/{found[ELEMENT]}"
            except LookupError as exc:
                assert time.monotonic() < end, f"{exc}\n{self.text()}"
                time.sleep(0.3)

    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.call("POST", "/execute/sync", {"script": "return document.body.innerText", "args": []}))

    def screenshot(self, path: pathlib.Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


@pytest.fixture
def browser(lab: t.Any, tmp_path: pathlib.Path) -> collections.abc.Iterator[Browser]:
    for program in (CHROMIUM, CHROMEDRIVER):
        if not shutil.which(program):
            pytest.fail(f"{program} is missing: apt-get install chromium chromium-driver, or lab/setup.sh browser")
    log = tmp_path / "chromedriver.log"
    with subprocess.Popen([CHROMEDRIVER, "--port=0", f"--log-path={log}"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            port = next(
                (int(match[1]) for line in driver.stdout if (match := re.search(r"successfully on port (\d+)", line))),
                0,
            )
            assert port, log.read_text()
            opened = Browser(port, tmp_path / "profile")
            yield opened
            with contextlib.suppress(OSError, LookupError, http.client.HTTPException):
                opened.call("DELETE", "")  # else the browser ends with its driver
        finally:
            driver.terminate()


def test_a_person_sees_the_finished_run(lab: t.Any, browser: Browser, finished_run: str) -> None:
    browser.open(f"http://{lab.address(lab.masters[0])}:8080")
    user = browser.find("input[name=username]")  # not logged in, so the login form comes
    browser.call("POST", f"{user}/value", {"text": "admin"})
    password = browser.find("input[name=password]")
    browser.call("POST", f"{password}/value", {"text": lab.secrets["airflow_admin_password"]})
    submit = browser.find("form[name=login] [type=submit]")
    browser.call("POST", f"{submit}/click", {})

    end = time.monotonic() + TIMEOUT
    while "/login" in browser.call("GET", "/url"):
        assert time.monotonic() < end, browser.text()
        time.sleep(0.3)
    base = "/".join(browser.call("GET", "/url").split("/")[:3])  # Airflow leads everybody to airflow_base_url
    browser.open(f"{base}/dags/lab_mapped/runs/{quote(finished_run, safe='')}")
    while not re.search(r"\bSuccess\b", browser.text()) or "where" not in browser.text():
        assert time.monotonic() < end + TIMEOUT, browser.text()
        time.sleep(0.3)
    browser.screenshot(ROOT / "build" / "ui.png")
    text = browser.text()
    assert "lab_mapped" in text
    assert not re.search(r"\b(Failed|Running|Queued)\b", text), text
