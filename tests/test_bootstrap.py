"""Bootstrap over clips, Student's t over seeds, Wilson's interval, Holm's correction: theory and literature."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trainers import bootstrap
from trainers.bootstrap import Estimate, drawn_shares, effective, holm, over_seeds, wilson
from trainers.comparing import Comparison
from trainers.scored import Samples, Scored

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_as_newcombe_tabulates_it(hits, count, low, high):
    """Newcombe, Statistics in Medicine 1998, table I, method 3."""
    assert wilson(hits / count, count) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    exact = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson(hits / count, count) == pytest.approx((exact.low, exact.high))


def test_wilsons_interval_of_nothing_and_of_everything():
    assert all(map(math.isnan, wilson(0.0, 0)))
    assert wilson(1.0, 40) == (pytest.approx(40 / (40 + 1.959964**2)), 1.0)


def test_holm_by_a_worked_example():
    """p = .01, .04, .03, .005 at 5 %: the first and the last are rejected."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2, 0.9, 0.6]) == pytest.approx([0.6, 1.0, 1.0])
    assert len(holm([])) == 0


def test_the_bootstraps_error_of_a_share_is_the_binomial_one():
    right = (np.arange(400) % 4 == 0).astype(float)[:, None]
    shares, draws = drawn_shares(right, np.ones((400, 1)), [0], 2000)
    assert shares == [0.25]
    assert draws.std() == pytest.approx(math.sqrt(0.25 * 0.75 / 400), rel=0.06)
    assert np.array_equal(draws, drawn_shares(right, np.ones((400, 1)), [0], 2000)[1])


def test_chunks_of_draws_are_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "CHUNK", 400 * 7)
    right = (np.arange(400) % 4 == 0).astype(float)[:, None]
    draws = drawn_shares(right, np.ones((400, 1)), [0], 1000)[1]
    assert draws.shape == (1000, 1)
    assert draws.std() == pytest.approx(math.sqrt(0.25 * 0.75 / 400), rel=0.08)


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_questions_about_one_clip_widen_the_error_by_the_design_effect(alike):
    """m answers per clip with correlation r within it: deff = 1 + (m - 1) r (Kish)."""
    rng, clips, m = np.random.default_rng(0), 1500, 5
    own, shared = rng.random((clips, m)) < 0.4, rng.random((clips, 1)) < 0.4
    right = np.where(rng.random((clips, m)) < math.sqrt(alike), shared, own)  # two share with (sqrt r)^2
    shares, draws = drawn_shares(right.sum(axis=1)[:, None], np.full((clips, 1), m), [0], 800)
    estimate = over_seeds(shares, draws, clips)
    assert clips * m / effective(estimate.mean, estimate.error) == pytest.approx(1 + (m - 1) * alike, rel=0.12)


def test_a_share_is_over_questions_and_so_are_its_draws():
    """Three questions about one clip, one about the other."""
    shares, draws = drawn_shares(np.array([[3.0], [0.0]]), np.array([[3.0], [1.0]]), [0], 500)
    assert shares == [0.75]
    assert set(np.unique(draws)) == {0.0, 0.75, 1.0}


def test_seeds_that_differ_alone_give_students_interval():
    """Clips that are all alike leave the seeds: t with S - 1 degrees of freedom."""
    values = np.array([0.5, 0.6, 0.7])
    estimate = over_seeds(values, np.tile(values, (100, 1)), clips=50)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (estimate.mean - estimate.half, estimate.mean + estimate.half) == pytest.approx((low, high))
    assert estimate.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_seeds_that_are_alike_leave_the_clips():
    right = np.repeat((np.arange(300) % 3 == 0).astype(float)[:, None], 3, axis=1)
    one, three = (over_seeds(*drawn_shares(right[:, :n], np.ones((300, 1)), [0] * n, 2000), 300) for n in (1, 3))
    assert three.error == pytest.approx(one.error, rel=1e-5)
    assert three.dof == pytest.approx(299)


def test_what_is_not_known_is_nan():
    estimate = over_seeds(np.array([0.5]), np.full((10, 1), 0.5), clips=1)
    assert math.isnan(estimate.half)
    assert math.isnan(estimate.p)
    assert (Estimate(0.0, 0.0, math.inf).half, Estimate(0.0, 0.0, math.inf).p) == (0.0, 1.0)


def compared(right: dict[str, np.ndarray], clips: list[str], draws: int = 400) -> Comparison:
    """Lines by their answers, bool [S, Q]."""
    counted = np.ones(len(clips), dtype=bool)
    scored = [Scored(name, s, "complete", row, counted) for name, of in right.items() for s, row in enumerate(of)]
    return Comparison(scored, Samples(clips, clips, {"all": counted}), draws=draws)


@pytest.mark.parametrize(("seeds", "questions"), [(1, 1), (1, 4), (3, 1), (3, 4)])
def test_intervals_of_a_paired_difference_hold_the_truth_in_95_of_100(seeds, questions):
    """Answers of two methods that go together by clip and by question; of several seeds, one method is better or worse
    by chance. It is right with 0.55 + seed, the other with 0.5."""
    rng, held, clips, trials = np.random.default_rng(seeds + questions), 0, 60, 200
    names = [f"c{i // questions}" for i in range(clips * questions)]
    for _ in range(trials):
        hard = rng.random(clips).repeat(questions)
        a, b = np.empty((2, seeds, len(hard)), dtype=bool)
        for s in range(seeds):
            u = np.where(rng.random(len(hard)) < 0.7, hard, rng.random(len(hard)))
            a[s] = u < 0.55 + (rng.normal(0, 0.03) if seeds > 1 else 0.0)
            b[s] = np.where(rng.random(len(hard)) < 0.8, u, rng.random(len(hard))) < 0.5
        found = compared({"a": a, "b": b}, names, 200).difference("a", "b", ("complete",))
        assert found is not None
        held += abs(found.estimate.mean - 0.05) <= found.estimate.half
    assert 0.90 <= held / trials <= 0.995  # 95 % ± three standard errors of 200 trials


def test_pairing_narrows_a_difference():
    rng = np.random.default_rng(3)
    a = rng.random((1, 500)) < 0.5
    b = a ^ (rng.random((1, 500)) < 0.04)
    found = compared({"a": a, "b": b, "c": rng.permutation(b[0])[None]}, [f"c{i}" for i in range(500)])
    near, far = (found.difference("a", other, ("complete",)) for other in "bc")
    assert near is not None
    assert far is not None
    exact = math.sqrt(np.var(a[0].astype(float) - b[0]) / 499)
    assert near.estimate.error == pytest.approx(exact, rel=0.12)
    assert far.estimate.error > 3 * near.estimate.error


def test_a_method_does_not_differ_from_itself():
    a = np.random.default_rng(0).random((3, 60)) < 0.5
    found = compared({"a": a, "b": a.copy()}, [f"c{i}" for i in range(60)]).difference("a", "b", ("complete",))
    assert found is not None
    assert (found.estimate.mean, found.estimate.half, found.p, found.seeds) == (0.0, 0.0, 1.0, 3)


def test_four_clips_that_differ_can_not_be_sure():
    """Four of a hundred, all in favour of one: the exact sign test has p = 2 / 2^4."""
    a = np.ones((1, 100), dtype=bool)
    b = a.copy()
    b[0, :4] = False
    found = compared({"a": a, "b": b}, [f"c{i}" for i in range(100)]).difference("a", "b", ("complete",))
    assert found is not None
    assert found.p == stats.binomtest(4, 4).pvalue == 0.125


def test_one_seed_has_wilsons_interval_over_as_many_answers_as_the_clips_are_worth():
    alone = np.random.default_rng(0).random((1, 200)) < 0.8
    plain = compared({"a": alone}, [f"c{i}" for i in range(200)])
    assert plain.interval("a", ("complete",)) == wilson(alone.mean(), 200)
    same = compared({"a": alone.repeat(4, axis=1)}, [f"c{i // 4}" for i in range(800)], 4000)
    assert same.interval("a", ("complete",)) == pytest.approx(wilson(alone.mean(), 200), abs=0.004)
    assert all(map(math.isnan, plain.interval("a", ("noisy_audio",))))


def test_all_right_is_not_certain():
    found = compared({"a": np.ones((3, 40), dtype=bool)}, [f"c{i // 2}" for i in range(40)])
    assert found.interval("a", ("complete",)) == wilson(1.0, 20)  # as many independent answers as clips


def test_pairs_are_of_the_seeds_that_both_have():
    rng = np.random.default_rng(0)
    counted, clips = np.ones(50, dtype=bool), [f"c{i}" for i in range(50)]
    right = {(name, seed): rng.random(50) < 0.5 for name in "abcd" for seed in (0, 1, 2, 3, None)}
    seeds: dict[str, tuple[int | None, ...]] = {"a": (0, 1, 2), "b": (1, 2, 3), "c": (3,), "d": (None,)}
    scored = [Scored(name, s, "complete", right[name, s], counted) for name, of in seeds.items() for s in of]
    found = Comparison(scored, Samples.of_clips(clips, [None] * 50), draws=200)
    both, rule = found.difference("a", "b", ("complete",)), found.difference("a", "d", ("complete",))
    assert both is not None
    assert both.seeds == 2
    expected = np.mean([right["a", s].mean() - right["b", s].mean() for s in (1, 2)])
    assert both.estimate.mean == pytest.approx(expected)
    assert found.difference("a", "c", ("complete",)) is None
    assert rule is not None
    assert rule.seeds == 3
    mean = np.mean([right["a", s].mean() for s in (0, 1, 2)]) - right["d", None].mean()
    assert rule.estimate.mean == pytest.approx(mean)


def test_of_a_kind_as_much_is_known_as_clips_were_asked_about():
    """Of 1,000 clips, ten and one; seeds are alike, so t has one degree of freedom less than there are clips."""
    clips, whole = [f"c{i}" for i in range(1000)], np.ones(1000, dtype=bool)
    kinds = {"all": whole, "rare": np.arange(1000) < 10, "once": np.arange(1000) == 1}
    right = {"a": np.arange(1000) % 2 == 1, "b": np.arange(1000) % 5 == 0}
    scored = [Scored(name, seed, "complete", of, whole) for name, of in right.items() for seed in range(3)]
    found = Comparison(scored, Samples(clips, clips, kinds), by_kind=("complete",), draws=2000)
    rare, once = (found.difference("a", "b", ("complete",), kind) for kind in ("rare", "once"))
    assert rare is not None
    assert rare.estimate.dof == pytest.approx(9)
    low, high = found.interval("a", ("complete",), "rare")
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 9) * stats.sem(right["a"][:10]), rel=0.12)
    assert once is not None
    assert (once.estimate.mean, once.p) == (1.0, 1.0)
    assert math.isnan(once.estimate.half)
    assert found.interval("a", ("complete",), "once") == wilson(1.0, 1)


def test_clips_of_a_group_are_drawn_together():
    samples = Samples.of_clips(["a", "b", "c", "d"], ["one", "one", None, None])
    assert len(set(samples.clusters)) == 3
