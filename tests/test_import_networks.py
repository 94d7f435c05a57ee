"""Published question-answering networks taken in: answers by independent formulas, runs like any other, refusals."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from configs import load_config
from models.avqa.batch import AVQABatch, FeatureSpec
from models.avqa.recovery.avr import AVR
from shards.checkpoint import load_checkpoint
from shards.errors import InputError
from shards.published_words import released_words, word_pieces
from shards.questions import Question, Vocabulary, load_questions, save_questions
from shards.schema import DatasetInfo
from tests.fixtures import published as theirs
from tests.fixtures.asking import AUDIO, RMM, asking_world, question_stages, questions_about
from tests.fixtures.sharing import exported
from trainers.avqa.config import AVQAConfig, QuestionEvaluation
from trainers.avqa.evaluate import prepare
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.evaluate import main as evaluate
from trainers.imports.command import main
from trainers.runs import read_run
from trainers.train import train

pytestmark = pytest.mark.integration
SPLITS = {"train": 8, "val": 3, "test": 6}
DIM, LENGTH = 8, 14
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(_mlflow_schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features (8 wide, as is the network), questions, and a folder of runs."""
    folder = tmp_path_factory.mktemp("published")
    asking_world(folder, SPLITS)
    (folder / "runs").mkdir()
    shutil.copy(_mlflow_schema, folder / "runs")
    return folder


@pytest.fixture(scope="module")
def words() -> Vocabulary:
    return Vocabulary.released(questions_about(SPLITS))


@pytest.fixture(scope="module")
def avst_state(words: Vocabulary) -> theirs.State:
    return theirs.avst_state(DIM, AUDIO, len(words.words), len(words.answers))


def brought(kind: str, file: Path, root: Path, capsys: Any, *more: str) -> Path:
    """The run that the command prints."""
    argv = [kind, str(file), "--questions", str(root), "--runs", str(root / "runs"), *more]
    assert main(argv) == 0, capsys.readouterr().err
    return Path(capsys.readouterr().out.strip())


def loaded(folder: Path) -> QuestionPredictor:
    return load_answerer(read_run(folder), CPU)


def saved(state: theirs.State, path: Path) -> Path:
    torch.save({f"module.{name}": x for name, x in state.items()}, path)
    return path


def asked(predictor: QuestionPredictor, texts: list[str], audio: Tensor, visual: Tensor, present: Any = None) -> Tensor:
    rows = len(texts)
    there = torch.ones(rows, 2, dtype=torch.bool) if present is None else torch.tensor(present)
    ids = torch.tensor([predictor.vocabulary.encode(text, predictor.words) for text in texts])
    with torch.inference_mode():
        return predictor(AVQABatch(audio, visual, there, torch.zeros(rows).long(), torch.arange(rows), ids))


def close(found: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest logit."""
    assert expected.abs().max() > 0.1, "logits that say nothing"
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


TEXTS = ["What can be heard?", "What is to be seen in the picture?"]  # of 4 and 8 words: padded to 14


def ids_of(words: Vocabulary, texts: list[str]) -> Tensor:
    """By the released rule, written out."""
    order = list(words.words)
    rows = [[order.index(word) for word in text[:-1].split(" ")] for text in texts]
    return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])


def test_avst_answers_as_its_formula_through_padding(root, words, avst_state, tmp_path, capsys):
    run = brought("avst", saved(avst_state, tmp_path / "avst.pt"), root, capsys)
    predictor = loaded(run)
    assert predictor.vocabulary == words
    assert words.words[:6] == ("<pad>", "What", "can", "be", "heard", "is")
    assert words.answers[0] == next(q.answer for q in questions_about(SPLITS))
    rng = torch.Generator().manual_seed(1)
    audio, visual = torch.rand(2, 10, AUDIO, generator=rng), torch.rand(2, 10, 196, DIM, generator=rng)
    sound = theirs.avst_sound(avst_state, audio)
    close(asked(predictor, TEXTS, audio, visual), theirs.avst_logits(avst_state, sound, visual, ids_of(words, TEXTS)))
    longer = torch.tensor(
        [predictor.vocabulary.encode(t, 20) for t in TEXTS]
    )  # the padding read is 14, not the batch's
    net = predictor.answerer.network
    with torch.inference_mode():
        found = net(audio, visual, torch.ones(2, 2).bool(), longer)[0]  # type: ignore[misc]
    close(found, theirs.avst_logits(avst_state, sound, visual, ids_of(words, TEXTS)))


def test_missing_avqa_recalls_and_enhances_as_its_formula(root, words, tmp_path, capsys):
    sizes = {"side": 2, "slots": 5, "width": 8, "timesteps": 4}
    state = theirs.missing_avqa_state(DIM, AUDIO, len(words.words), len(words.answers), **sizes)
    run = brought("missing-avqa", saved(state, tmp_path / "best.pt"), root, capsys)
    predictor = loaded(run)
    net: Any = predictor.answerer.network
    rng = torch.Generator().manual_seed(2)
    audio, visual = torch.rand(3, 10, AUDIO, generator=rng), torch.rand(3, 10, DIM, 2, 2, generator=rng)
    texts = [*TEXTS, TEXTS[0]]
    present = [[True, True], [False, True], [True, False]]
    given = [(audio[0], visual[0]), (None, visual[1]), (audio[2], None)]
    ids, noise = ids_of(words, texts), list(net.enhance.noise[1:])
    expected = torch.stack(
        [theirs.missing_avqa_logits(state, a, v, i, noise) for (a, v), i in zip(given, ids, strict=True)]
    )
    audio[1], visual[2] = torch.nan, torch.nan
    close(asked(predictor, texts, audio, visual.flatten(3).transpose(2, 3), present), expected)


def test_the_released_unet_predicts_as_its_formula():
    from models.avqa.recovery.released_unet import ReleasedUNet
    from trainers.imports.names import Names
    from trainers.imports.published.missing_avqa import unet_parts

    drawn = theirs.Drawn(4)
    theirs.unet_state(6, 16, drawn, "")
    net = ReleasedUNet(6, 16)
    weights, left = Names(unet_parts()).taken(Path("x.pt"), "U-Net", drawn.state, dict(net.named_parameters()))
    assert not left
    net.load_state_dict(weights)
    x = torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(5))
    for t in (0, 7):
        with torch.inference_mode():
            close(net(x, torch.full((3,), t + 1)), theirs.unet(drawn.state, "", x, t))
    with pytest.raises(ValueError, match="side 3"):
        net(x[..., :3, :3], torch.ones(3).long())


def clip_file(folder: Path) -> Any:
    """A small CLIP, saved by OpenAI's names; the net as open_clip has it."""
    import open_clip

    vision = open_clip.model.CLIPVisionCfg(layers=1, width=64, image_size=32, patch_size=16)
    text = open_clip.model.CLIPTextCfg(width=64, heads=1, layers=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = open_clip.model.CLIP(DIM, vision, text, quick_gelu=True).eval()
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.normal_(0, 0.3 if name == "text_projection" else 0.1) if p.dim() > 1 else None
    folder.mkdir()
    torch.save(net.state_dict(), folder / "ViT-B-32.pt")
    return net


def clip_questions(net: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Words through CLIP's last norm and projection, and the whole question, by open_clip's own forward."""
    import open_clip

    normed = []
    hook = net.ln_final.register_forward_hook(lambda module, inputs, output: normed.append(output))
    with torch.inference_mode():
        whole = net.encode_text(open_clip.tokenize(texts))
    hook.remove()
    return normed[0] @ net.text_projection.detach(), whole


@pytest.mark.parametrize("lstm", [False, True], ids=["CLIP", "LSTM"])
def test_pstp_answers_as_its_formula_from_clips_question(root, words, tmp_path, capsys, lstm):
    clip = clip_file(tmp_path / "clip")
    state = theirs.pstp_state(DIM, AUDIO, len(words.answers), layers=2, words=len(words.words) if lstm else 0)
    file = saved(state, tmp_path / "pstp.pt")
    predictor = loaded(brought("pstp", file, root, capsys, "--weights", str(tmp_path / "clip")))
    rng = torch.Generator().manual_seed(3)
    audio, visual = torch.rand(2, 60, AUDIO, generator=rng), torch.rand(2, 60, 50, DIM, generator=rng)
    rows, whole = clip_questions(clip, [text[:-1] for text in TEXTS])
    question = (
        theirs.asked(state, "fc_q", ids_of(words, TEXTS)) if lstm else theirs.linear(state, "fc_q", whole.clone())
    )
    expected = theirs.pstp_logits(state, audio, visual[:, :, 0], question, rows.clone())
    close(asked(predictor, TEXTS, audio, visual), expected)
    assert predictor._notes("Is a theremin here?") == (() if not lstm else ("unknown words: theremin, here",))


def test_runs_with_clips_question_start_from_an_imported_network(root, words, tmp_path, capsys):
    clip_file(tmp_path / "clip")
    file = saved(theirs.pstp_state(DIM, AUDIO, len(words.answers), layers=1), tmp_path / "pstp.pt")
    data = root / "media" / "features" / "small"
    run = brought("pstp", file, root, capsys, "--weights", str(tmp_path / "clip"), "--data", str(data))
    fields = {"data": data, "questions": root / "questions.jsonl", "network": "pstp", "standardise": False}
    fields |= {"sizes": read_run(run).config.sizes, "recovery": "rmm", "recovery_sizes": RMM}  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"field 'sizes.text': CLIP's text tower has weights of its own"):
        question_stages(AVQAConfig(**fields))
    (stage,) = question_stages(AVQAConfig(**fields, network_from=run))
    loss = stage.objective(stage.train.batch([0, 1, 2])).loss
    loss.backward()
    tower = [p for n, p in stage.objective.named_parameters() if ".tower." in n]
    assert tower
    assert all(p.grad is None for p in tower)


def test_lavit_answers_as_its_formula_with_regions_of_its_own(root, tmp_path, capsys):
    layers = {"layer": 2, "v_layers": 1, "a_layers": 1, "x_layers": 2}
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "can", "be", "he", "##ard", "?"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (tmp_path / "answers.json").write_text(json.dumps(["north", "south", "a dog"]))
    state = theirs.lavit_state(24, 5, 4, len(pieces), 3, layers)
    torch.save({"epoch": 3, "model": {f"model.{name}": x for name, x in state.items()}}, tmp_path / "lavit.pt")
    more = ("--pieces", str(tmp_path / "vocab.txt"), "--answers", str(tmp_path / "answers.json"))
    predictor = loaded(brought("lavit", tmp_path / "lavit.pt", root, capsys, *more))
    assert predictor.answers == ("north", "south", "a dog")
    rng = torch.Generator().manual_seed(4)
    audio, visual = torch.randn(1, 18, 13, generator=rng), torch.randn(1, 18, 2, 10, generator=rng)
    regions = visual[0].flatten(0, 1)
    given = {
        "ids": torch.tensor([2, 4, 5, 6, 7, 8, 9, 3]),
        "left": audio[0, :, :5],
        "right": audio[0, :, 5:10],
        "sounds_at": audio[0, :, 10:],
        "regions": regions[:, :4],
        "regions_at": regions[:, 4:],
    }
    close(asked(predictor, ["What can be heard?"], audio, visual), theirs.lavit_logits(state, given, layers)[None])


def test_word_rules_of_published_code():
    assert released_words("Is the Cello ?  ") == ["Is", "the", "Cello", ""]
    pieces = {piece: i for i, piece in enumerate(["[UNK]", "un", "##aff", "##able", "cafe", "'", "s", "?"])}
    assert word_pieces("Unaffable café's zzz?", pieces) == [
        "un",
        "##aff",
        "##able",
        "cafe",
        "'",
        "s",
        "[UNK]",
        "?",
        "[SEP]",
    ]
    rows = [Question(id="1", clip="c", question="Is it Loud?", answer="yes", type="a b", split="train")]
    words = Vocabulary.released(rows)
    assert words.encode("Loud it Is?", 5) == [3, 2, 1, 0, 0]
    with pytest.raises(InputError, match=r"no published words: 'loud'[^$]*did you mean 'Loud'"):
        words.encode("Is it loud?", 5)
    assert Vocabulary.model_validate(words.record()) == words
    assert "rule" not in Vocabulary.of(rows).record()


def test_evaluation_takes_it_like_any_other(root, avst_state, tmp_path, capsys):
    data = root / "media" / "features" / "small"
    run = brought("avst", saved(avst_state, tmp_path / "mine.pt"), root, capsys, "--data", str(data), "--label", "AVST")
    config = read_run(run).config
    assert (config.steps_at, config.standardise) == ("starts", False)
    out = tmp_path / "answers"
    assert evaluate([str(run), "--out", str(out)]) == 0, capsys.readouterr().err
    assert "| avst | AVST |" in (out / "results.md").read_text()


def test_it_is_handed_on_like_any_run(root, avst_state, tmp_path, capsys):
    data = Path(shutil.copytree(root / "media" / "features" / "small", tmp_path / "bought"))
    info = DatasetInfo.load(data)  # made of published files: there are no media behind them
    info.model_copy(update={"preprocessing": {**info.preprocessing, "layout": "plain"}}).save(data)
    run = brought("avst", saved(avst_state, tmp_path / "mine.pt"), root, capsys, "--data", str(data))
    without = brought("avst", tmp_path / "mine.pt", root, capsys)
    assert main([str(exported(run, tmp_path / "shared")), "--runs", str(tmp_path / "runs")]) == 0
    there = read_run(tmp_path / "runs" / run.name)
    assert there.imported
    assert there.cost()["train_seconds"] == 0
    config = QuestionEvaluation(data=data, questions=root / "questions.jsonl")
    mine, theirs = (prepare([x], config).rows(lambda *_, **__: None) for x in (read_run(run), there))
    assert [row.accuracy for row in mine] == [row.accuracy for row in theirs]
    with pytest.raises(InputError, match="was imported, and has no clips of its own"):
        exported(without, tmp_path / "none")


def test_a_run_starts_from_it_by_its_words_answers_and_scale(root, avst_state, tmp_path, capsys):
    data = root / "media" / "features" / "small"
    run = brought("avst", saved(avst_state, tmp_path / "a.pt"), root, capsys, "--data", str(data))
    fields = {"data": data, "questions": root / "questions.jsonl", "network_from": run, "recovery": "rmm"}
    fields |= {"recovery_sizes": RMM, "epochs": 1, "batch_size": 8, "workers": 0, "cpus": 1, "freeze": ("network",)}
    with pytest.raises(InputError, match=r"remedy: give sizes.dim=8 sizes.padding=14 standardise=false$"):
        train(AVQAConfig(**fields), root / "runs")
    fields |= {"sizes": {"dim": DIM, "padding": LENGTH}, "standardise": False}
    found = train(AVQAConfig(**fields), root / "runs")
    mine, before = load_checkpoint(found / "avqa"), load_checkpoint(run / "avqa")
    assert mine.meta["vocabulary"] == before.meta["vocabulary"]
    assert mine.meta["scale"] == before.meta["scale"]
    network = [name for name in before.weights if name.startswith("network.")]
    assert network
    assert all(torch.equal(mine.weights[name], before.weights[name]) for name in network)


def test_the_same_command_gives_the_same_run_and_other_content_another(root, avst_state, tmp_path, capsys):
    file = saved(avst_state, tmp_path / "avst.pt")
    run = brought("avst", file, root, capsys)
    stamp = (run / "avqa" / "weights.safetensors").stat().st_mtime_ns
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / file.name
    copy.write_bytes(file.read_bytes())
    assert brought("avst", copy, root, capsys) == run
    assert brought("avst", copy, root, capsys, "--label", "ours") != run, "tables would take them for two seeds of one"
    assert (run / "avqa" / "weights.safetensors").stat().st_mtime_ns == stamp
    other = {**avst_state, "fc_ans.bias": avst_state["fc_ans.bias"] + 1}
    assert brought("avst", saved(other, tmp_path / "b.pt"), root, capsys) != run
    assert brought("avst", file, root, capsys, "--data", str(root / "media" / "features" / "small")) != run
    with pytest.raises(InputError, match="was imported, and has no clips of its own"):
        prepare([read_run(run)], QuestionEvaluation())
    record = json.loads((run / "config.json").read_text())["imported"]
    assert (record["kind"], record["file"]) == ("avst", "avst.pt")
    assert "visual_net.conv1.weight" in record["unused"]


@pytest.mark.parametrize("form", ["safetensors", "state_dict", "model", "net.model", "bare"])
def test_forms_of_files(root, avst_state, tmp_path, capsys, form):
    file = tmp_path / "weights.pt"
    nested = {
        "state_dict": {"state_dict": {f"module.{k}": x for k, x in avst_state.items()}, "epoch": 4},
        "model": {"model": avst_state, "optimizer": {"state": {}, "lr": 0.1}},
        "net.model": {"net": {"model": {f"module.model.{k}": x for k, x in avst_state.items()}}},
        "bare": avst_state,
    }
    if form == "safetensors":
        save_file(avst_state, file := tmp_path / "weights.safetensors")
    else:
        torch.save(nested[form], file)
    predictor = loaded(brought("avst", file, root, capsys))
    net: Any = predictor.answerer.network
    assert torch.equal(net.answer.weight, avst_state["fc_ans.weight"])


def refused(kind: str, file: Path, root: Path, capsys: Any, *more: str) -> str:
    assert main([kind, str(file), "--questions", str(root), "--runs", str(root / "runs"), *more]) == 2
    return capsys.readouterr().err


def test_what_does_not_fit_is_listed_by_the_published_names(root, avst_state, tmp_path, capsys):
    state = {**avst_state, "fc_anz.weight": avst_state["fc_ans.weight"], "extra.bias": torch.zeros(1)}
    state["norm2.bias"] = torch.zeros(3)
    del state["linear21.bias"], state["attn_v.in_proj_bias"]
    said = refused("avst", saved(state, tmp_path / "odd.pt"), root, capsys)
    for part in (
        "odd.pt: is no AVST",
        "missing linear21.bias, attn_v.in_proj_bias",
        "unknown fc_anz.weight, extra.bias",
        "norm2.bias is [3], expected [8]",
    ):
        assert part in said
    near = {
        ("fc_fussion" + n.removeprefix("fc_fusion") if n.startswith("fc_fusion") else n): x
        for n, x in avst_state.items()
    }
    assert "fc_fusion.weight (nearest: fc_fussion.weight)" in refused(
        "avst", saved(near, tmp_path / "n.pt"), root, capsys
    )
    only = {"conv1.weight": torch.zeros(2, 2)}
    said = refused("avst", saved(only, tmp_path / "resnet.pt"), root, capsys)
    assert "is no AVST: it has no fc_a1.weight (1 tensors: conv1.weight)" in said


class Custom:
    """A class of somebody's own, as pickles hold it."""

    def __init__(self) -> None:
        self.weight = torch.zeros(2)


def test_files_that_are_none_are_refused_and_no_pickle_is_run(root, avst_state, tmp_path, capsys):
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (touched,))

    torch.save({"model": Custom()}, tmp_path / "module.pt")
    said = refused("avst", tmp_path / "module.pt", root, capsys)
    assert "holds Python objects" in said
    assert "torch.save(module.state_dict(), 'weights.pt')" in said
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    refused("avst", tmp_path / "evil.pt", root, capsys)
    torch.save({"state_dict": Evil()}, tmp_path / "evil2.pt")
    refused("avst", tmp_path / "evil2.pt", root, capsys)
    assert not touched.exists()
    (tmp_path / "text.pt").write_text("hello")
    assert "text.pt" in refused("avst", tmp_path / "text.pt", root, capsys)
    assert "no such" in refused("avst", tmp_path / "none.pt", root, capsys).lower()
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "empty.pt")
    assert "has no state dict: epoch, lr" in refused("avst", tmp_path / "empty.pt", root, capsys)
    spoilt = {**avst_state, "fc_ans.bias": avst_state["fc_ans.bias"] * torch.nan}
    assert "no finite numbers: fc_ans.bias" in refused("avst", saved(spoilt, tmp_path / "nan.pt"), root, capsys)


def test_questions_and_features_of_others_are_refused(root, words, avst_state, tmp_path, capsys):
    file = saved(avst_state, tmp_path / "avst.pt")
    (tmp_path / "avqa-train.json").write_text("[]")
    said = refused("avst", file, tmp_path, capsys)
    assert "no questions.jsonl here" in said
    assert "avmend corpus music_avqa" in said
    save_questions(tmp_path / "questions.jsonl", load_questions(root / "questions.jsonl")[:3])
    said = refused("avst", file, tmp_path, capsys)
    assert f"field 'words': 15 words here, {len(words.words)} in the weights" in said
    wide = theirs.avst_state(DIM, AUDIO + 1, len(words.words), len(words.answers))
    data = str(root / "media" / "features" / "small")
    said = refused("avst", saved(wide, tmp_path / "wide.pt"), root, capsys, "--data", data)
    assert "sound and picture of widths (6, 8); AVST takes (7, 8)" in said
    assert "needs ViT-B-32*.pt" in refused(
        "pstp", saved(theirs.pstp_state(8, 6, 3, 1), tmp_path / "p.pt"), root, capsys
    )


def test_avr_released_and_the_released_unet_train(root):
    sizes = {"channels": 8, "width": 8, "timesteps": 3}
    for recovery, more in (("avr_released", sizes), ("avr", {**sizes, "unet": "released"})):
        config = load_config(
            AVQAConfig,
            overrides=[
                f"data={root / 'media/features/small'}",
                f"questions={root / 'questions.jsonl'}",
                "sizes.dim=8",
                f"recovery={recovery}",
                *(f"recovery_sizes.{k}={v}" for k, v in more.items()),
            ],
        )
        (stage,) = question_stages(config)
        output = stage.objective.train()(stage.train.batch(range(8)))
        output.loss.backward()
        assert output.loss.isfinite()
        learning = {name: p.grad for name, p in stage.objective.named_parameters() if p.requires_grad}
        assert all(grad is not None and grad.isfinite().all() for grad in learning.values())
        assert all(grad.any() for name, grad in learning.items() if ".recovery." in name), recovery
    with pytest.raises(ValueError, match="side 3"):
        AVR(FeatureSpec(audio=4, visual=4, steps=2, places=9), 1, unet="released")
