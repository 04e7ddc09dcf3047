"""Learn guidance for a pipeline of diffusers from a folder of images, compare it, and export it.

    python -m experiments.pretrained_guidance --model=PIPELINE --data=IMAGES --workdir=runs/mine

PIPELINE is a folder that diffusers saved. IMAGES has a folder of images for every class, or, for a
pipeline that takes texts, images with captions in metadata.jsonl, a line {"file_name": "1.png",
"text": "a cat"} for each.
Images are encoded by the pipeline's autoencoder, guidance is learned by self-consistency, tuned
constants and intervals are its opponents, and all are compared by distances of decoded samples.

This is experiments.run with configs/pretrained.py: it takes the same flags and fields, such as
--config.guidance.methods="('self_consistency','trajectory')", resumes, and ends with the same exit
codes. WORKDIR/guidance/ then holds what was learned: files for lgd.load, and for other tools the
weights over step, t, sigma and logsnr as CSV, and the scales of every class, one for each step, as
JSON. See docs/pretrained.md.
"""

from pathlib import Path

from absl import flags

from experiments import console, run
from lgd.data.captions import METADATA

_MODEL = flags.DEFINE_string("model", "", "Folder of a pipeline, with its model_index.json.")
_DATA = flags.DEFINE_string(
    "data", "", "Folder of images, in a folder for every class or with captions."
)
_FIELDS = {"denoiser.pipeline": _MODEL, "data.path": _DATA}
_OF_CAPTIONS = ["data.name=captions", "evaluation.features=efficientnet"]  # there are no classes


def given() -> list[str]:
    """Overrides of the config that the flags stand for."""
    has_captions = bool(_DATA.value) and (Path(_DATA.value) / METADATA).is_file()
    fields = [f"{field}={flag.value}" for field, flag in _FIELDS.items() if flag.value]
    return fields + (_OF_CAPTIONS if has_captions else [])


def launch() -> None:
    """Start from the command line."""
    flags.FLAGS.set_default("config", "configs/pretrained.py")
    run.launch(given)


if __name__ == "__main__":
    console.command(launch)
