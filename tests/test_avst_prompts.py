"""Missing-aware prompts: each case has its own, and they can train alone on an AVST that is there already."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.avqa.networks.avst_prompts import PromptedAVST
from shards.errors import InputError
from tests.fixtures.asking import asking_world, question_stages, saved_run, settings
from tests.test_networks import GRID, built, inputs
from trainers.avqa.config import AVQAConfig
from trainers.avqa.warm_start import answerer_checkpoint

pytestmark = pytest.mark.unit
KINDS = ("avst_prompts", "avst_prompts attention")
PRESENT = {"complete": [True, True], "audio_missing": [False, True], "visual_missing": [True, False]}
both_kinds = pytest.mark.parametrize("name", KINDS)


@both_kinds
@pytest.mark.parametrize("case", PRESENT)
@torch.no_grad()
def test_a_case_s_prompts_serve_that_case_alone(name, case):
    net, (audio, visual, question, _) = built(name), inputs()
    present = torch.tensor([PRESENT[case]] * 3)
    before = net(audio, visual, present, question)[0]
    for prompt, x in net.prompts.items():
        kept = x.clone()
        x += torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        changed = not torch.allclose(net(audio, visual, present, question)[0], before, atol=1e-6)
        assert changed == prompt.startswith(case), prompt
        x.copy_(kept)


@torch.no_grad()
def test_attention_type_by_hand():
    """One head, identity projections: keys [prompt ; sequence], the values beside them the prompts' other half."""
    net = PromptedAVST(GRID, 9, 4, dim=4, heads=1, prompts=2, kind="attention").eval()
    attend = net.attend_audio.attend
    attend.in_proj_weight.copy_(torch.eye(4).repeat(3, 1))
    attend.in_proj_bias.zero_()
    attend.out_proj.weight.copy_(torch.eye(4))
    attend.out_proj.bias.zero_()
    prompt, asked, sequence = torch.randn(1, 2, 4), torch.randn(1, 4), torch.randn(1, 3, 4)
    weights = (torch.cat([prompt[0, :1], sequence[0]]) @ asked[0] / 2).softmax(dim=0)
    expected = weights @ torch.cat([prompt[0, 1:], sequence[0]])
    torch.testing.assert_close(net._found_within(attend, asked, prompt, sequence)[0], expected)
    torch.testing.assert_close(net._found_within(attend, asked, prompt, None)[0], prompt[0, 1])


@pytest.mark.parametrize(("sizes", "message"), [({"kind": "deep"}, "kind 'deep'"), ({"prompts": 0}, "prompts 0")])
def test_sizes_that_can_not_be_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        PromptedAVST(GRID, 9, 4, dim=4, heads=1, **sizes)
    with pytest.raises(ValueError, match=r"prompts 3: .* even number"):
        PromptedAVST(GRID, 9, 4, dim=4, heads=1, prompts=3, kind="attention")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    asking_world(tmp_path, {"train": 9})
    return tmp_path


def test_prompts_and_answer_layer_train_on_a_frozen_avst(root):
    plain = saved_run(root, "plain", AVQAConfig(**settings(root, "avst")))
    start = {"network_from": plain, "freeze": ("network",)}
    (stage,) = question_stages(AVQAConfig(**settings(root, "avst_prompts", "masking", **start)))
    begun, theirs = stage.weights(), answerer_checkpoint(plain).weights
    assert all(torch.equal(begun[name], x) for name, x in theirs.items())
    assert {n.split(".")[0] for n in begun if n not in theirs} == {"network"}
    begun = {name: x.clone() for name, x in begun.items()}
    optimizer = torch.optim.Adam([p for p in stage.objective.parameters() if p.requires_grad], lr=1e-2)
    stage.objective.train()(stage.train.batch(range(9)))[0].backward()
    optimizer.step()
    changed = {name.split(".")[1] for name, x in stage.weights().items() if not torch.equal(x, begun[name])}
    assert changed == {"prompts", "answer"}


def test_another_network_s_run_does_not_fit(root):
    other = saved_run(root, "other", AVQAConfig(**settings(root, "avsd")))
    with pytest.raises(InputError, match="its network does not fit"):
        question_stages(AVQAConfig(**settings(root, "avst_prompts", "masking", network_from=other)))
