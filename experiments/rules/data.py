"""Rules across the fields of data: names, files, sizes."""

from experiments.rules.across import Across, only

NUM_DIGITS = 1797  # images that scikit-learn ships
NUM_MNIST_TRAIN, NUM_MNIST_TEST = 60_000, 10_000  # images of MNIST and of Fashion-MNIST
# Numbers of one example, where all files agree on them.
SIZES = {"digits": 64, "mnist": 784, "fashion_mnist": 784, "mixture": 2}
SIDES = {"digits": 8, "mnist": 28, "fashion_mnist": 28}  # pixels along a side of an image
READ_FROM_FILES = ("mnist", "fashion_mnist", "npz", "images", "captions", "tfds")


def side_of(data: str, size: int) -> int | None:
    """Return the side of an image in pixels, or None if the config does not determine it.

    In the latter case the networks check it.
    """
    return SIDES.get(data) or size or None


def _size_of_data(size: int, data: str) -> str | None:
    if data in ("images", "captions"):
        return None if size else f"expected 1 or more for data {data}, got 0"
    return None if data == "tfds" or not size else f"expected 0 for data {data}, got {size}"


def _path_of_data(path: str, data: str, fake: bool) -> str | None:
    if data in READ_FROM_FILES:
        return (
            None if path or fake else f"expected a file or a folder for data {data}, got {path!r}"
        )
    return f"expected '' for data {data}, which reads no file, got {path!r}" if path else None


def _enough_digits(train: int, validation: int, test: int, data: str) -> str | None:
    total = train + validation + test
    if data != "digits" or total <= NUM_DIGITS:
        return None
    return f"expected num_train + num_validation + num_test <= {NUM_DIGITS} digits, got {total}"


def _enough_training_images(train: int, validation: int, data: str) -> str | None:
    total = train + validation
    if data not in ("mnist", "fashion_mnist") or total <= NUM_MNIST_TRAIN:
        return None
    return f"expected num_train + num_validation <= {NUM_MNIST_TRAIN} training images, got {total}"


def _enough_test_images(test: int, data: str) -> str | None:
    if data not in ("mnist", "fashion_mnist") or test <= NUM_MNIST_TEST:
        return None
    return f"expected at most {NUM_MNIST_TEST} for data {data}, got {test}"


def _captions_of_data(data: str, level: str, features: str, fake: bool) -> str | None:
    """Refuse captions where something needs classes, or texts that nothing encodes."""
    if data != "captions":
        return None
    if level != "pretrained":
        return f"expected denoiser.level pretrained for captions, got {level}"
    if features == "classifier":
        return "expected evaluation.features efficientnet or inception for captions, got classifier"
    return "expected no fake_data for captions" if fake else None


ACROSS: tuple[Across, ...] = (
    Across(("data.num_train", "data.num_validation", "data.num_test", "data.name"), _enough_digits),
    Across(("data.num_train", "data.num_validation", "data.name"), _enough_training_images),
    Across(("data.num_test", "data.name"), _enough_test_images),
    Across(("data.path", "data.name", "fake_data"), _path_of_data),
    only("data.attributes", (), "data.name", lambda data: data == "tfds", "some: tfds", "none"),
    Across(("data.size", "data.name"), _size_of_data),
    Across(("data.name", "denoiser.level", "evaluation.features", "fake_data"), _captions_of_data),
)
