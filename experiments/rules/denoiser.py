"""Rules across the fields of the denoiser: network, data and training."""

from collections.abc import Sequence

from experiments.methods import DIRECTIONS
from experiments.rules.across import Across
from experiments.rules.data import side_of

NO_SIGNAL_AT_1 = ("rectified_flow", "cosine")  # alpha(1) = 0


def _exact_is_mixture(level: str, data: str) -> str | None:
    if level != "exact" or data == "mixture":
        return None
    return f"expected under, middle or well for data {data} (exact: mixture only), got 'exact'"


def _images_for(network: str, data: str) -> str | None:
    if network == "mlp" or data != "mixture":
        return None
    return f"expected mlp for data {data} (unet, dit: images only), got {network!r}"


def _dtype_of(dtype: str, network: str) -> str | None:
    if network != "mlp" or dtype == "float32":
        return None
    return f"expected float32 for network mlp (others: unet, dit only), got {dtype!r}"


def _remat_of(remat: str, network: str) -> str | None:
    if network != "mlp" or remat == "none":
        return None
    return f"expected none for network mlp (others: unet, dit only), got {remat!r}"


def _width_of(width: int, network: str) -> str | None:
    if network != "dit" or width % 4 == 0:
        return None
    return f"expected a multiple of 4 for network dit, got {width}"


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


def _x0_at_1(kind: str, schedule: str) -> str | None:
    if kind not in ("eps", "score") or schedule not in NO_SIGNAL_AT_1:
        return None
    return f"expected x0, v or velocity for schedule {schedule} (no x0 at t = 1), got {kind!r}"


def _location_of(location: float, times: str) -> str | None:
    if times == "logit_normal" or location == 0.0:
        return None
    return f"expected 0.0 for times {times} (others: logit_normal only), got {location}"


def _scale_of(scale: float, times: str) -> str | None:
    if times == "logit_normal" or scale == 1.0:
        return None
    return f"expected 1.0 for times {times} (others: logit_normal only), got {scale}"


def _flip_of(flip: bool, data: str) -> str | None:
    if not flip or data != "mixture":
        return None
    return f"expected false for data {data} (true: images only), got {flip}"


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


def _weaker_for_directions(weaker: int, methods: Sequence[str]) -> str | None:
    if weaker or DIRECTIONS not in methods:
        return None
    return f"expected a number of steps for method {DIRECTIONS}, got 0"


def _folder_of(pipeline: str, level: str) -> str | None:
    if bool(pipeline) == (level == "pretrained"):
        return None
    expected = "a folder for" if level == "pretrained" else "none unless"
    return f"expected {expected} denoiser.level pretrained, got {pipeline!r}"


def _images_of_pretrained(level: str, data: str) -> str | None:
    if level != "pretrained" or data != "mixture":
        return None
    return f"expected another level for data {data} (pretrained: images only), got {level!r}"


def _grid_of_scheduler(grid: str, level: str) -> str | None:
    if grid != "scheduler" or level == "pretrained":
        return None
    return f"expected uniform, logsnr or edm for denoiser.level {level}, got {grid!r}"


D, UNET, IMAGES = "denoiser.", "denoiser.unet.", ("data.name", "data.size")

ACROSS: tuple[Across, ...] = (
    Across((D + "level", "data.name"), _exact_is_mixture),
    Across((D + "level", "data.name"), _images_of_pretrained),
    Across((D + "pipeline", D + "level"), _folder_of),
    Across(("sampling.grid", D + "level"), _grid_of_scheduler),
    Across(
        (
            D + "weaker_num_steps",
            D + "level",
            *(f"{D}num_steps.{level}" for level in ("under", "middle", "well")),
        ),
        _weaker_before_end,
    ),
    Across((D + "weaker_num_steps", "guidance.methods"), _weaker_for_directions),
    Across((D + "network", "data.name"), _images_for),
    Across((D + "dtype", D + "network"), _dtype_of),
    Across((D + "remat", D + "network"), _remat_of),
    Across((D + "width", D + "network"), _width_of),
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
    Across((D + "kind", "schedule"), _x0_at_1),
    Across((D + "times_location", D + "times"), _location_of),
    Across((D + "times_scale", D + "times"), _scale_of),
    Across((D + "flip", "data.name"), _flip_of),
    Across((D + "shift", *IMAGES), _shift_of),
)
