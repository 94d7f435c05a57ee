"""The service on Ray Serve as its command starts it: its page in a browser, its end, and replicas that die."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from PIL import Image

from benchmarks import serving
from tests.conftest import ROOT
from tests.fixtures.browser import chromium
from tests.fixtures.clips import ingested_clips
from tests.fixtures.heads import ray_head
from tests.fixtures.worlds import World

CLIP = "<b>clip #1.mp4"  # its name is text


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ingested_clips(tmp_path_factory.mktemp("clips")).parent
    shutil.copy(folder / "both.mp4", folder / CLIP)
    return folder


def started(address: str, *words: str, stderr: int | IO, **environment: str) -> subprocess.Popen:
    """The command in a cluster."""
    variables = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT), **environment}
    line = [sys.executable, "-m", "serving.app", *words, "--port", "0"]
    return subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, stderr=stderr, text=True)


@contextmanager
def command(address: str, folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The command in a cluster, and the address that it prints."""
    with (folder / "log").open("wb") as log:
        process = started(address, *words, stderr=log)
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (folder / "log").read_text()[-3000:]
        yield process, url
    finally:
        process.terminate()
        process.wait(90)
        process.stdout.close()


@pytest.fixture(scope="module")
def served(world: World, corpus: Path, ray_cluster: str):
    words = [str(world.backbone), str(world.others["prompt"]), f"data={corpus / 'media'}", f"--examples={corpus}"]
    with command(ray_cluster, corpus, *words, "cpus=0.5", "decoders=1") as found:
        yield found


@pytest.fixture
def browser(served):
    with chromium() as found:
        yield found


def size(browser, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shares(browser) -> list[str]:
    """What each method's card says."""
    return [found.text.replace("\n", " ") for found in browser.find_elements("css selector", ".card .said")]


@pytest.mark.ray
def test_a_start_that_is_refused_leaves_the_cluster_to_the_next(world, corpus, ray_cluster, request):
    """Before the others: it is not refused while they have their service."""
    here = [str(world.backbone), f"data={corpus / 'media'}"]
    for words, environment, said in [
        (here, {"AVMEND_SERVE_TOKEN": "0123456789abcdef"}, "AVMEND_SERVE_TOKEN"),
        ([here[0], f"data={corpus}"], {}, "a replica does not start"),
    ]:
        process = started(ray_cluster, *words, stderr=subprocess.PIPE, **environment)
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, said in errors) == (2, True), errors[-3000:]
    assert requests.get(f"{request.getfixturevalue('served')[1]}runs", timeout=60).ok


@pytest.mark.ray
def test_the_page_shows_every_methods_answer_and_how_it_changes(served, corpus, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    url, wait = served[1], WebDriverWait(browser, 60)
    size(browser, 1280, 900)
    browser.get(url)
    wait.until(lambda page: len(page.find_elements("css selector", "#examples button")) == 5)
    browser.find_element("id", "file").send_keys(str(corpus / CLIP))
    wait.until(lambda page: len(shares(page)) == 2)
    content = (corpus / CLIP).read_bytes()
    reply = requests.post(f"{url}predict", files={"clip": ("x.mp4", content)}, timeout=60).json()
    clean = [f"{run['answer']} {100 * run['probabilities'][run['answer']]:.1f} %" for run in reply["runs"]]
    assert shares(browser) == clean
    digits = {**reply["runs"][0], "answer": "7", "probabilities": {"7": 0.5, "10": 0.375, "2": 0.125}}  # no order in JS
    card = browser.execute_script(
        "return [...card(arguments[0]).querySelectorAll('.said, .bar')].map(x => x.textContent)", digits
    )
    assert card[:4] == ["750.0 %", "750.0 %", "1037.5 %", "212.5 %"]
    assert browser.find_element("id", "progress").text.startswith(f"{CLIP}: sound 1.0 s, picture 1.0 s")
    browser.find_element("id", "without-audio").click()
    wait.until(lambda page: "taken away" in page.find_element("id", "progress").text)
    assert all(now != before for now, before in zip(shares(browser), clean, strict=True))
    assert len(browser.find_elements("css selector", ".was")) >= 2  # where the clean clip's answers were
    assert browser.find_element("css selector", ".sound .gone").text == "no sound"
    picture = browser.find_element("css selector", ".frames img")
    assert browser.execute_script("return arguments[0].naturalWidth", picture) == 32
    shot = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))
    assert len(np.unique(shot.reshape(-1, 3), axis=0)) > 50
    size(browser, 390, 844)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def begun(url: str, content: bytes) -> socket.socket:
    """A request of which a part was sent."""
    head = b'--b\r\nContent-Disposition: form-data; name="clip"; filename="x.wav"\r\n\r\n'
    begun.rest = content[100:] + b"\r\n--b--\r\n"
    length = len(head) + 100 + len(begun.rest)
    lines = ["POST /predict HTTP/1.1", f"Host: {urlsplit(url).netloc}", f"Content-Length: {length}"]
    lines += ["Content-Type: multipart/form-data; boundary=b", "Connection: close", "", ""]
    connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60)
    connection.sendall("\r\n".join(lines).encode() + head + content[:100])
    return connection


@pytest.mark.ray
def test_what_was_accepted_is_answered_before_the_end(served, corpus):
    """Last of this file's: the service ends."""
    process, url = served
    content = (corpus / "sound.wav").read_bytes()
    with begun(url, content) as connection:
        while "avmend_requests_running 1.0" not in requests.get(f"{url}metrics", timeout=30).text:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        while requests.get(f"{url}health", timeout=30).status_code != 503:
            time.sleep(0.05)
        late = requests.post(f"{url}predict", files={"clip": ("x.wav", content)}, timeout=30)
        assert (late.status_code, late.json()["error"]) == (503, "the service is stopping")
        connection.sendall(begun.rest)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200"), answer[:500]
    assert b'"answer"' in answer
    assert process.wait(90) == 128 + signal.SIGTERM


JOB = """
python -m serving.app {run} data={data} --port 0 cpus=0.5 > {out}/address & pid=$!
for _ in $(seq 300); do grep -q http {out}/address && break; kill -0 $pid || break; sleep 0.5; done
curl -s -F clip=@{clip} $(cat {out}/address)predict; echo
kill -TERM $pid; wait $pid; echo ended $?
"""


@pytest.mark.slow
def test_it_runs_as_a_job_with_the_code_that_travels_with_it(world, corpus, tmp_path):
    script = JOB.format(run=world.backbone, data=corpus / "media", out=tmp_path, clip=corpus / "both.mp4")
    with ray_head() as head:
        done = head.submit("bash", "-c", script)
    assert done.returncode == 0, done.stdout[-3000:]
    assert '"done":{"audio":"clean","visual":"clean"}' in done.stdout
    assert "ended 143" in done.stdout


@pytest.mark.slow
def test_killed_replicas_lose_no_request(world, corpus, tmp_path):
    args = argparse.Namespace(runs=[world.backbone], kills=3, seed=0, settings=[f"data={corpus / 'media'}"])
    found = serving.kills(args, tmp_path)
    assert found["kills"] == 3
    assert found["lost"] == []
    assert found["answered"] > 20
    assert found["asked_again"] >= 1


@pytest.mark.slow
def test_hostile_uploads_are_answered_and_leave_nothing(world, corpus, tmp_path):
    args = argparse.Namespace(runs=[world.backbone], uploads=60, seed=1, settings=[f"data={corpus / 'media'}"])
    found = serving.hostile(args, tmp_path)
    assert serving.good({"hostile": found}), found
