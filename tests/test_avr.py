"""AVR: schedule, forward and reverse process, both predictions; what keeps scale, what trains what."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from models.avqa.batch import FeatureSpec
from models.avqa.recovery.avr import AVR
from models.avqa.recovery.both import RMMAVR
from models.avqa.recovery.diffusion import Diffusion
from models.avqa.recovery.unet import UNet
from shards.checkpoint import save_checkpoint
from trainers.avqa.warm_start import KIND, answerer_checkpoint
from trainers.loop import seeded

unit, integration = pytest.mark.unit, pytest.mark.integration

SPEC = FeatureSpec(audio=6, visual=5, steps=3, places=9)
SMALL: dict[str, Any] = {"channels": 11, "width": 8}


def pair(n: int = 4, spec: FeatureSpec = SPEC, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shapes = [(n, spec.steps, spec.audio), (n, spec.steps, spec.rows, spec.visual)]
    audio, visual = (torch.randn(shape, generator=rng) for shape in shapes)
    return audio, visual


@unit
@pytest.mark.parametrize("timesteps", [1, 5, 10, 20])
def test_the_schedule_falls_from_one_to_nearly_nothing(timesteps):
    signal = Diffusion(timesteps).signal
    assert signal[0] == 1
    assert (signal.diff() < 0).all()
    assert 0 < signal[-1] < 2e-3
    if timesteps > 1:
        middle = Diffusion(2 * timesteps).signal[timesteps]
        assert middle == pytest.approx(0.5, abs=1e-6)  # a sigmoid is odd about its middle


@unit
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("timesteps", [5, 10, 20, 100])
def test_signal_and_noise_are_right_to_half_a_step_of_their_type(timesteps, dtype):
    """By NumPy in double precision: a sigmoid from 3 to -3, brought to 1..0; its last beta is cut at 0.999."""
    at = 1 / (1 + np.exp(-np.linspace(3, -3, timesteps + 1)))
    a = (at - at[-1]) / (at[0] - at[-1])
    a[-1] = a[-2] * (1 - 0.999)
    t = torch.arange(1, timesteps + 1)
    found = Diffusion(timesteps).roots(t, torch.zeros(timesteps, 2, dtype=dtype))
    step = torch.finfo(dtype).eps / 2 + 1e-5  # the schedule itself is in single precision
    for x, exact in zip(found, (np.sqrt(a), np.sqrt(1 - a)), strict=True):
        assert (x.shape, x.dtype) == ((timesteps, 1), dtype)
        np.testing.assert_allclose(x[:, 0].double().numpy(), exact[1:], rtol=step)


@unit
@pytest.mark.parametrize("timestep", [1, 3, 7, 10])
def test_noised_latents_have_the_mean_and_variance_of_the_schedule(timestep):
    diffusion = Diffusion()
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(40_000, 1, generator=rng)
    found = diffusion.noised(torch.full((40_000, 1), 2.0), torch.full((40_000,), timestep), noise)
    signal = diffusion.signal[timestep]
    assert found.mean().item() == pytest.approx(2 * signal.sqrt().item(), abs=0.02)
    assert found.var().item() == pytest.approx(1 - signal.item(), abs=0.02)


@unit
def test_noising_step_by_step_is_noising_at_once():
    """Eq. 5 from t - 1 to t, again and again, has the variance and mean of the closed form."""
    diffusion = Diffusion()
    mean, variance = 1.0, 0.0
    for t in range(1, 11):
        keep = (diffusion.signal[t] / diffusion.signal[t - 1]).item()  # 1 - beta
        mean, variance = keep**0.5 * mean, keep * variance + 1 - keep
        assert mean == pytest.approx(diffusion.signal[t].sqrt().item(), rel=1e-5)
        assert variance == pytest.approx(1 - diffusion.signal[t].item(), rel=1e-5)


@unit
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_target_leads_back_to_the_clean_latent(prediction):
    diffusion = Diffusion()
    clean, noise = torch.randn(9, 4).double(), torch.randn(9, 4).double()
    timestep = torch.arange(1, 10)
    noised = diffusion.noised(clean, timestep, noise)
    target = diffusion.target(prediction, clean, timestep, noise)
    torch.testing.assert_close(diffusion.clean(prediction, noised, timestep, target), clean)


@unit
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", range(1, 11))
def test_a_perfect_denoiser_recovers_the_latent_in_any_number_of_steps(steps, eta):
    diffusion = Diffusion()
    clean, noise = torch.randn(2, 3, 4), torch.randn(11, 2, 3, 4)
    start = diffusion.noised(clean, torch.full((2,), 10), noise[-1])
    seen = []

    def denoise(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        signal, spread = diffusion.roots(timestep, x)
        eps = (x - signal * clean) / spread  # the oracle's noise, which the path must keep to unit scale
        seen.append((int(timestep[0]), eps))
        return diffusion.clean("eps", x, timestep, eps)

    found = diffusion.reverse(start, diffusion.path(10, steps), denoise, eta, noise)
    torch.testing.assert_close(found, clean, atol=1e-3, rtol=0)
    assert len(seen) == steps
    if not eta:  # DDIM follows one noise all the way
        assert all(torch.allclose(eps, noise[-1], atol=1e-3) for _, eps in seen)


@unit
def test_ancestral_steps_have_the_posterior_s_variance():
    diffusion = Diffusion()
    clean, noise = (
        torch.zeros(40_000, 1),
        torch.randn(2, 40_000, 1, generator=torch.Generator().manual_seed(0)),
    )
    x = diffusion.noised(clean, torch.full((40_000,), 6), noise[0])
    then = diffusion._step(x, clean, 6, 5, 1.0, noise[1])
    assert then.var().item() == pytest.approx(1 - diffusion.signal[5].item(), abs=0.02)
    a, b = diffusion.signal[6].item(), diffusion.signal[5].item()
    kept = (then - diffusion._step(x, clean, 6, 5, 1.0, torch.zeros_like(x))).var().item()
    assert kept == pytest.approx((1 - b) / (1 - a) * (1 - a / b), rel=0.05)  # DDPM's beta tilde


@unit
@pytest.mark.parametrize(("start", "steps"), [(0, 1), (11, 1), (4, 5), (4, 0)])
def test_impossible_paths_are_refused(start, steps):
    with pytest.raises(ValueError, match=r"start|steps"):
        AVR(SPEC, 9, **SMALL, start=start, steps=steps)


@unit
def test_paths_are_even_and_end_at_the_clean_latent():
    diffusion = Diffusion(10)
    assert diffusion.path(10, 10) == list(range(10, -1, -1))
    assert diffusion.path(10, 2) == [10, 5, 0]
    assert all(len(set(diffusion.path(a, b))) == b + 1 for a in range(1, 11) for b in range(1, a + 1))


@unit
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@torch.no_grad()
def test_an_untrained_avr_keeps_the_scale(scale):
    torch.manual_seed(0)
    avr = AVR(SPEC, 9, **SMALL)
    audio, visual = (scale * x for x in pair(8))
    out = avr.enhance(audio, visual)
    for before, after in ((audio, out.audio), (visual, out.visual)):
        assert 0.75 < (after.std() / before.std()).item() < 1.2
        assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1] > 0.85


@unit
@torch.no_grad()
def test_the_output_scales_with_the_input():
    torch.manual_seed(0)
    avr = AVR(SPEC, 9, **SMALL)
    torch.nn.init.normal_(avr.denoiser.unet.out.weight, std=0.3)
    one, ten = avr.enhance(*pair()), avr.enhance(*(10 * x for x in pair()))
    torch.testing.assert_close(ten.audio, 10 * one.audio, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ten.visual, 10 * one.visual, rtol=1e-3, atol=1e-3)


@unit
@torch.no_grad()
def test_what_the_diffusion_leaves_alone_comes_back_as_it_was():
    """Also where the latent is narrower than the pair, and where the pair is all zeros."""
    avr = AVR(SPEC, 9, channels=4, width=8)
    avr._reverse = lambda clean, samples: clean  # type: ignore[method-assign]
    for factor in (1.0, 0.0):
        audio, visual = (factor * x for x in pair())
        out = avr.enhance(audio, visual)
        assert torch.equal(out.audio, audio)
        assert torch.equal(out.visual, visual)


@unit
def test_a_pair_of_zeros_has_finite_gradients():
    avr = AVR(SPEC, 9, **SMALL)
    audio, visual = (torch.zeros_like(x).requires_grad_() for x in pair())
    out = avr.enhance(audio, visual)
    (out.audio.square().sum() + out.visual.square().sum()).backward()
    assert audio.grad.isfinite().all()
    assert visual.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in avr.parameters())


@unit
def test_the_noise_loss_trains_the_denoiser_alone():
    avr = AVR(SPEC, 9, **SMALL)
    avr.losses(*pair())["ave"].sum().backward()
    assert avr.entrance.weight.grad is None
    assert avr.exit.weight.grad is None
    assert avr.denoiser.unet.out.weight.grad.any()
    assert avr.denoiser.linear.weight.grad.any()


@unit
@torch.no_grad()
def test_the_noise_of_training_depends_on_step_and_rank_alone():
    """Not on what was drawn before: a rank without complete clips in a step draws nothing there."""
    torch.manual_seed(0)
    avr = AVR(SPEC, 9, **SMALL)

    def drawn(module: AVR, *key: int) -> torch.Tensor:
        with seeded(torch.device("cpu"), *key):
            return module.losses(*pair())["ave"]

    on_rank = [drawn(copy.deepcopy(avr), 0, 0, 3, rank) for rank in (0, 1)]
    assert not torch.equal(*on_rank)
    assert not torch.equal(on_rank[0], drawn(avr, 0, 0, 4, 0))
    assert torch.equal(on_rank[0], drawn(avr, 0, 0, 3, 0))
    avr.eval()
    assert torch.equal(drawn(avr, 0, 0, 3, 0), drawn(avr, 0, 0, 3, 1))


@unit
def test_weights_of_earlier_versions_load(tmp_path):
    """They counted the draws: `calls`."""
    one, other = (RMMAVR(SPEC, 9, rmm={"slots": 4, "question": 8}, avr=SMALL) for _ in range(2))
    save_checkpoint(tmp_path, one.state_dict() | {"avr.calls": torch.tensor(7)}, {"kind": KIND})
    other.load_state_dict(answerer_checkpoint(tmp_path).weights)
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in one.state_dict().items())


@unit
@pytest.mark.parametrize(("steps", "timesteps"), [(10, 10), (4, 10), (7, 5)])
def test_the_steps_of_a_sample_share_out_the_timesteps(steps, timesteps):
    avr = AVR(FeatureSpec(2, 2, steps, 1), 9, channels=4, width=8, timesteps=timesteps)
    timestep, _ = avr._draw(50, torch.zeros(50 * steps, 4, 1, 1))
    assert timestep.unique().tolist() == list(range(1, timesteps + 1))
    for row in timestep.view(50, steps):
        counts = row.bincount(minlength=timesteps + 1)[1:]
        assert counts.max() - counts.min() <= 1


@unit
def test_fewer_steps_and_gradient_steps_change_cost_not_the_forward():
    torch.manual_seed(0)
    avr = AVR(SPEC, 9, **SMALL, start=4)
    torch.nn.init.normal_(avr.denoiser.unet.out.weight, std=0.3)
    calls: list[bool] = []
    avr.denoiser.unet.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    whole = avr.enhance(*pair())
    avr.gradient_steps = 1
    part = avr.enhance(*pair())
    assert torch.equal(whole.visual, part.visual)
    assert calls == [True] * 4 + [False] * 3 + [True]
    avr.steps = 2
    calls.clear()
    avr.enhance(*pair())
    assert calls == [False, True]


@integration
def test_the_linear_path_passes_what_the_u_net_is_too_narrow_for():
    """Noise in 32 channels through a U-Net of width 4: as printed AVE stays near 28 / 32."""
    spec = FeatureSpec(audio=8, visual=24, steps=5, places=1)
    basis = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    values = torch.randn(16, 5, 3, generator=torch.Generator().manual_seed(2)) @ basis  # three causes of all
    audio, visual = values[..., :8], values[..., None, 8:].expand(-1, -1, 1, -1)
    left = {}
    for linear in (False, True):
        torch.manual_seed(0)
        avr = AVR(spec, 9, channels=32, width=4, linear=linear)
        optimizer = torch.optim.Adam(avr.denoiser.parameters(), lr=2e-2)
        for _ in range(12):
            loss = avr.losses(audio, visual)["ave"].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[linear] = loss.item()
    assert left[False] > 0.85
    assert left[True] < 0.65


@unit
def test_parameters_at_the_paper_s_size():
    assert sum(p.numel() for p in UNet(512).parameters()) == 4_680_320  # the paper: 4.69 M


@unit
@pytest.mark.parametrize("side", [1, 2, 5, 6])
@torch.no_grad()
def test_the_u_net_takes_any_grid(side):
    net = UNet(3, width=8, multipliers=(1, 2, 2))
    torch.nn.init.normal_(net.out.weight)
    assert net(torch.randn(2, 3, side, side), torch.tensor([1, 7])).shape == (2, 3, side, side)
