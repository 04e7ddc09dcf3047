"""Shuffling without a table: the position of an example is computed, in constant memory."""

import functools

import numpy as np
from jaxtyping import Int, UInt64

ROUNDS = 12  # with 8, permutations of 5 are not yet uniform


def keys(seed: int, *purpose: int, count: int) -> UInt64[np.ndarray, "rounds count"]:
    """Return keys of ``count`` independent permutations, a function of seed and purpose."""
    return _generator(seed, *purpose).integers(2**64, size=(ROUNDS, count), dtype=np.uint64)


def permuted(
    position: Int[np.ndarray, "*s"],
    size: Int[np.ndarray, "*s"],
    key: UInt64[np.ndarray, "rounds *s"],
) -> Int[np.ndarray, "*s"]:
    """Return the image of positions under random permutations of range(size).

    Every element has its own position, size and key. The permutation is a Feistel network (Luby &
    Rackoff, 1988, doi 10.1137/0217022) on the digits (u, v) of ``u height + v`` with width x height
    >= size: every round adds to one digit a hash of the other and the key, which is invertible.
    Results outside range(size) pass through the network again, so that no two positions collide.
    """
    width = np.ceil(np.sqrt(size)).astype(np.int64)
    height = -(-size // width)
    result = _network(position, width, height, key)
    while (out := result >= size).any():
        result[out] = _network(result[out], width[out], height[out], key[:, out])
    return result


def _network(
    position: np.ndarray, width: np.ndarray, height: np.ndarray, key: np.ndarray
) -> np.ndarray:
    u, v = (digit.astype(np.uint64) for digit in np.divmod(position, height))
    moduli = (width.astype(np.uint64), height.astype(np.uint64))
    for number in range(0, ROUNDS, 2):
        u = (u + _hash(v, key[number])) % moduli[0]
        v = (v + _hash(u, key[number + 1])) % moduli[1]
    return (u * moduli[1] + v).astype(np.int64)


def _hash(digit: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return 32 bits of the finaliser of splitmix64 (Steele et al., 2014)."""
    mixed = digit + key
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed >> np.uint64(32)


@functools.lru_cache(maxsize=1)
def identity() -> str:
    """Return a few values of a permutation, which change if the way of shuffling does."""
    size = np.full(5, 1000)
    return " ".join(map(str, permuted(np.arange(5), size, np.repeat(keys(0, 0, count=1), 5, 1))))


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(numbers)))
