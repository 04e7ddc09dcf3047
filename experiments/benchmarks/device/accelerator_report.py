"""Tables and figure of `accelerator`."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmarks.checks.cost import QUARTILES
from experiments.benchmarks.device.device_profile import KINDS
from experiments.publish.markdown import number, text
from lgd.plots.theme import STYLE, WIDTH, settled

NETWORKS = {"dit": "DiT", "unet": "U-Net"}
_RATIOS = {
    "one_step": "one-step training / its denoiser calls",
    "sampler": "guided sampler / its denoiser calls",
    "trajectory": "gradient of a trajectory, K = 10 / its forward pass",
}
_TRAINING = [
    text("name", "training step"),
    number("images_per_second", "images a second", ",.4g"),
    number("share", "share of the peak", ".1%"),
    number("planned_bytes", "memory, GB", ".3g") | {"unit": 1e9},
]
_MEMORY = [
    text("name", "gradient of the trajectory"),
    number("planned_bytes", "memory, GB", ".3g") | {"unit": 1e9},
    number("ratio", "/ its forward pass", ".2f"),
]
_OF_UNET = [
    text("name", "of the U-Net"),
    number("ratio", "ratio", ".3f"),
    number("", "quartiles", QUARTILES),
    number("target", "at most", "g"),
]
_CONVOLUTIONS = [
    text("name", "3 x 3 convolution and its gradients"),
    *(number(layout, layout, ".1%") for layout in ("NHWC", "NCHW")),
]


def tables(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables of all that has been measured; what failed says so in the first number."""
    peak, targets = results["peak"], results["targets"]
    parts: dict[str, Any] = {}
    if "training" in results:
        rows = [_row(name, row, "images_per_second") for name, row in _steps(results).items()]
        parts["training"] = {"columns": _TRAINING, "rows": rows, "note": _best(results)}
    if profiles := _profiles(results):
        parts["profile"] = _profile_table(profiles)
    if "memory" in results:
        rows = [_row(f"recomputes {k}", v, "planned_bytes") for k, v in results["memory"].items()]
        note = f"At most {targets['bytes'] / 1e9:g} GB."
        parts["memory"] = {"columns": _MEMORY, "rows": rows, "note": note}
    if "ratios" in results:
        rows = [
            _row(_RATIOS[k], v, "ratio") | {"target": targets[k]}
            for k, v in results["ratios"].items()
        ]
        parts["ratios"] = {"columns": _OF_UNET, "rows": rows}
    if "convolutions" in results:
        rows = [
            {"name": size, "NHWC": row["failed"]}
            if "failed" in row
            else {"name": size, **{layout: rate / peak["best"] for layout, rate in row.items()}}
            for size, row in results["convolutions"].items()
        ]
        note = "Shares of the peak."
        parts["convolutions"] = {"columns": _CONVOLUTIONS, "rows": rows, "note": note}
    return parts


def _row(name: str, row: Mapping[str, Any], first: str) -> dict[str, Any]:
    failed = {first: row["failed"]} if "failed" in row else {}
    return {"name": name, **row, **failed}


def _steps(results: Mapping[str, Any]) -> dict[str, Mapping]:
    """Rows of training steps, by network and variant."""
    return {
        f"{NETWORKS[network]}: {variant}": row
        for key, row in results["training"].items()
        for network, variant in [key.split(": ")]
        if variant != "profile"
    }


def _best(results: Mapping[str, Any]) -> str:
    """The peak, and the variants of the highest share of it."""
    rates = results["peak"]["flops_per_second"].items()
    each = ", ".join(f"{rate / 1e12:,.4g} for n = {int(n):,}" for n, rate in rates)
    lines = [f"TFLOP/s of bfloat16 products of n x n matrices: {each}."]
    for network, title in NETWORKS.items():
        shares = {
            name: row["share"]
            for name, row in _steps(results).items()
            if name.startswith(f"{title}: ") and "share" in row
        }
        if shares:
            name = max(shares, key=shares.__getitem__)
            target = f"; target at least {results['targets']['dit']:.0%}"
            aim = target if network == "dit" else ""
            variant = name.partition(": ")[2]
            lines.append(f"Best of the {title}: {shares[name]:.1%} ({variant}){aim}.")
    return "\n\n".join(lines)


def _profiles(results: Mapping[str, Any]) -> dict[str, Mapping]:
    steps = results.get("training", {})
    each = {title: steps.get(f"{name}: profile") for name, title in NETWORKS.items()}
    return {title: profile for title, profile in each.items() if profile and "kinds" in profile}


def _profile_table(profiles: Mapping[str, Mapping]) -> dict[str, Any]:
    """Kinds of work side by side, and the operations that take most."""
    rows = [
        {"kind": kind, **{title: each["kinds"][kind] for title, each in profiles.items()}}
        for kind in KINDS
    ]
    most = {
        title: ", ".join(f"`{name}` {share:.1%}" for name, share in each["operations"][:5])
        for title, each in profiles.items()
    }
    return {
        "columns": [text("kind", "time of a step"), *(number(t, t, ".1%") for t in profiles)],
        "rows": rows,
        "note": "\n\n".join(f"Most in the {title}: {each}." for title, each in most.items()),
    }


@style.context(STYLE)
def figure(results: Mapping[str, Any]) -> Figure:
    """Draw shares of the peak by variant, and where the time of a step goes."""
    steps = {name: row for name, row in _steps(results).items() if "share" in row}
    profiles = _profiles(results)
    height = 0.9 + 0.2 * len(steps) + 0.35 * len(profiles)
    picture = Figure(figsize=(WIDTH, height + 0.6), layout="constrained")
    above, below = picture.subplots(2, height_ratios=(len(steps), 1.5 * max(len(profiles), 1)))
    _draw_shares(above, steps, results["targets"]["dit"])
    _draw_profiles(below, profiles)
    return settled(picture)


def _draw_shares(ax: Axes, steps: Mapping[str, Mapping], target: float) -> None:
    colors = ["#07925f" if name.startswith("DiT") else "#1b4f9c" for name in steps]
    shares = [100.0 * row["share"] for row in steps.values()]
    ax.barh(range(len(steps)), shares, color=colors, height=0.65)
    for i, share in enumerate(shares):
        ax.text(share, i, f" {share:.1f}", va="center_baseline", fontsize=7.5)
    ax.axvline(100.0 * target, color="#1a1a1a", linewidth=0.8, linestyle=(0, (4, 2)))
    ax.set_yticks(range(len(steps)), list(steps))
    ax.set_ylim(len(steps) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("training step, % of the matrix peak (dashed: target of the DiT)")


def _draw_profiles(ax: Axes, profiles: Mapping[str, Mapping]) -> None:
    colors = mpl.colormaps["tab10"](np.arange(len(KINDS)))
    left = np.zeros(len(profiles))
    for kind, color in zip(KINDS, colors, strict=True):
        shares = np.array([100.0 * each["kinds"][kind] for each in profiles.values()])
        ax.barh(range(len(profiles)), shares, left=left, color=color, height=0.6, label=kind)
        left += shares
    ax.set_yticks(range(len(profiles)), list(profiles))
    ax.set_ylim(len(profiles) - 0.4, -0.6)
    ax.set_xlim(0.0, 100.0)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
    ax.set_xlabel("time of a step, %")
    ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.55))
