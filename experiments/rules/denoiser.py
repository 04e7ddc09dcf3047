"""Rules across the fields of the denoiser: network, data and training."""

from collections.abc import Sequence

from experiments.methods import DIRECTIONS
from experiments.rules.across import Across, has_images, only, refused
from experiments.rules.data import side_of

NO_SIGNAL_AT_1 = ("rectified_flow", "cosine")  # alpha(1) = 0


def _of_images(network: str) -> bool:
    return network != "mlp"


def _is_logit_normal(times: str) -> bool:
    return times == "logit_normal"


def _patch_size_of(patch_size: int, network: str, data: str, size: int) -> str | None:
    side = side_of(data, size)
    if network != "dit" or side is None or side % patch_size == 0:
        return None
    return f"expected a divisor of {side}, the side of data {data}, got {patch_size}"


def _multipliers_of(multipliers: Sequence[int], network: str, data: str, size: int) -> str | None:
    side = side_of(data, size)
    if network != "unet" or side is None or _rows(side, multipliers):
        return None
    return (
        f"expected so few levels that {side}, the side of data {data}, can be halved between "
        f"them, got {multipliers}"
    )


def _attention_of(
    attention: Sequence[int], network: str, multipliers: Sequence[int], data: str, size: int
) -> str | None:
    rows = _rows(side_of(data, size), multipliers)
    if network != "unet" or not rows or set(attention) <= set(rows):
        return None
    unknown = sorted(set(attention) - set(rows))
    return f"expected rows of a level, {rows} for data {data}, got {unknown}"


def _heads_of_dit(heads: int, network: str, width: int) -> str | None:
    if network != "dit" or width % heads == 0:
        return None
    return f"expected a divisor of denoiser.width = {width}, got {heads}"


def _heads_of_unet(
    heads: int,
    network: str,
    channels: int,
    multipliers: Sequence[int],
    attention: Sequence[int],
    data: str,
    size: int,
) -> str | None:
    levels = zip(_rows(side_of(data, size), multipliers), multipliers, strict=False)
    attended = [channels * multiplier for rows, multiplier in levels if rows in attention]
    indivisible = [width for width in attended if width % heads]
    if network != "unet" or not indivisible:
        return None
    return f"expected a divisor of {indivisible}, channels with attention, got {heads}"


def _rows(side: int | None, multipliers: Sequence[int]) -> list[int]:
    """Return the rows of a U-Net's feature maps by level; [] if unknown or not divisible."""
    halvings = len(multipliers) - 1
    if side is None or halvings > 30 or side % 2**halvings:
        return []
    return [side // 2**level for level in range(halvings + 1)]


def _shift_of(shift: int, data: str, size: int) -> str | None:
    if shift and data == "mixture":
        return f"expected 0 for data {data} (more: images only), got {shift}"
    side = side_of(data, size)
    if side is None or shift < side:
        return None
    return f"expected less than {side}, the side of data {data}, got {shift}"


def _weaker_before_end(weaker: int, level: str, under: int, middle: int, well: int) -> str | None:
    steps = {"under": under, "middle": middle, "well": well}.get(level, 1)
    if weaker < steps:
        return None
    return f"expected less than {steps}, the steps of level {level}, got {weaker}"


def _folder_of(pipeline: str, level: str) -> str | None:
    if bool(pipeline) == (level == "pretrained"):
        return None
    expected = "a folder for" if level == "pretrained" else "none unless"
    return f"expected {expected} denoiser.level pretrained, got {pipeline!r}"


D, UNET, IMAGES = "denoiser.", "denoiser.unet.", ("data.name", "data.size")

ACROSS: tuple[Across, ...] = (
    refused(
        (D + "level", "data.name"),
        lambda level, data: level == "exact" and has_images(data),
        "under, middle or well for data {1} (exact: mixture only)",
    ),
    refused(
        (D + "level", "data.name"),
        lambda level, data: level == "pretrained" and not has_images(data),
        "another level for data {1} (pretrained: images only)",
    ),
    Across((D + "pipeline", D + "level"), _folder_of),
    refused(
        ("sampling.grid", D + "level"),
        lambda grid, level: grid == "scheduler" and level != "pretrained",
        "uniform, logsnr or edm for denoiser.level {1}",
    ),
    Across(
        (
            D + "weaker_num_steps",
            D + "level",
            *(f"{D}num_steps.{level}" for level in ("under", "middle", "well")),
        ),
        _weaker_before_end,
    ),
    refused(
        (D + "weaker_num_steps", "guidance.methods"),
        lambda weaker, methods: not weaker and DIRECTIONS in methods,
        f"a number of steps for method {DIRECTIONS}",
    ),
    only(D + "network", "mlp", "data.name", has_images, "unet, dit: images"),
    only(D + "dtype", "float32", D + "network", _of_images, "others: unet, dit"),
    only(D + "remat", "none", D + "network", _of_images, "others: unet, dit"),
    refused(
        (D + "width", D + "network"),
        lambda width, network: network == "dit" and width % 4 != 0,
        "a multiple of 4 for network dit",
    ),
    Across((D + "dit.patch_size", D + "network", *IMAGES), _patch_size_of),
    Across((UNET + "multipliers", D + "network", *IMAGES), _multipliers_of),
    Across((UNET + "attention", D + "network", UNET + "multipliers", *IMAGES), _attention_of),
    Across((D + "heads", D + "network", D + "width"), _heads_of_dit),
    Across(
        (
            D + "heads",
            D + "network",
            UNET + "channels",
            UNET + "multipliers",
            UNET + "attention",
            *IMAGES,
        ),
        _heads_of_unet,
    ),
    refused(
        (D + "kind", "schedule"),
        lambda kind, schedule: kind in ("eps", "score") and schedule in NO_SIGNAL_AT_1,
        "x0, v or velocity for schedule {1} (no x0 at t = 1)",
    ),
    only(D + "times_location", 0.0, D + "times", _is_logit_normal, "others: logit_normal"),
    only(D + "times_scale", 1.0, D + "times", _is_logit_normal, "others: logit_normal"),
    only(D + "flip", False, "data.name", has_images, "true: images", "false"),
    Across((D + "shift", *IMAGES), _shift_of),
)
