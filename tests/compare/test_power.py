"""Sample sizes, looks before the last seed, and p-values of several rules, beside published numbers and by hand."""

import numpy as np
import pytest
from scipy import stats

from hf_prune.compare.power import LOOK, MOST_SEEDS, Spread, holm, pooled


def test_the_parts_of_a_spread_are_told_apart():
    """On resampled rows, both seeds have `rows` in common, and each has something of its own."""
    differences = np.array([1.0, 3.0])  # variance 2
    assert Spread.of(differences) == Spread(2, 0, 1)
    rows, one, two = np.array([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])  # orthogonal, each of variance 4 / 3
    found = Spread.of(differences, np.array([rows + one, rows + two]))
    assert (found.seeds, found.rows, found.freedom) == pytest.approx((2 + 4 / 3, 4 / 3, 1))
    apart = Spread.of(differences, np.array([one, -one]))  # what is in common can't be less than nothing
    assert (apart.seeds, apart.rows) == pytest.approx((2 + 4 / 3, 0))


@pytest.mark.parametrize("size, seeds", [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_without_rows_it_is_the_sample_size_of_a_paired_t_test(size, seeds):
    """As G*Power gives them for two sides, 5 % and a power of 80 %."""
    assert Spread(1, 0, 9).seeds_needed(size) == seeds
    assert Spread(9, 0, 9).seeds_needed(3 * size) == seeds
    assert Spread(1, 0, 9).detectable(seeds) <= size < Spread(1, 0, 9).detectable(seeds - 1)


def test_rows_can_make_every_number_of_seeds_too_small():
    """For many seeds, 80 % of cases need 1.96 + 0.84 standard errors."""
    assert Spread(1, 0.1**2, 9).seeds_needed(0.27) is None
    needed = Spread(1, 0.1**2, 9).seeds_needed(0.3)
    assert needed is not None and Spread(1, 0, 9).seeds_needed(0.3) < needed <= MOST_SEEDS
    assert Spread(0, 0, 1).seeds_needed(0.5) == 2 and Spread(0, 0, 1).detectable(2) == 0
    assert Spread(1, 0, 1).seeds_needed(0) is None


def test_so_many_seeds_find_the_difference_in_four_of_five_cases():
    spread, size = Spread(1, 0.04, 9), 0.9
    n, rng = spread.seeds_needed(size), np.random.default_rng(0)
    means = rng.normal(size, spread.error(n), 20_000)
    half = [Spread(seen, 0.04, n - 1).half(n) for seen in rng.chisquare(n - 1, 20_000) / (n - 1)]
    assert 0.8 <= np.mean(np.abs(means) > half) + 0.01 < 0.86


def test_the_half_width_is_that_of_t_and_of_the_rows():
    assert Spread(4, 0, 1).half(2) == pytest.approx(12.706 * 2 / 2**0.5, rel=1e-4)
    assert Spread(4, 1, 1).half(2) == pytest.approx(((12.706 * 2) ** 2 / 2 + 1.96**2) ** 0.5, rel=1e-4)
    assert Spread(3, 0, 2).half(3, LOOK) == pytest.approx(31.599, rel=1e-4)  # t(0.9995, 2)


def test_the_range_of_seeds_is_that_of_the_chi_square_interval():
    """Six degrees of freedom: 6 / 14.449 and 6 / 1.2373 of the variance; one says nearly nothing."""
    low, high = 6 / 14.449, 6 / 1.2373
    assert Spread(1, 0, 6).range_needed(1) == (6, 41)
    assert (Spread(low, 0, 6).seeds_needed(1), Spread(high, 0, 6).seeds_needed(1)) == (6, 41)
    assert Spread(1, 0, 1).range_needed(0.5) == (9, None)


def test_arms_are_pooled_by_their_degrees_of_freedom():
    assert pooled([Spread(2, 1, 1), Spread(5, 4, 2)]) == Spread(4, 3, 3)
    assert pooled([Spread(2, 1, 1)]) == Spread(2, 1, 1)


def test_the_p_value_is_that_of_a_paired_t_test():
    values = np.array([0.3, 1.1, -0.2, 0.9])
    found = Spread.of(values).p_value(values.mean(), 4)
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert Spread(4, 0, 3).p_value(-3.1824, 4) == pytest.approx(0.05, rel=1e-3)  # t(0.975, 3)
    assert Spread(0, 0, 1).p_value(1, 2) == 0 and Spread(0, 0, 1).p_value(0, 2) == 1


def test_holms_correction():
    """The smallest of three p-values counts three times, the next twice; no later one is below an earlier one."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def test_strict_looks_find_hardly_more_by_chance_than_the_last_one():
    """The numbers that the module gives."""
    drawn = np.random.default_rng(0).normal(size=(20_000, 8))
    shares = {}
    for level, first in ((0.95, 2), (LOOK, 3)):
        found = np.zeros(len(drawn), dtype=bool)
        for n in range(first, 9):
            quantile = stats.t.ppf((1 + (level if n < 8 else 0.95)) / 2, n - 1)
            found |= np.abs(drawn[:, :n].mean(1)) > quantile * drawn[:, :n].std(1, ddof=1) / n**0.5
        shares[level] = found.mean()
    assert shares[0.95] == pytest.approx(0.17, abs=0.01) and shares[LOOK] == pytest.approx(0.051, abs=0.003)
