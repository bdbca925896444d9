"""A served page for the tests: a real session, a real server process, real requests."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from nca_edge.camera import file_frames
from nca_edge.classifier import ModelChoice, load
from nca_edge.pipeline import observe
from nca_edge.records import Reading, RunFacts
from nca_edge.samples import sample_fields
from nca_edge.session import Session, SlideFacts

FIELDS = ("bccd-BloodImage_00209.jpg", "bccd-BloodImage_00176.jpg", "bccd-BloodImage_00099.jpg")
WAIT_S = 120
"""A busy machine is no failure."""


@cache
def readings() -> tuple[RunFacts, tuple[Reading, ...]]:
    """Three real fields, read once."""
    classifier = load(ModelChoice(None, "auto", "fp32", 1))
    source = sample_fields()
    return classifier.facts(None), tuple(observe(file_frames(source, [source / name for name in FIELDS]), classifier))


def make_session(folder: Path, times: int = 1, operator: str = "") -> Path:
    """A session of these fields, each ``times`` over under names of its own."""
    facts, fields = readings()
    with Session.create(folder, facts, SlideFacts(operator=operator)) as session:
        for n in range(times):
            for reading in fields:
                session.commit(replace(reading, field=f"{n}-{reading.field}"))
        session.begin_review()
    return folder


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> dict[str, str]:
        """The answer of a change."""
        found: dict[str, str] = json.loads(self.text)
        return found


@dataclass(slots=True)
class Browser:
    """Asks as our own page does; what a test gives replaces that, None leaves it out."""

    url: str
    process: subprocess.Popen[str]
    cookie: str = ""
    csrf: str = ""
    place: str = field(default="")

    def __post_init__(self) -> None:
        self.place = urlsplit(self.url).netloc

    def enter(self) -> Browser:
        """Open the printed address, and read the page as a browser would."""
        parts = urlsplit(self.url)
        welcome = self.ask("GET", f"/?{parts.query}", cookie=None)
        assert welcome.status == 303, welcome
        self.cookie = welcome.headers["set-cookie"].partition(";")[0]
        found = re.search(r'name="csrf" content="(\w+)"', self.ask("GET", "/").text)
        assert found
        self.csrf = found[1]
        return self

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Answer:
        """One request; ``headers``: with _ for -."""
        sent: dict[str, str | None] = {"host": self.place, "cookie": self.cookie}
        if method == "POST":
            sent |= {"origin": f"http://{self.place}", "x-csrf-token": self.csrf, "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(*self.place.rsplit(":", 1), timeout=WAIT_S)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.putheader("content-length", str(len(body or b"")))
            connection.endheaders(body)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            endless = told.get("content-type", "").startswith("text/event-stream")
            return Answer(answer.status, told, (answer.readline() if endless else answer.read()).decode("utf-8", "replace"))
        finally:
            connection.close()

    def do(self, what: str, **values: object) -> Answer:
        """Make a change."""
        answer = self.ask("POST", f"/do/{what}", json.dumps(values).encode())
        kept = answer.headers.get("set-cookie", "").partition(";")[0]
        self.cookie += f"; {kept}" if kept else ""
        return answer


@contextmanager
def served(*arguments: object) -> Iterator[Browser]:
    """``nca-edge serve`` as a process of its own; ended as systemd does it."""
    process = start(*arguments)
    try:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        assert line.startswith("Open http"), line + process.stderr.read()
        yield Browser(line.split()[1], process).enter()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)
        assert process.returncode in (130, -signal.SIGKILL), process.returncode


def start(*arguments: object) -> subprocess.Popen[str]:
    """The program, whatever it answers; its state folder is its own."""
    program = Path(sys.executable).with_name("nca-edge")
    command = [program, "serve", "--port", "0", *map(str, arguments)]  # a port that is given comes after
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def copy_of(folder: Path) -> Path:
    """A session of its own for a test that changes it."""
    place = Path(mkdtemp(dir=folder.parent)) / folder.name
    shutil.copytree(folder, place)
    return place


def queued(page: Browser) -> str:
    """The cell that the review shows; empty where it is done."""
    found = re.search(r"/picture/([\d-]+)/crop", page.ask("GET", "/queue").text)
    return found[1] if found else ""


def acceptable(page: Browser, query: str = "") -> list[str]:
    """The cells that one click would accept on this page of the gallery."""
    found = re.search(r'data-do="accept" data-json="([^"]*)"', page.ask("GET", f"/cells{query}").text)
    cells: list[str] = json.loads(found[1].replace("&#34;", '"').replace("&quot;", '"'))["cells"] if found else []
    return cells


def review_all(page: Browser) -> None:
    """Name each cell of the queue, then accept page after page."""
    while cell := queued(page):
        assert page.do("reclassify", cell=cell, label="monocyte").status == 200
    while cells := acceptable(page, "?open=1"):
        assert page.do("accept", cells=cells).status == 200
