"""A very small browser: it uploads a file through the shop's page, with its cookie and its CSRF token."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class Browser:
    def __init__(self, address: str) -> None:
        self.address = address
        # Without proxies: the shop is on this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(CookieJar())
        )

    def wait_until_there(self, check: Callable[[], None], timeout: float = 60.0) -> None:
        """Return once the shop answers. ``check`` may raise what ends the wait; TimeoutError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            check()
            try:
                self._get()
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise TimeoutError(f"The shop does not answer at {self.address} after {timeout:.0f} s.")

    def upload(self, path: Path) -> str:
        """Upload the file as a person would, and return the address of the page that follows."""
        token = TOKEN.search(self._get())
        assert token, "The page has a form."
        with path.open("rb") as file:
            body = encode_multipart(BOUNDARY, {"csrfmiddlewaretoken": token[1], "file": file})
        request = urllib.request.Request(f"{self.address}/", body, {"Content-Type": MULTIPART_CONTENT})  # noqa: S310
        with self._opener.open(request, timeout=60) as response:
            page: str = response.url
        return page

    def _get(self) -> str:
        with self._opener.open(f"{self.address}/", timeout=60) as response:
            text: str = response.read().decode()
        return text
