"""DrFuse: pooling, losses and fusion by hand; what counts for incomplete samples; answers reach losses alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from models.avqa.batch import NO_ANSWER, AVQABatch
from models.avqa.networks.avst_drfuse import divergence, pooled, ranking
from models.batch import take_away
from tests.fixtures.asking import asking_world, question_stages, settings
from tests.test_networks import ANSWERS, built, inputs
from trainers.avqa.config import AVQAConfig
from trainers.avqa.objective import AnswerLoss

unit, integration = pytest.mark.unit, pytest.mark.integration
PRESENT = torch.tensor([[1, 1], [0, 1], [1, 0]], dtype=torch.bool)
WHOLE = torch.ones(3, 2, dtype=torch.bool)
RIGHT = torch.tensor([0, 2, 5])


@unit
def test_shared_parts_are_pooled_as_the_logit_of_the_mean_sigmoid():
    one, other = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = (one.sigmoid() + other.sigmoid()) / 2
    torch.testing.assert_close(pooled([one, other]), (mean / (1 - mean)).log(), atol=1e-6, rtol=1e-5)
    assert pooled([one]) is one
    far = torch.tensor([[200.0, -200.0, 200.0]])
    assert pooled([far, -far]).abs().max() < 1e-6
    assert torch.equal(pooled([far, far]), far)


@unit
def test_divergence_is_scipy_s_summed():
    one, other = np.random.default_rng(0).normal(0, 2, (2, 3, 4))
    p, q = (1 / (1 + np.exp(-x)) for x in (one, other))
    pairs = [
        [jensenshannon([a, 1 - a], [b, 1 - b]) ** 2 for a, b in zip(*row, strict=True)]
        for row in zip(p, q, strict=True)
    ]
    found = divergence(torch.from_numpy(one).float(), torch.from_numpy(other).float())
    np.testing.assert_allclose(found.numpy(), np.sum(pairs, axis=1), rtol=1e-4)
    assert divergence(torch.ones(1, 4), torch.ones(1, 4)).abs().max() < 1e-6
    edges = torch.tensor([[100.0, -100.0]])
    torch.testing.assert_close(divergence(edges, -edges), torch.tensor([2 * np.log(2.0)], dtype=torch.float32))


@unit
def test_ranking_by_hand():
    """Two classes, the first is right; of three parts the first is surest of it, the last is wrong."""
    odds = torch.tensor([3.0, 1.0, -1.0])
    logits = torch.stack([odds, torch.zeros(3)])[None]
    attention = torch.tensor([[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]])
    # the first class: part 0 should lead 1 (0.3 behind) and 2 (0.1 behind), 1 leads 2; the second class is in order
    expected = torch.tensor([(0.3 + 0.1 + 0.0) / 3])
    torch.testing.assert_close(ranking(logits, attention, torch.tensor([0])), expected)
    # where the second is right, all three pairs are the other way round: both classes violate, or one
    first = [0.0, 0.0, 0.2]  # 1 should lead 0 (it does), 2 leads 0 (it does), 2 leads 1 (0.2 behind)
    second = [0.3, 0.5, 0.2]
    counts = [1, 1, 2]
    expected = torch.tensor([sum((a + b) / n for a, b, n in zip(first, second, counts, strict=True)) / 3])
    torch.testing.assert_close(ranking(logits, attention, torch.tensor([1])), expected)
    assert ranking(logits, attention, torch.tensor([NO_ANSWER])).tolist() == [0.0]


def forward(net: torch.nn.Module, present: Tensor, filling: float = float("nan"), answer: Tensor = RIGHT) -> tuple:
    audio, visual, question, negative = inputs()
    audio = torch.where(present[:, 0, None, None], audio, filling)
    visual = torch.where(present[:, 1, None, None, None], visual, filling)
    return net(audio, visual, present, question, negative, answer=answer)


@unit
@torch.no_grad()
def test_every_answer_attends_to_the_parts_that_there_are():
    """The fusion with loops over samples, answers and parts."""
    net, (audio, visual, question, _) = built("avst_drfuse"), inputs()
    logits, _ = forward(net, PRESENT)
    asked = net.question(question)[0]
    for i, row in enumerate(PRESENT.tolist()):
        at = slice(i, i + 1)
        sound = net.audio(audio[at]) if row[0] else None
        frame = net._grounded(sound, visual[at]) if row[1] else None
        distinct, shared = net._parts(asked[at], sound, frame)
        mean = torch.stack([x.sigmoid() for x in shared.values()]).mean(dim=0)
        parts = [x[0] for x in (torch.logit(mean), *distinct.values())]
        query = torch.stack([net.query(x) for x in parts]).mean(dim=0)
        for a in range(ANSWERS):
            keys = net.keys.weight.view(ANSWERS, 8, 8)[a]
            weights = torch.stack([query @ (keys @ x) / 8**0.5 for x in parts]).softmax(dim=0)
            value = sum(w * net.value(x) for w, x in zip(weights, parts, strict=True))
            expected = value @ net.answer.weight[a] + net.answer.bias[a]
            torch.testing.assert_close(logits[i, a], expected, atol=1e-5, rtol=1e-4)


@unit
def test_losses_are_those_of_what_is_there_and_nothing_absent_has_a_gradient():
    net = built("avst_drfuse")
    outcomes = []
    for filling in (float("nan"), float("inf"), 0.0):
        net.zero_grad()
        logits, losses = forward(net, PRESENT, filling)
        total = sum(x.sum() for x in losses.values())
        total.backward()
        outcomes.append([logits, *losses.values(), *(p.grad for p in net.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(outcomes[0], outcomes[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(outcomes[0], outcomes[2], strict=True))
    assert all(x.isfinite().all() for x in outcomes[0])
    whole = forward(net, WHOLE)[1]
    assert set(losses) == set(net.loss_names) == set(whole)
    for name in ("divergence", "ranking", "match"):
        assert losses[name][1:].tolist() == [0.0, 0.0]
    for name in ("branches", "orthogonality"):
        assert (losses[name] > 0).all()
        assert not torch.isclose(losses[name][1:], whole[name][1:]).any()


@unit
@torch.no_grad()
def test_branches_are_cross_entropies_of_every_part():
    net, (audio, visual, question, _) = built("avst_drfuse"), inputs()
    asked, sound = net.question(question)[0], net.audio(audio)
    distinct, shared = net._parts(asked, sound, net._grounded(sound, visual))
    parts = {"shared": pooled(list(shared.values())), **distinct}
    rows = torch.arange(3)
    expected = sum(-net.branch[name](x).log_softmax(dim=1)[rows, RIGHT] for name, x in parts.items())
    losses = forward(net, WHOLE)[1]
    torch.testing.assert_close(losses["branches"], expected)
    cos = sum(
        ((distinct[m] * shared[m]).sum(1) / distinct[m].norm(dim=1) / shared[m].norm(dim=1)).abs() for m in distinct
    )
    torch.testing.assert_close(losses["orthogonality"], cos)


@unit
@torch.no_grad()
def test_answers_reach_the_losses_and_never_the_logits():
    net = built("avst_drfuse")
    logits, losses = forward(net, PRESENT)
    other, changed = forward(net, PRESENT, answer=(RIGHT + 1) % ANSWERS)
    assert torch.equal(logits, other)
    assert not torch.isclose(losses["branches"], changed["branches"]).any()
    assert forward(net, PRESENT, answer=torch.full((3,), NO_ANSWER))[1]["branches"].tolist() == [0.0] * 3
    audio, visual, question, _ = inputs()
    in_use = net(audio, visual, WHOLE, question)
    assert set(in_use[1]) == {"divergence", "orthogonality"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asking")
    asking_world(folder, {"train": 18})
    return folder


@unit
def test_its_losses_count_in_all_three_cases_by_their_weights(root):
    """18 clips with gaps, three questions each; of complete ones each case, of incomplete ones what they have."""
    (stage,) = question_stages(AVQAConfig(**settings(root, "avst_drfuse", "masking")))
    objective = stage.objective
    assert isinstance(objective, AnswerLoss)
    batch = stage.train.batch(range(54))
    complete = int(batch.present.all(dim=1).sum())
    figures = objective.train()(batch).metrics
    counts = {name: int(figures[name][1]) for name in ("branches", "orthogonality", "divergence", "ranking")}
    assert counts == {"branches": 54 + 2 * complete, "orthogonality": 54 + 2 * complete} | dict.fromkeys(
        ("divergence", "ranking"), complete
    )
    with torch.no_grad():
        before = objective.eval()(batch)
        assert "branches" not in before.metrics
        objective.weights = objective.weights | {"orthogonality": 0.0}
        after = objective(batch)
    assert float(before.loss - after.loss) == pytest.approx(_orthogonality(objective, batch), rel=1e-4)


@torch.no_grad()
def _orthogonality(objective: AnswerLoss, batch: AVQABatch) -> float:
    """Of all three cases, over all samples."""
    whole = batch.select(batch.present.all(dim=1))
    cases = [batch, *(replace(take_away(whole, m), negative=None) for m in ("audio", "visual"))]
    return sum(float(objective.answerer(case)[1]["orthogonality"].sum()) for case in cases) / len(batch)


@integration
def test_it_learns_and_its_losses_fall(root):
    (stage,) = question_stages(AVQAConfig(**settings(root, "avst_drfuse", "masking", alternate_missing=True)))
    optimizer = torch.optim.Adam(stage.objective.parameters(), lr=1e-2)
    batch, seen = stage.train.batch(range(0, 54, 2)), []
    for _ in range(50):
        output = stage.objective.train()(batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        seen.append({name: float(x[0] / x[1]) for name, x in output.metrics.items()})
    for name in ("ce_complete", "ce_audio_missing", "ce_visual_missing", "branches"):
        assert seen[-1][name] < 0.6 * seen[0][name], name
    assert seen[-1]["orthogonality"] < seen[0]["orthogonality"]
