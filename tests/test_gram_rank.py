import numpy as np
import pytest

from experiments.benchmarks.checks import correlation
from experiments.benchmarks.checks.correlation import rank_correlations
from experiments.benchmarks.gram import rank


def test_correlations_of_pairs_with_ties():
    """Ranks 1, 2.5, 2.5, 4 against 1 to 4; of 6 pairs one is tied, all others agree."""
    found = rank_correlations(np.asarray([0.0, 1.0, 1.0, 2.0]), np.arange(4.0))
    assert found["spearman"]["value"] == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))
    assert found["kendall"]["value"] == pytest.approx(5 / np.sqrt(5 * 6))


@pytest.mark.slow
def test_intervals_cover_the_correlation_of_a_normal_law(monkeypatch):
    """Spearman's of a normal pair with correlation r is 6 / pi asin(r / 2); Kendall's 2 / pi."""
    monkeypatch.setattr(correlation, "RESAMPLES", 100)
    r, rng, covered = 0.6, np.random.default_rng(1), {"spearman": 0, "kendall": 0}
    truth = {
        "spearman": 6 / np.pi * np.arcsin(r / 2),
        "kendall": 2 / np.pi * np.arcsin(r),
    }
    for _ in range(40):
        x, y = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], size=60).T
        for name, found in rank_correlations(x, y).items():
            low, high = found["interval"]
            assert low < found["value"] < high
            covered[name] += low < truth[name] < high
    assert all(count >= 31 for count in covered.values())  # of 37; fewer: chance below 0.2%


def test_a_monotone_relation_is_of_correlation_one():
    x = np.arange(8.0)
    found = rank_correlations(x, np.exp(x))
    assert found["spearman"] == {"value": pytest.approx(1.0), "interval": pytest.approx([1.0, 1.0])}
    assert rank_correlations(x, -x)["kendall"]["value"] == pytest.approx(-1.0)


def test_two_pairs_have_no_rank_correlation():
    with pytest.raises(ValueError, match="at least 3"):
        rank_correlations(np.arange(2.0), np.arange(2.0))


def test_variants_differ_and_fit_their_statistics():
    assert len({variant.name for variant in rank.VARIANTS}) == len(rank.VARIANTS) == 15
    for variant in rank.VARIANTS:
        objective = variant.objective
        assert (objective.beta, objective.lam, objective.churn) == (
            variant.beta,
            variant.lam,
            variant.churn,
        )


def test_a_comparison_says_what_each_loss_would_pick():
    names = [
        *("unguided", "constant(1)", "constant(2)"),
        *("limited_interval(1, 0, 1)", "limited_interval(2, 0, 1)"),
        *("clamp_linear(1)", "clamp_linear(2)", "learned:l2"),
    ]
    loss = np.asarray([0.0, -1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -2.0])
    quality = np.asarray([1.0, 0.5, 3.0, 0.4, 5.0, 6.0, 7.0, 0.8])
    found = rank.compare(names, loss, quality)
    assert {group: each["count"] for group, each in found.items()} == {
        "all": 8,
        "constant": 3,
        "limited_interval": 3,
        "clamp_linear": 3,
        "useful": 3,
    }
    picked = {group: (each["picked"], each["picked_distance"]) for group, each in found.items()}
    assert picked["all"] == ("learned:l2", 0.8)
    assert picked["limited_interval"] == ("unguided", 1.0)
    assert found["all"]["best"] == "limited_interval(1, 0, 1)"
    assert found["constant"]["spearman"]["value"] == pytest.approx(1.0)
    assert found["limited_interval"]["spearman"]["value"] == pytest.approx(0.5)
    assert found["useful"]["spearman"]["value"] == pytest.approx(-1.0)
