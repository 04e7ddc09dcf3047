"""Accuracy and Inception score of a classifier's predictions, accumulated over batches."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import log_softmax

from lgd.metrics.checks import checked


class Predictions(NamedTuple):
    """Sums of predictions over samples, in float64.

    Order, batches and shards change results by rounding only.
    """

    num_samples: int
    correct: int
    negative_entropy: float  # sum of sum_k p_k log p_k
    probabilities: Float[np.ndarray, " classes"]  # sum of p

    @classmethod
    def empty(cls, num_classes: int) -> "Predictions":
        """Return the sums over no samples."""
        return cls(0, 0, 0.0, np.zeros(num_classes))

    def update(
        self,
        logits: Float[np.ndarray, "n classes"] | Float[Array, "n classes"],
        labels: Int[np.ndarray, " n"] | Int[Array, " n"],
    ) -> "Predictions":
        """Return the sums with n further samples.

        Args:
          logits: logits of the classifier (n, classes).
          labels: classes that the samples were generated for (n,).

        Raises:
          ValueError: for other shapes, logits that are not finite, or labels of no class.
        """
        x = checked(logits, len(self.probabilities), name="logits").astype(np.float64)
        _check_labels(np.asarray(labels), x.shape)
        log_p = log_softmax(x, axis=1)
        p = np.exp(log_p)
        right = int(np.sum(x.argmax(axis=1) == np.asarray(labels)))
        return self.merge(Predictions(len(x), right, float(np.sum(p * log_p)), p.sum(axis=0)))

    def merge(self, other: "Predictions") -> "Predictions":
        """Return the sums over the union of two sets."""
        return Predictions(
            self.num_samples + other.num_samples,
            self.correct + other.correct,
            self.negative_entropy + other.negative_entropy,
            self.probabilities + other.probabilities,
        )

    def accuracy(self) -> float:
        """Return the share of samples with their label as the most probable class, in [0, 1].

        Raises:
          ValueError: without samples.
        """
        return self.correct / self._some()

    def inception_score(self) -> float:
        """Return the Inception score ``exp(mean KL(p(y | x) || p(y)))``, in [1, num_classes].

        Salimans et al., 2016, arXiv 1606.03498. It is computed over all samples, not over parts.

        Raises:
          ValueError: without samples.
        """
        marginal = self.probabilities / self._some()
        positive = marginal[marginal > 0.0]
        entropy = -float(np.sum(positive * np.log(positive)))
        return float(np.exp(self.negative_entropy / self.num_samples + entropy))

    def _some(self) -> int:
        if not self.num_samples:
            raise ValueError("expected predictions, got none")
        return self.num_samples


def _check_labels(labels: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless labels are integers, one for every row of logits (n, classes)."""
    is_integer = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != shape[:1] or not is_integer:
        expected = f"integers {shape[:1]}"
        raise ValueError(f"labels: expected {expected}, got {labels.dtype} {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < shape[1]:
        got = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"labels: expected classes from 0 to {shape[1] - 1}, got {got}")
