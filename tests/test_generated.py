"""Generated images that stand for data sets of files."""

import numpy as np

from lgd.data import generated
from lgd.data.dataset import fingerprint


def test_generated_data_are_a_function_of_the_seed_and_splits_differ():
    splits = [generated.load((6, 6, 3), 4, 20, 20, 20, seed=seed) for seed in (0, 0, 1)]
    prints = [[fingerprint(each) for each in (s.train, s.validation, s.test)] for s in splits]
    assert prints[0] == prints[1]
    assert len({*prints[0], *prints[2]}) == 6
    streamed = generated.load((6, 6, 3), 4, 20, 20, 20, streaming=True).train
    np.testing.assert_array_equal(streamed.x[:], splits[0].train.x)


def test_classes_of_generated_data_can_be_told_apart():
    """By the nearest mean of the training images, far better than the 1 in 10 of chance."""
    dataset = generated.load((8, 8, 3), 10, 200, 100, 100)
    (x, c, _), (y, labels, _) = dataset.train, dataset.test
    means = np.stack([x[c == k].mean(axis=0) for k in range(10)])
    gaps = np.square(y[:, None] - means[None]).sum(axis=(2, 3, 4))
    assert np.mean(gaps.argmin(axis=1) == labels) > 0.7
