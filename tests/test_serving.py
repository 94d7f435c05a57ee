"""The service below Ray: the application's own routes on real runs; what can be sent, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.noise import ruin
from models.settings import NoiseConfig
from serving import schema
from serving.access import check_binding, service_token
from serving.examples import Example, examples_of
from serving.form import boundary_of, parsed, read_form, shown_name
from serving.page import PAGE, Page
from serving.predict import main as predict
from serving.refusal import Refusal
from serving.request import Upload
from serving.service import Service
from serving.settings import ServeConfig
from serving.uploads import in_memory
from serving.web import Front
from shards.errors import InputError
from tests.fixtures.builders import LABELS
from tests.fixtures.clips import NAMES, ingested_clips
from tests.fixtures.serving import InProcess, client_of
from tests.fixtures.worlds import World
from tuning.report.clips import load_run

pytestmark = pytest.mark.integration
TOKEN = "a-token-of-the-tests-alone"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ingested_clips(tmp_path_factory.mktemp("clips")).parent


@pytest.fixture(scope="module")
def service(world: World, corpus: Path):
    runs = (world.backbone, world.others["prompt"])
    service = Service.load(ServeConfig(runs=runs, data=corpus / "media", decoders=1), "cpu")
    yield service
    service.decoders.close()


def front_of(service: Service, **settings) -> Front:
    """With other settings of the service's edge."""
    token, examples = settings.pop("token", None), settings.pop("examples", ())
    return Front(InProcess(service), service.config.model_copy(update=settings), token, examples)


@pytest.fixture
def client(service: Service):
    return client_of(front_of(service))


def sent(client, path: Path, field: str = "clip", **texts):
    return client.post("/predict", files={field: (path.name, path.read_bytes())}, data=texts)


def logits(reply: dict, at: int = 0) -> list[float]:
    return [reply["runs"][at]["logits"][label] for label in LABELS]


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_answers_are_those_of_predict_to_the_bit(world, corpus, client, capsys):
    words = [str(world.backbone), str(world.others["prompt"]), *(str(corpus / name) for name in NAMES)]
    assert predict([*words, "--data", str(corpus / "media"), "--json", "--device", "cpu", "--batch-size", "1"]) == 0
    for name, line in zip(NAMES, map(json.loads, capsys.readouterr().out.splitlines()), strict=True):
        reply = sent(client, corpus / name).json()
        schema.Reply.model_validate(reply)
        there = {m: stream["present"] for m, stream in line["streams"].items()}
        assert [run.pop("present") for run in reply["runs"]] == [there] * 2
        assert reply["runs"] == line["runs"]
        assert reply["streams"] == line["streams"]
        assert reply["clip"] == name
        assert reply["done"] == {m: "clean" if here else "absent" for m, here in there.items()}


def test_a_pair_is_a_sound_and_a_picture(corpus, client, tmp_path):
    picture = tmp_path / "red.PNG"
    Image.new("RGB", (40, 40), (255, 0, 0)).save(picture)
    files = {
        "audio": ("s.wav", (corpus / "sound.wav").read_bytes()),
        "image": ("red.PNG", picture.read_bytes()),
    }
    reply = client.post("/predict", files=files, data={"view": "true"}).json()
    assert reply["clip"] == "s.wav + red.PNG"
    assert reply["streams"]["visual"] == {"present": True, "codec": "png"}
    assert (pixels(reply["views"][0]["frames"][0]) == (255, 0, 0)).all()
    alone = sent(client, picture).json()  # a still picture by its suffix
    assert alone["streams"]["audio"]["cause"] == "absent at source"
    assert alone["streams"]["visual"] == reply["streams"]["visual"]


def test_noise_is_that_of_training_and_the_view_is_what_the_network_got(world, corpus, service, client):
    reply = sent(client, corpus / "both.mp4", noise_audio="4", noise_visual="2", kind_visual="blur", view="true").json()
    net, spec = load_run(world.backbone).backbone.net, service.runs[0].model.loaded.spec
    name = corpus / "both.mp4"
    asked = service.read(SimpleNamespace(**_request(name)))
    sample = next(iter(asked.read.values()))
    sound = spec.normalisation.fbank(sample.arrays["audio"], spec.target_length)
    picture = spec.normalisation.picture(sample.arrays["frames"], 1, spec.image_size)  # the middle one of three
    config = NoiseConfig(audio=("gaussian",), visual=("blur",))
    sound, _ = ruin(sound, "audio", 4, config, 0, sample.meta.source_sha256, 0)
    picture, _ = ruin(picture, "visual", 2, config, 0, sample.meta.source_sha256, 0)
    with torch.inference_mode():
        wanted = net(sound[None], picture[None], torch.tensor([[True, True]]))[0]
    assert logits(reply) == pytest.approx(wanted.numpy(), abs=1e-4)
    assert reply["done"] == {"audio": "gaussian 4", "visual": "blur 2"}
    (view,) = reply["views"]  # both runs met the same
    assert [run["view"] for run in reply["runs"]] == [0, 0]
    shown = pixels(view["frames"][0]).astype(int)
    assert np.abs(shown - spec.normalisation.pixels(picture)).max() <= 1
    assert pixels(view["spectrogram"]).shape == (128, spec.target_length)
    again = sent(client, corpus / "both.mp4", noise_audio="4", noise_visual="2", kind_visual="blur").json()
    assert [run["logits"] for run in again["runs"]] == [run["logits"] for run in reply["runs"]]


def _request(path: Path) -> dict:
    from serving.request import PredictRequest

    request = PredictRequest({"clip": Upload(path.name, path.read_bytes())})
    names = ("files", "question", "runs", "ruin", "view", "name", "field")
    return {name: getattr(request, name) for name in names}


def test_what_is_taken_away_is_not_there(corpus, client):
    """`silent.mp4` has the picture of `both.mp4`."""
    gone, silent = sent(client, corpus / "both.mp4", without="audio").json(), sent(client, corpus / "silent.mp4").json()
    assert [run["logits"] for run in gone["runs"]] == [run["logits"] for run in silent["runs"]]
    assert gone["done"] == {"audio": "taken away", "visual": "clean"}
    assert gone["runs"][1]["present"] == {"audio": False, "visual": True}
    black = sent(client, corpus / "both.mp4", black="true", view="true").json()
    assert not pixels(black["views"][0]["frames"][0]).any()
    assert black["done"]["visual"] == "black"
    assert logits(black) != logits(gone)


@pytest.mark.parametrize(
    ("texts", "field", "said"),
    [
        ({"without": "sound"}, "without", "'sound' does not fit"),
        ({"without": ["audio", "visual"]}, "without", "nothing to look at"),
        ({"noise_audio": "6"}, "noise_audio", "give one of: 1, 2, 3, 4, 5"),
        ({"noise_audio": "-1e9"}, "noise_audio", "does not fit"),
        ({"noise_audio": "3", "kind_audio": "released_gaussian"}, "noise_audio", "give one of: 2, 5"),
        ({"kind_visual": "pixels"}, "kind_visual", "did you mean 'pixelate'?"),
        ({"black": "perhaps"}, "black", "give one of: true"),
        ({"question": "Is there a drum?"}, "question", "takes no question"),
        ({"question": "why " * 999}, "question", "at most 1000"),
        ({"question": ["a", "b"]}, "question", "sent 2 times"),
        ({"run": "promt"}, "run", "did you mean 'prompt-"),
        ({"nose_audio": "3"}, "nose_audio", "did you mean 'noise_audio'?"),
        ({"audio": "x"}, "audio", "is a file"),
    ],
)
def test_a_field_that_does_not_fit_is_refused_by_name(corpus, client, texts, field, said):
    answer = sent(client, corpus / "both.mp4", **texts)
    problem = answer.json()
    assert answer.status_code == 422
    assert problem["field"] == field
    assert said in problem["error"] + problem["remedy"]


def clips_that_fail(corpus: Path) -> dict[str, tuple[bytes, str | None]]:
    """By name: the content, and the cause."""
    whole = (corpus / "both.mp4").read_bytes()
    wav = bytearray((corpus / "sound.wav").read_bytes())
    return {
        "cut.mp4": (whole[:900], "truncated"),
        "text.mp4": (b"no video at all\n" * 99, "undecodable"),
        "script.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", None),
        "list.m3u8": (b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n", None),
        "../../../etc/passwd.png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "undecodable"),
        "<img src=x onerror=alert(1)>.mp4": (bytes(2000), None),
        "head.wav": (bytes(wav[:44]), None),
    }


def test_clips_that_fail_are_answered_with_the_cause_and_no_path(corpus, client):
    for name, (content, cause) in clips_that_fail(corpus).items():
        answer = client.post("/predict", files={"clip": (name, content)})
        problem = answer.json()
        assert answer.status_code == 422, (name, problem)
        assert problem["remedy"]
        assert problem["error"].startswith(problem["cause"])
        assert cause in (None, problem["cause"]), name
        assert "/proc" not in json.dumps(problem)
    empty = client.post("/predict", files={"clip": ("x.mp4", b"")}).json()
    assert empty["error"] == "truncated: x.mp4 is empty"


def test_limits_of_seconds_and_pixels_are_told_as_too_large(world, corpus):
    few = ServeConfig(runs=(world.backbone,), data=corpus / "media", max_seconds=0.4, max_pixels=2000, decoders=1)
    service = Service.load(few, "cpu")
    try:
        client = client_of(front_of(service))
        long, large = sent(client, corpus / "sound.wav"), sent(client, corpus / "silent.mp4")
    finally:
        service.decoders.close()
    for answer in (long, large):
        assert answer.status_code == 413
        assert answer.json()["cause"] == "too large"
        assert "max_pixels" in answer.json()["remedy"]


def test_too_many_bytes_are_not_read_to_the_end(service):
    client = client_of(front_of(service, max_mb=0.01))
    answer = client.post("/predict", files={"clip": ("x.mp4", bytes(20_000))})
    assert (answer.status_code, answer.json()["field"]) == (413, "max_mb")
    packed = client.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (packed.status_code, packed.json()["field"]) == (422, "Content-Encoding")


def test_a_stream_without_a_length_is_read_no_further_than_the_limit(service):
    read = []

    async def stream():
        for number in range(1000):
            read.append(number)
            yield b"--x\r\n" if not number else bytes(1000)

    request = SimpleNamespace(headers={"content-type": "multipart/form-data; boundary=x"}, stream=stream)
    with pytest.raises(Refusal) as refused:
        asyncio.run(front_of(service, max_mb=0.01).predict(request))
    assert refused.value.status == 413
    assert len(read) in range(10, 13)  # of 1,000 bytes, of 10,000


def test_headers_beyond_any_sense_are_refused(client):
    answer = client.get("/runs", headers={"X-Long": "x" * 70_000})
    assert (answer.status_code, answer.json()["field"]) == (431, "headers")


def test_what_is_no_form_is_refused(client):
    for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "multipart/form-data"}):
        assert client.post("/predict", content=b"{}", headers=headers).json()["field"] == "Content-Type"
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (
        b"",
        b"abc",
        b"--x--\r\n",
        b"--x\r\n\r\nno headers\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data",
    ):
        answer = client.post("/predict", content=body, headers=form)
        assert answer.status_code == 422, body
        assert answer.json()["remedy"]
    twice = {"files": [("clip", ("a.mp4", b"1")), ("clip", ("b.mp4", b"2"))]}
    assert "sent twice" in client.post("/predict", **twice).json()["error"]
    both = {"clip": ("a.mp4", b"1"), "audio": ("b.wav", b"2")}
    assert "both a clip and files" in client.post("/predict", files=both).json()["error"]
    assert client.get("/nothing").json()["error"] == "GET /nothing: Not Found"
    assert client.get("/examples/x").status_code == 422


async def pieces(data: bytes, sizes: list[int]):
    at = 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        yield data[at : at + size]
        at += size


BODY = (
    b'--b\r\nContent-Disposition: form-data; name="clip"; filename="a\xc3\xa9.mp4"\r\n\r\n'
    + b"--b-not\r\n\r\n\x00--" * 9
    + b'\r\n--b\r\nContent-Disposition: form-data; name="run"\r\n\r\none\r\n--b\r\n'
    + b'Content-Disposition: form-data; name="run"\r\n\r\ntwo\r\n--b--\r\n'
)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=7))
def test_a_form_is_the_same_however_it_comes(sizes):
    form = asyncio.run(read_form(pieces(BODY, sizes), b"b", 10_000))
    assert form.files == {"clip": Upload("aé.mp4", b"--b-not\r\n\r\n\x00--" * 9)}
    assert form.texts == {"run": ["one", "two"]}


@given(st.integers(0, len(BODY) - 1), st.binary(max_size=12))
def test_a_damaged_form_is_read_or_refused(at, noise):
    with suppress(Refusal):
        parsed(bytearray(BODY[:at] + noise + BODY[at + len(noise) :]), b"b")


def test_headers_without_end_are_refused_before_they_are_taken_apart():
    for break_ in (b"\r\n", b"\n", b"\r"):
        with pytest.raises(Refusal, match="headers"):
            parsed(bytearray(b"--b" + break_ + (b"a:b" + break_) * 100_000 + break_ + break_), b"b")
    with pytest.raises(Refusal, match="32 parts"):
        parsed(bytearray(b'--b\r\nContent-Disposition: form-data; name="run"\r\n\r\nx\r\n' * 40), b"b")


def test_names_are_shown_and_no_paths():
    assert shown_name("../../etc/passwd") == "passwd"
    assert shown_name("C:\\clips\\a.mp4") == "a.mp4"
    assert shown_name("a\x00\x1b[31m\n.mp4") == "a\\x00\\x1b[31m\\n.mp4"
    assert shown_name("..") == ".."
    assert shown_name("/") == "unnamed"
    assert len(shown_name("x" * 5000 + ".mp4")) <= 120
    assert shown_name("x" * 5000 + ".png").endswith(".png")
    with pytest.raises(Refusal):
        boundary_of("multipart/form-data; boundary=" + "x" * 300)


def left_behind() -> tuple[set[str], int]:
    """Files of the temporary folder, and open files of this process."""
    return set(os.listdir(tempfile.gettempdir())), len(os.listdir("/proc/self/fd"))


def test_uploads_leave_nothing(corpus, service, client, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sent(client, corpus / "both.mp4")
    before, children = left_behind(), [d._process.pid for d in service.decoders.all]
    for _ in range(3):
        sent(client, corpus / "both.mp4", view="true")
        for name, (content, _) in clips_that_fail(corpus).items():
            client.post("/predict", files={"clip": (name, content)})
    assert left_behind() == before
    assert [d._process.pid for d in service.decoders.all] == children
    with in_memory(Upload("x", b"content")) as path:
        assert Path(path).read_bytes() == b"content"
        assert not list(Path("/dev/shm").glob("*upload*"))
    assert not Path(path).exists()


def test_more_requests_than_the_service_takes_are_refused_and_stopping_ones_finish(corpus, service):
    front = front_of(service, max_requests=2)
    client = client_of(front)
    front.begin()
    assert sent(client, corpus / "sound.wav").status_code == 200
    front.begin()
    answer = sent(client, corpus / "sound.wav")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["error"] == "2 requests are being answered already"

    async def stop() -> bool:
        ending = asyncio.create_task(front.drain())
        await asyncio.sleep(0.05)
        waits = not ending.done()
        front.end()
        front.end()
        await asyncio.wait_for(ending, 5)
        return waits

    assert asyncio.run(stop())
    assert sent(client, corpus / "sound.wav").status_code == 503
    assert client.get("/health").status_code == 503
    figures = client.get("/metrics").text
    assert 'avmend_requests_total{cause="",status="200"} 1.0' in figures
    assert 'avmend_requests_total{cause="",status="429"} 1.0' in figures
    assert "avmend_requests_running 0.0" in figures


def test_an_upload_that_takes_too_long_is_ended(service):
    front = front_of(service, upload_s=0.2)

    async def slow():
        yield b"--x\r\n"
        await asyncio.sleep(30)

    request = SimpleNamespace(headers={"content-type": "multipart/form-data; boundary=x"}, stream=slow)
    with pytest.raises(Refusal) as refused:
        asyncio.run(front.predict(request))
    assert refused.value.status == 408


def test_a_token_is_needed_where_there_is_one(corpus, service):
    client = client_of(front_of(service, token=TOKEN), "192.0.2.7")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        for path in ("/runs", "/metrics", "/examples/0"):
            assert client.get(path, headers=headers).status_code == 401
        refused = client.post("/predict", headers=headers, files={"clip": ("x.wav", b"x")})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/runs", headers=right).status_code == 200
    content = (corpus / "sound.wav").read_bytes()
    assert client.post("/predict", headers=right, files={"clip": ("x.wav", content)}).status_code == 200
    assert client.get("/").status_code == client.get("/health").status_code == 200


def test_without_a_token_this_machine_alone_is_answered(service):
    front = front_of(service)
    assert client_of(front).get("/runs").status_code == 200
    assert client_of(front, "192.0.2.7").get("/runs").status_code == 403
    client = client_of(front)
    rebound = client.get("/runs", headers={"Host": "evil.example"})
    assert (rebound.status_code, rebound.json()["field"]) == (403, "Host")
    other = client.get("/runs", headers={"Origin": "https://evil.example"})
    assert (other.status_code, other.json()["field"]) == (403, "Origin")
    assert client.get("/runs", headers={"Origin": "http://127.0.0.1"}).status_code == 200


def test_tokens_are_secrets(tmp_path, monkeypatch):
    monkeypatch.delenv("AVMEND_SERVE_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    with pytest.raises(InputError, match="others may read the token"):
        service_token(file)
    file.chmod(0o600)
    assert service_token(file) == TOKEN
    file.write_text("short")
    with pytest.raises(InputError, match="16 or more"):
        service_token(file)
    assert service_token(None) is None
    monkeypatch.setenv("AVMEND_SERVE_TOKEN", TOKEN)
    assert service_token(None) == TOKEN
    check_binding("127.0.0.1", None)
    check_binding("::1", None)
    check_binding("0.0.0.0", TOKEN)
    for host in ("0.0.0.0", "::", "192.0.2.7", "myhost"):
        with pytest.raises(InputError, match="open to others"):
            check_binding(host, None)


def test_the_page_loads_nothing_from_elsewhere_and_runs_its_own_script_alone(client):
    text = PAGE.read_text()
    assert not re.findall(r"""(?:src|href|url|import)\s*[=(]\s*["']?(?:https?:)?//""", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\son\w+=|\sstyle=", text)
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy == Page.read().policy
    assert len(re.findall(r"'sha256-[\w+/=]{44}'", policy)) == 2
    identifiers = set(re.findall(r'\$\("([\w-]+)"\)', text)) - {"without-", "noise-", "kind-", "shown-"}
    assert identifiers <= set(re.findall(r'id="([\w-]+)"', text))
    labelled = set(re.findall(r'<label[^>]* for="([\w-]+)"', text))
    assert {"token", "question", "noise-audio", "noise-visual", "kind-audio", "kind-visual"} <= labelled


def test_runs_and_examples_are_told(service, corpus, tmp_path):
    front = front_of(service, examples=(Example("a.mp4", b"abc"),))
    client = client_of(front)
    found = client.get("/runs").json()
    schema.Served.model_validate(found)
    assert [run["answers"] for run in found["runs"]] == [list(LABELS)] * 2
    assert found["examples"] == ["a.mp4"]
    assert client.get("/examples/0").content == b"abc"
    assert client.get("/examples/1").status_code == 404
    assert [example.name for example in examples_of(corpus, 1 << 26)] == sorted(NAMES)
    with pytest.raises(InputError, match="no clips here"):
        examples_of(tmp_path, 1 << 26)
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) >= {"/predict", "/runs", "/health", "/metrics"}
    form = paths["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {*schema.FORM}


def test_drawn_examples_are_clips(service):
    (first, *_) = examples_of(None, 1 << 26)
    answer = client_of(front_of(service)).post("/predict", files={"clip": (first.name, first.data)})
    assert answer.json()["done"] == {"audio": "clean", "visual": "clean"}


def test_a_clip_that_a_run_can_not_take_spoils_no_others(corpus, service, monkeypatch):
    """One clip's features overflow: the others of its batch are answered."""
    asked = [service.read(SimpleNamespace(**_request(corpus / name))) for name in NAMES[:3]]
    alone = [service.answer([one])[0] for one in asked]
    bad = next(iter(asked[1].read.values()))
    bad.arrays["frames"] = np.full(bad.arrays["frames"].shape, np.nan, np.float32)
    first, spoilt, last = service.answer(asked)
    assert [run["answer"] for run in first["runs"]] == [run["answer"] for run in alone[0]["runs"]]
    assert [run["answer"] for run in last["runs"]] == [run["answer"] for run in alone[2]["runs"]]
    assert {run["failure"]["error"] for run in spoilt["runs"]} == {"not computable"}


def test_two_runs_of_one_name_are_refused(world, corpus):
    with pytest.raises(InputError, match="two runs of this name"):
        Service.load(ServeConfig(runs=(world.backbone, world.backbone), data=corpus / "media"), "cpu")
    with pytest.raises(ValueError, match="below replicas"):
        ServeConfig(runs=(world.backbone,), replicas=3, max_replicas=2)


def test_a_wav_without_numbers_is_refused_with_its_cause(client, tmp_path):
    """FFmpeg would make constant full swings of it."""
    from scipy.io import wavfile

    wavfile.write(tmp_path / "nan.wav", 16000, np.full(16000, np.nan, np.float32))
    reply = sent(client, tmp_path / "nan.wav")
    assert reply.status_code == 422
    assert "no numbers" in reply.json()["error"]


def test_a_wide_clip_is_the_same_under_any_name(corpus, client):
    content = (corpus / "wide.mkv").read_bytes()
    replies = [client.post("/predict", files={"clip": (name, content)}).json() for name in ("wide.mkv", "x", "a.exe")]
    assert len({json.dumps(reply["runs"]) for reply in replies}) == 1
