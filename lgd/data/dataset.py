"""Examples with conditions, in three splits: train, validation for all tuning, test for results."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from lgd import conditions
from lgd.data.ranges import checked_examples
from lgd.machinery import digests
from lgd.machinery.arguments import wrong
from lgd.machinery.words import one_line
from lgd.types import Condition


@dataclasses.dataclass(frozen=True, eq=False)
class FileImages:
    """Images (n, h, w, channels) in [-1, 1] that stay in files until they are indexed.

    Args:
      shape: (n, h, w, channels).
      read: function of the number of an image that returns its pixels (h, w, channels), uint8. It
        is called by several threads, and raises DataFileError if a file has changed.
      fingerprint: text that identifies the contents of the files and how they are read.
    """

    shape: tuple[int, ...]
    read: Callable[[int], UInt8[np.ndarray, "h w channels"]]
    fingerprint: str

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(
        self, index: Int[np.ndarray, "*any"] | slice
    ) -> Float[np.ndarray, "*any h w channels"]:
        """Read the images of an index, an array of numbers of any shape or a slice.

        Raises:
          ValueError: if pixels that are read have another dtype or shape.
        """
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        pixels = np.empty((index.size, *self.shape[1:]), np.uint8)
        for row, number in enumerate(index.ravel()):
            pixels[row] = self._checked(int(number))
        return scaled(pixels).reshape(*index.shape, *self.shape[1:])

    def _checked(self, number: int) -> UInt8[np.ndarray, "h w channels"]:
        pixels = np.asarray(self.read(number))
        if pixels.dtype != np.uint8 or pixels.shape != self.shape[1:]:
            raise ValueError(
                f"image {number}: expected pixels of 0 to 255 from read, uint8 {self.shape[1:]}, "
                f"got {pixels.dtype} {pixels.shape}"
            )
        return pixels


Examples: TypeAlias = np.ndarray | FileImages


class _Split(NamedTuple):
    x: Any  # Examples
    c: Condition
    stratum: Int[np.ndarray, " n"] | None = None


class Split(_Split):
    """Examples x (n, *dims), float32, in memory or in files, with conditions and strata.

    Conditions c are any pytree with leaves (n, ...). The stratum (n,), int32 from 0, says which law
    an example belongs to: statistics are computed per stratum. None: all examples have one law.

    >>> import numpy as np
    >>> from lgd import data
    >>> images, vectors = np.zeros((6, 8, 8, 1), np.float32), np.ones((6, 16), np.float32)
    >>> data.Split(images, c={"prompt": vectors}).num_strata
    0
    >>> data.Split(images, c=vectors, stratum=np.array([0, 0, 1, 1, 2, 2], np.int32)).num_strata
    3

    Raises ValueError for examples, conditions and strata of different lengths; for examples that
    are integers, not finite, or images of 0 to 255; and for strata that are no integers from 0, or
    labels beyond int32. What is traced is checked by shape and dtype.
    """

    __slots__ = ()

    def __new__(cls, x: Any, c: Condition, stratum: Int[np.ndarray, " n"] | None = None) -> "Split":
        shapes = [getattr(leaf, "shape", None) for leaf in (x, *jax.tree.leaves((c, stratum)))]
        lengths = {shape[0] for shape in shapes if shape}
        if len(lengths) > 1:
            expected = "x, c and stratum of one length, one row an example"
            raise ValueError(f"Split: expected {expected}, got shapes {one_line(shapes)}")
        if isinstance(x, np.ndarray | jax.Array):
            checked_examples("x", x)
        conditions.check_integers(c)
        if not isinstance(stratum, np.ndarray | jax.Array) or isinstance(stratum, jax.core.Tracer):
            return super().__new__(cls, x, c, stratum)
        checked = conditions.checked_strata(stratum, len(stratum))
        return super().__new__(cls, x, checked if c is stratum else c, checked)

    @property
    def num_strata(self) -> int:
        """Number of strata, 0 if examples have none."""
        return 0 if self.stratum is None else int(self.stratum.max()) + 1

    @property
    def strata(self) -> Int[np.ndarray, " n"]:
        """Strata (n,) of all examples.

        Raises:
          ValueError: if examples have none.
        """
        if self.stratum is None:
            raise ValueError("expected examples with strata, got none: give stratum=")
        return self.stratum


def labelled(x: Examples, labels: Int[np.ndarray, " n"]) -> Split:
    """Return a split whose conditions and strata are labels (n,).

    >>> import numpy as np
    >>> from lgd import data
    >>> split = data.labelled(np.zeros((4, 8, 8, 1), np.float32), np.array([0, 1, 0, 2], np.int32))
    >>> split.num_strata
    3
    >>> split.c.tolist()
    [0, 1, 0, 2]

    Raises ValueError for labels that are no integers, or of another length.
    """
    labels = np.asarray(labels) if isinstance(labels, list | tuple) else labels
    if np.ndim(labels) != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise wrong("labels", "integers (n,)", labels)
    return Split(x, labels, labels)


def checked_split(x0: Examples | jax.Array, c: Any, stratum: Any) -> Split:
    """Examples that a user brings as a split: float32 where they lie in memory, and finite.

    Args:
      x0: examples (n, *dims), at least one.
      c: their conditions, leaves (n, ...).
      stratum: their strata (n,), or None; see `conditions.strata_of`.

    Raises:
      ValueError: for no examples, integers or no numbers in them, NaN or inf, images of 0 to 255,
        or conditions or strata that do not fit.
    """
    x0 = x0 if isinstance(x0, FileImages) else _checked_examples(x0)
    if not len(x0):
        raise ValueError("expected examples x0, got none")
    c = conditions.checked(c, len(x0))
    if isinstance(c, np.ndarray) and c.dtype == np.float32 and c.ndim == 1 and not (c % 1).any():
        raise ValueError(
            f"c: expected labels as integers, got whole numbers as floats {c.shape}; pass "
            "c.astype(int), or c[:, None] where they are no labels"
        )
    return Split(x0, c, conditions.strata_of(c, stratum))


def _checked_examples(x0: Any) -> Float[np.ndarray, "n *dims"]:
    """Examples as float32. Raises ValueError."""
    try:
        value = np.asarray(x0)
    except ValueError:  # lists of different lengths
        raise ValueError("x0: expected examples of one shape, got others") from None
    if jnp.issubdtype(value.dtype, jnp.floating):
        with np.errstate(over="ignore"):  # to inf, which is refused
            value = value.astype(np.float32)
    return checked_examples("x0", value)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in three splits that share no example; only the train split may lie in files.

    Args:
      train: for the denoiser and learned guidance.
      validation: for all tuning.
      test: for results.
      class_names: names of the strata, in their order.
      captions: texts of the test examples, in their order; none where conditions are no texts.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    captions: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of strata."""
        return len(self.class_names)

    @property
    def conditions(self) -> Condition:
        """Conditions of the first example of every stratum, leaves (num_classes, ...)."""
        return conditions.representatives(self.train.c, self.train.strata)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train.x.shape[1:]


def scaled(pixels: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return pixels 0 to 255 as float32 in [-1, 1]."""
    values = pixels.astype(np.float32)
    values /= 127.5
    values -= 1.0
    return values


def fingerprint(split: Split) -> str:
    """Return the sha256 of a split; images in files enter by their shape and fingerprint."""
    arrays = [split.x, *jax.tree.leaves(split.c)]
    if split.stratum is not None and split.stratum is not split.c:
        arrays.append(split.stratum)
    return digests.of_examples(
        f"{array.shape} {array.fingerprint}" if isinstance(array, FileImages) else array
        for array in arrays
    )
