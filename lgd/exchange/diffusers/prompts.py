"""Texts as conditions: the pipeline's text encoders run once for every text."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgd.exchange.extras import required
from lgd.machinery import digests, storage
from lgd.machinery.paths import local
from lgd.types import Condition

BATCH = 16  # texts at once
Embedding = dict[str, Any]  # arrays, or dicts of them


class Prompts:
    """Conditions of texts, a dict of arrays (b, ...), kept in memory and in a folder.

    Files in the folder are named by the digest of the text and of the text encoders' weights, so
    that those of another pipeline are never taken for these.
    """

    def __init__(
        self,
        pipeline: Any,
        encode: Callable[[Any, Sequence[str]], Mapping[str, Any]],
        cache: str | os.PathLike[str] | None,
    ) -> None:
        self._pipeline, self._encode = pipeline, encode
        self._folder = None if cache is None else local(cache)
        self._known: dict[str, Embedding] = {}
        self._fingerprint = ""

    def __call__(self, texts: Any) -> Condition:
        """The conditions of texts.

        Raises:
          ValueError: for something else than a list of texts, or a pipeline without the text
            encoders or tokenizers that new texts need.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError("expected a list of texts for this pipeline, got other values")
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        missing = [text for text in new if not self._read(text)]
        for first in range(0, len(missing), BATCH):
            self._embed(missing[first : first + BATCH])
        return jax.tree.map(lambda *rows: np.stack(rows), *[self._known[text] for text in texts])

    def null(self, c: Condition) -> Condition:
        """The condition of the empty text for every row of c."""
        return jax.tree.map(lambda leaf, like: jnp.repeat(leaf, len(like), axis=0), self([""]), c)

    def _embed(self, texts: list[str]) -> None:
        torch = required("torch", "torch")
        self._check_parts()
        with torch.no_grad():
            embedded = self._encode(self._pipeline, texts)
        for row, text in enumerate(texts):
            kept = jax.tree.map(lambda leaf, row=row: _array(leaf[row]), dict(embedded))
            self._known[text] = kept
            if self._folder is not None:
                file = self._file(text)
                storage.save_params(file, kept, of=file.stem)

    def _read(self, text: str) -> bool:
        """Whether the folder has the text, which is then known."""
        if self._folder is None:
            return False
        file = self._file(text)
        try:
            self._known[text] = storage.load_arrays(file, of=file.stem)
        except (ValueError, OSError):  # a file that is damaged, or another's, is written again
            return False
        return True

    def _file(self, text: str) -> Path:
        assert self._folder is not None
        if not self._fingerprint:
            self._fingerprint = _fingerprint(self._pipeline)
        name = digests.of_bytes(f"{self._fingerprint} {text}".encode())
        return self._folder / f"{name}.safetensors"

    def _check_parts(self) -> None:
        parts = self._pipeline.components
        names = [name for name in parts if name.startswith(("text_encoder", "tokenizer"))]
        optional = getattr(self._pipeline, "_optional_components", [])
        absent = [name for name in names if parts[name] is None and name not in optional]
        if absent or all(parts[name] is None for name in names):
            needed = ", ".join(absent or names)
            raise ValueError(f"pipeline: expected {needed} to encode texts, got none")


def _array(leaf: Any) -> np.ndarray:
    """A tensor as booleans or float32."""
    is_mask = leaf.dtype == required("torch", "torch").bool
    return (leaf if is_mask else leaf.float()).cpu().numpy()


def _fingerprint(pipeline: Any) -> str:
    """The digest of the weights of all text encoders."""
    parts = []
    for name, part in sorted(pipeline.components.items()):
        if name.startswith("text_encoder") and part is not None:
            for key, leaf in part.state_dict().items():
                parts.append(f"{name}.{key} {digests.of_bytes(leaf.float().numpy().tobytes())}")
    return digests.of_bytes("\n".join(parts).encode())
