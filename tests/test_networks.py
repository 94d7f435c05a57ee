"""The question-answering networks: what all four promise, and what each is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.networks import NETWORKS
from models.avqa.networks.avsd import AVSD
from models.avqa.networks.avst import AVST, ground
from models.avqa.networks.common import word_mask
from models.avqa.networks.lavit import LAViT, cell_weights, region_coordinates, sound_coordinates
from models.avqa.networks.pstp import PSTPNet, Relevance, best, pick, segment_steps
from tests.fixtures.tiers import told_by

unit, integration = pytest.mark.unit, pytest.mark.integration

WORDS, ANSWERS, BATCH, LENGTH = 11, 6, 3, 5
GRID = FeatureSpec(audio=6, visual=7, steps=5, places=4)
TOKEN = FeatureSpec(audio=6, visual=7, steps=5, places=9, frame_token=True)
ONE = FeatureSpec(audio=6, visual=7, steps=1, places=1)
SIZES: dict[str, dict[str, Any]] = {
    "avst": {"dim": 16, "heads": 2},
    "avsd": {"dim": 16},
    "lavit": {"dim": 16, "heads": 2, "language": 1, "visual": 1, "audio": 1, "cross": 2, "grid": 2},
    "pstp": {"dim": 16, "heads": 2, "segments": 4, "top_patches": 3},
    "pstp released": {"dim": 16, "heads": 2, "mode": "released"},
    "avst_prompts": {"dim": 16, "heads": 2, "prompts": 3},
    "avst_prompts attention": {"dim": 16, "heads": 2, "prompts": 4, "kind": "attention"},
    "avst_drfuse": {"dim": 16, "heads": 2, "width": 8},
    "missing_avqa": {"dim": 7, "heads": 7, "slots": 6, "width": 8, "multipliers": (1,), "timesteps": 3},
}
every_network = pytest.mark.parametrize("name", SIZES)


def built(name: str, spec: FeatureSpec = GRID, **sizes: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[name.split()[0]](spec, WORDS, ANSWERS, **(SIZES[name] | sizes)).eval()


def inputs(spec: FeatureSpec = GRID, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Audio, visual, questions of 5, 3 and 1 words, negative frames."""
    rng = torch.Generator().manual_seed(seed)
    audio = torch.randn(BATCH, spec.steps, spec.audio, generator=rng)
    visual, negative = torch.randn(2, BATCH, spec.steps, spec.rows, spec.visual, generator=rng)
    question = torch.randint(1, WORDS, (BATCH, LENGTH), generator=rng)
    question[1, 3:], question[2, 1:] = 0, 0
    return audio, visual, question, negative


def ask(
    net: nn.Module, audio: Tensor, visual: Tensor, question: Tensor, negative: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Of complete samples; right answers only where the network takes them."""
    taught = {"answer": question[:, 0] % ANSWERS} if getattr(net, "takes_answers", False) else {}
    return net(audio, visual, torch.ones(len(audio), 2, dtype=torch.bool), question, negative, **taught)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@integration
@torch.no_grad()
@every_network
@pytest.mark.parametrize("spec", [GRID, TOKEN, ONE], ids=["grid", "frame token", "one of all"])
def test_a_sample_alone_is_what_it_is_among_others(name, spec):
    net, given = built(name, spec), inputs(spec)
    logits, aux = ask(net, *given)
    assert logits.shape == (BATCH, ANSWERS)
    order = torch.tensor([2, 0, 1])
    moved, moved_aux = ask(net, *(x[order] for x in given))
    close(moved, logits[order])
    for i in range(BATCH):
        alone, alone_aux = ask(net, *(x[i : i + 1] for x in given))
        close(alone, logits[i : i + 1])
        for key, value in aux.items():
            assert value.shape == (BATCH,)
            close(alone_aux[key], value[i : i + 1])
            close(moved_aux[key], value[order])


@unit
@torch.no_grad()
@every_network
def test_padding_is_not_read(name):
    net, (audio, visual, question, _) = built(name), inputs()
    logits, _ = ask(net, audio, visual, question)
    for length in (14, 20):
        close(ask(net, audio, visual, F.pad(question, (0, length - LENGTH)))[0], logits)
    close(ask(net, audio[1:2], visual[1:2], question[1:2, :3])[0], logits[1:2])  # cut to its words


@unit
@torch.no_grad()
@every_network
def test_a_question_without_a_known_word_is_answered(name):
    net, (audio, visual, _, _) = built(name), inputs()
    for word in (0, 1):
        assert ask(net, audio, visual, torch.full((BATCH, LENGTH), word))[0].isfinite().all()


@unit
@torch.no_grad()
@every_network
@pytest.mark.parametrize("which", [0, 1], ids=["audio", "visual"])
def test_nan_stays_with_its_sample_and_is_not_overlooked(name, which):
    net, given = built(name), list(inputs())
    clean, clean_aux = ask(net, *given)
    given[which] = given[which].clone()
    given[which][1] = torch.nan
    logits, aux = ask(net, *given)
    assert logits[1].isnan().all()
    close(logits[[0, 2]], clean[[0, 2]])
    for key, value in aux.items():
        assert value.isnan().tolist() == [False, True, False]
        close(value[[0, 2]], clean_aux[key][[0, 2]])


@unit
@every_network
def test_inputs_stay_and_bits_repeat(name):
    given = inputs()
    before = [x.clone() for x in given]

    def run() -> list[Tensor]:
        net = built(name)
        logits, aux = ask(net, *given)
        (logits.square().sum() + sum(v.sum() for v in aux.values())).backward()
        return [logits.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


@unit
@torch.no_grad()
@every_network
def test_dropout_is_drawn_in_training_alone(name):
    net, given = built(name, dropout=0.5), inputs()
    assert torch.equal(ask(net, *given)[0], ask(net, *given)[0])
    net.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(ask(net, *given)[0], ask(net, *given)[0])


@unit
@pytest.mark.parametrize(
    "name", [name for name in SIZES if name != "missing_avqa"]
)  # recalls nothing where all is there
@pytest.mark.parametrize("spec", [GRID, TOKEN], ids=["grid", "frame token"])
def test_no_part_is_dead(name, spec):
    net, (audio, visual, question, negative) = built(name, spec).double(), inputs(spec)
    audio, visual = (x.double().requires_grad_() for x in (audio, visual))
    logits, aux = ask(net, audio, visual, question, negative.double())
    (logits.square().sum() + sum(v.sum() for v in aux.values())).backward()
    grads = {k: p.grad for k, p in [*net.named_parameters(), ("audio", audio), ("visual", visual)]}
    lacking = {k for k in grads if k.startswith("prompts.") and "_missing_" in k}  # of other cases
    assert not [k for k, g in grads.items() if k not in lacking and (g is None or g.abs().max() < 1e-8)]


def fitted(name: str, steps: int, rate: float) -> tuple[list[str], list[bool]]:
    """A network fitted to four tasks at once; each question's task, and whether it is answered rightly.

    Everything that a task does not need is the same in all of its questions.
    """
    with torch.random.fork_rng():
        torch.manual_seed(1)
        codes = 2 * torch.randn(2, 3, GRID.audio + 1)
        still = torch.zeros(GRID.audio + 1)
        rows: list[tuple[str, int, Tensor, Tensor, int]] = []
        for i in range(3):
            rows.append(("audio", 2, codes[0, i], still, i))
            rows.append(("visual", 3, still, codes[1, i], i))
            rows.append(("question", 5 + i, still, still, i))
        rows += [("both", 4, codes[0, i], codes[1, j], 2 * i + j) for i in range(2) for j in range(2)]
        audio = torch.stack([a[: GRID.audio] for _, _, a, _, _ in rows])[:, None].expand(-1, GRID.steps, -1)
        visual = torch.stack([v for _, _, _, v, _ in rows])[:, None, None]
        visual = visual.expand(-1, GRID.steps, GRID.rows, -1)
        question = torch.tensor([[word, 9, 0] for _, word, _, _, _ in rows])
        label = torch.tensor([answer for *_, answer in rows])
        net = built(name, dim=32, dropout=0.0).train()
        optimizer = torch.optim.Adam(net.parameters(), lr=rate)
        for _ in range(steps):
            loss = F.cross_entropy(ask(net, audio, visual, question)[0], label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right = ask(net.eval(), audio, visual, question)[0].argmax(dim=1) == label
    return [task for task, *_ in rows], right.tolist()


@pytest.mark.parametrize(
    ("name", "steps", "rate"),
    told_by(
        lambda case: case[0] == "avst",
        [("avst", 28, 5e-3), ("avsd", 28, 1e-2), ("lavit", 28, 5e-3), ("pstp", 32, 5e-3)],
    ),
)
def test_it_learns_from_sound_picture_both_and_question(name, steps, rate):
    tasks, right = fitted(name, steps, rate)
    assert not [task for task, answered in zip(tasks, right, strict=True) if not answered]


# --- what they share


@unit
def test_words_end_at_the_last_one_and_an_empty_question_has_one():
    found = word_mask(torch.tensor([[4, 0, 7, 0], [0, 0, 0, 0], [3, 3, 3, 3]]))
    assert found.tolist() == [[True, True, True, False], [True, False, False, False], [True] * 4]


@unit
def test_heads_that_do_not_divide_the_width_are_refused():
    for name in ("avst", "lavit", "pstp"):
        with pytest.raises(ValueError, match="16 is not divisible by heads 3"):
            built(name, heads=3)


@unit
@torch.no_grad()
@every_network
def test_the_frame_token_is_read_where_it_serves(name):
    net, (audio, visual, question, _) = built(name, TOKEN), inputs(TOKEN)
    other = visual.clone()
    other[:, :, 0] += 1
    same = torch.equal(ask(net, audio, visual, question)[0], ask(net, audio, other, question)[0])
    assert same == name.startswith(("avst", "avsd", "missing_avqa"))


# --- AVST


@unit
def test_avst_has_the_paper_s_sizes():
    net = AVST(FeatureSpec(128, 512, 10, 196), 93, 42).eval()

    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    parts = {
        "question": 93 * 512 + 4 * 512 * (512 + 512) + 2 * 4 * 512 + linear(1024, 512),
        "audio": linear(128, 512) + linear(512, 512),
        "frame": linear(1024, 512),
        "match": sum(linear(i, o) for i, o in pairwise([1024, 512, 256, 128, 2])),
        "attend": 2 * (linear(512, 3 * 512) + linear(512, 512) + 2 * linear(512, 512) + 2 * 512),
        "answer": linear(1024, 512) + linear(512, 42),
    }
    assert sum(p.numel() for p in net.parameters()) == sum(parts.values()) == 7_916_716
    with torch.no_grad():
        visual = torch.ones(1, 10, 196, 512)
        logits, aux = ask(net, torch.ones(1, 10, 128), visual, torch.ones(1, 14, dtype=torch.long), visual)
    assert (logits.shape, aux["match"].shape) == ((1, 42), (1,))


@unit
def test_the_sound_points_at_the_place_that_is_parallel_to_it():
    audio = torch.tensor([[[2.0, 0.0]]])
    visual = torch.tensor([[[[0.0, 5.0], [3.0, 0.0], [-1.0, 0.0]]]])  # cosines 0, 1, -1
    grounded, weights = ground(audio, visual)
    e = torch.tensor([0.0, 1.0, -1.0]).exp()
    close(weights[0, 0], e / e.sum())
    close(grounded[0, 0], torch.stack([(e[1] - e[2]) / e.sum(), e[0] / e.sum()]))


@unit
def test_the_match_loss_falls_and_is_there_for_negatives_alone():
    net = built("avst", dropout=0.0, dim=32).train()
    audio, visual, question, negative = inputs()
    visual, negative = visual + 1, negative - 1
    assert ask(net, audio, visual, question)[1] == {}
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(16):
        match = ask(net, audio, visual, question, negative)[1]["match"]
        losses.append(match.mean().item())
        optimizer.zero_grad()
        match.mean().backward()
        optimizer.step()
    assert losses[0] == pytest.approx(0.69, abs=0.1)  # -log 1/2
    assert losses[-1] < 0.5 * losses[0]


@unit
@torch.no_grad()
def test_the_match_loss_is_the_mean_over_both_kinds_of_pairs():
    net, (audio, visual, question, negative) = built("avst"), inputs()
    for layer in net.match:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    net.match[-1].bias.copy_(torch.tensor([0.0, 1.0]))  # always "own": right for half of the pairs
    expected = -F.log_softmax(torch.tensor([0.0, 1.0]), dim=0).mean()
    close(ask(net, audio, visual, question, negative)[1]["match"], expected.expand(BATCH))


# --- AVSD


@unit
def test_avsd_looks_at_four_frames_or_at_all_there_are():
    def chosen(steps: int) -> list[int]:
        return AVSD(FeatureSpec(6, 7, steps, 4), WORDS, ANSWERS, dim=8).chosen

    assert (chosen(10), chosen(4), chosen(3), chosen(1)) == ([1, 3, 6, 8], [0, 1, 2, 3], [0, 1, 2], [0])


@unit
@torch.no_grad()
def test_factor_graph_attention_leaves_padding_out_and_prefers_what_agrees():
    attend = built("avsd").attend
    for pair in attend.pairs.values():
        for layer in (pair.x, pair.y):
            layer.weight.copy_(torch.eye(16))
            layer.bias.zero_()
    for reduce in attend.reduce:
        reduce.weight.copy_(torch.ones_like(reduce.weight))
    for unary in attend.unary:
        unary[-1].weight.zero_()
    axis = torch.eye(16)
    utilities = [axis[None, :2], *(axis[None, [1, 0, 3]] for _ in range(4)), axis[None, :1]]
    masks = [torch.tensor([[True, False]]), *(torch.ones(1, 3, dtype=torch.bool) for _ in range(4))]
    masks.append(torch.ones(1, 1, dtype=torch.bool))
    weights = attend.weights(dict(enumerate(utilities)), dict(enumerate(masks)), torch.tensor([[1.0, 0.0]]))
    assert weights[0].tolist() == [[1.0, 0.0]]
    # own frame and three others: 1/3 each for all three; the word and the sound agree with the second alone
    expected = torch.tensor([4 / 3, 4 / 3 + 2, 4 / 3]).softmax(dim=0)
    for frame in range(1, 5):
        close(weights[frame][0], expected)


# --- LAViT


@unit
def test_regions_and_sounds_have_their_coordinates():
    spec = FeatureSpec(6, 7, steps=2, places=4, frame_token=True)
    cells = [[x, y, 0.5, 0.5] for y in (0.25, 0.75) for x in (0.25, 0.75)]
    expected = [[*cell, time] for time in (0.25, 0.75) for cell in ([0.5, 0.5, 1.0, 1.0], *cells)]
    close(region_coordinates(spec, 2), torch.tensor(expected))
    close(sound_coordinates(spec), torch.tensor([[0.0, 0.5], [0.5, 1.0]]))


@unit
@torch.no_grad()
def test_regions_are_means_of_their_places():
    spec = FeatureSpec(6, 7, steps=2, places=16, frame_token=True)
    net, visual = built("lavit", spec), torch.arange(238.0).sin().view(1, 2, 17, 7)
    regions = net._regions(visual)
    assert (regions.shape, len(net.regions_at)) == ((1, 10, 7), 10)
    close(regions[0, 5], visual[0, 1, 0])  # second step's frame token
    close(regions[0, 7], visual[0, 1, 1:][[2, 3, 6, 7]].mean(dim=0))  # its upper right cell


@unit
def test_cells_are_adaptive_averages():
    assert cell_weights(4, 4).equal(torch.eye(16))
    for side, grid in ((14, 4), (6, 4), (7, 3)):
        grids = torch.linspace(-1, 1, 2 * side**2).cos().view(1, 2, side, side)
        expected = F.adaptive_avg_pool2d(grids, grid)[0].flatten(1)
        close(grids[0].flatten(1) @ cell_weights(side, grid).T, expected)


@unit
def test_a_question_beyond_the_positions_is_refused():
    net = LAViT(GRID, WORDS, ANSWERS, text=4, **SIZES["lavit"])
    audio, visual, question, _ = inputs()
    with pytest.raises(ValueError, match="5 words; there are positions for 4"):
        ask(net, audio, visual, question)


@unit
def test_lavit_has_the_paper_s_layers():
    with torch.device("meta"):
        net = LAViT(FeatureSpec(2048, 2048, 9, 4), 30522, 2020)
    assert [len(x) for x in (net.language, net.visual, net.audio, net.cross)] == [9, 5, 5, 5]
    assert [m.out_features for m in net.head if isinstance(m, nn.Linear)] == [4608, 2020]


# --- PSTP-Net


@unit
def test_segments_cover_all_steps():
    assert segment_steps(60, 12).tolist() == torch.arange(60).view(12, 5).tolist()
    assert segment_steps(10, 12).tolist() == [[i] for i in range(10)]
    for steps in range(1, 40):
        found = segment_steps(steps, 12)
        assert found.unique().tolist() == list(range(steps))
        assert len(found) == min(12, steps)


@unit
def test_of_equal_ones_the_first_are_chosen():
    weights = torch.tensor([[1.0, 2.0, 2.0, 2.0], [0.5, 0.5, 0.5, 0.5]])
    assert best(weights, 2).tolist() == [[1, 2], [0, 1]]
    assert best(weights, 1).tolist() == [[1], [0]]


@unit
def test_each_sample_gets_its_own_rows():
    rows = torch.arange(8).view(2, 4)
    assert pick(rows, torch.tensor([[0, 3], [1, 1]])).tolist() == [[0, 3], [5, 5]]


@unit
@torch.no_grad()
def test_relevance_is_that_of_the_question_with_mean_one():
    relevance = Relevance(4, 1)
    for layer in (relevance.query, relevance.key):
        layer.weight.copy_(torch.eye(4))
    relevance.query.bias.zero_()
    found = relevance(2 * torch.eye(4)[:2], torch.eye(4).expand(2, 4, 4))
    e = torch.tensor([1.0, 0.0, 0.0, 0.0]).exp()
    close(found[0], 4 * e / e.sum())
    assert found.argmax(dim=1).tolist() == [0, 1]


@unit
@torch.no_grad()
def test_pstp_keeps_the_segments_and_patches_of_each_question():
    """Samples with the same clip and other questions look at other parts of it."""
    spec = FeatureSpec(6, 16, steps=4, places=4)
    select = PSTPNet(spec, WORDS, ANSWERS, dim=16, heads=1, top_segments=1, top_patches=1).eval().select
    for layer in (select.which_segment, select.which_patch):
        layer.query.weight.copy_(torch.eye(16))
        layer.query.bias.zero_()
        layer.key.weight.copy_(torch.eye(16))
    select.segment.weight.copy_(torch.eye(16).repeat(1, 2))
    select.patch.weight.copy_(torch.eye(16))
    select.patch.bias.zero_()
    question = torch.eye(16)[:2]
    steps = torch.eye(16)[[5, 1, 6, 0]].expand(2, 4, 16)  # question 0: step 3, question 1: step 1
    assert select.chosen_steps(steps, steps, question)[0].tolist() == [[3], [1]]
    patches = torch.eye(16)[[0, 9, 1, 8]].expand(2, 1, 4, 16)
    kept = select.chosen_patches(patches, question)[:, 0, 0]
    assert kept.argmax(dim=1).tolist() == [0, 1]


@unit
@torch.no_grad()
def test_released_leaves_the_patches_out():
    audio, visual, question, _ = inputs(TOKEN)
    other = visual.clone()
    other[:, :, 1:] += 1
    for name, expected in (("pstp", False), ("pstp released", True)):
        net = built(name, TOKEN)
        same = torch.equal(ask(net, audio, visual, question)[0], ask(net, audio, other, question)[0])
        assert same == expected
    with pytest.raises(ValueError, match="'original' is not paper or released"):
        built("pstp", mode="original")
