"""Tables and figure of `accelerator`, and of what is planned without a device."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmarks.device.device_profile import KINDS
from lgd.plots.theme import STYLE, WIDTH, settled

NETWORKS = {"dit": "DiT", "unet": "U-Net"}
_RATIOS = {
    "one_step": "one-step training / its denoiser calls",
    "sampler": "guided sampler / its denoiser calls",
    "trajectory": "gradient of a trajectory, K = 10 / its forward pass",
}


def table(results: Mapping[str, Any]) -> str:
    """All that has been measured; a part that has not is left out."""
    made = {
        "training": _training,
        "memory": _memory,
        "ratios": _ratios,
        "convolutions": _convolutions,
    }
    parts = [make(results) for part, make in made.items() if part in results]
    peak = results["peak"]["flops_per_second"]
    each = ", ".join(f"{rate / 1e12:,.4g} for n = {int(n):,}" for n, rate in peak.items())
    return "\n".join([f"TFLOP/s of bfloat16 products of n x n matrices: {each}.\n", *parts])


def _training(results: Mapping[str, Any]) -> str:
    lines = [
        "| training step | images a second | share of the peak | memory, GB |",
        "|---|---:|---:|---:|",
    ]
    for name, row in _steps(results).items():
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} | | |")
            continue
        memory = row["planned_bytes"] / 1e9
        lines.append(
            f"| {name} | {row['images_per_second']:,.4g} | {row['share']:.1%} | {memory:.3g} |"
        )
    for network, title in NETWORKS.items():
        best = _best(results, network)
        aim = f"; target at least {results['targets']['dit']:.0%}" if network == "dit" else ""
        if best:
            lines += ["", f"Best of the {title}: {best[1]:.1%} ({best[0]}){aim}."]
    return "\n".join([*lines, "", *_profiles(results)])


def _steps(results: Mapping[str, Any]) -> dict[str, Mapping]:
    """Rows of training steps, by network and variant."""
    return {
        f"{NETWORKS[network]}: {variant}": row
        for key, row in results["training"].items()
        for network, variant in [key.split(": ")]
        if variant != "profile"
    }


def _best(results: Mapping[str, Any], network: str) -> tuple[str, float] | None:
    """The variant of the highest share, and it."""
    shares = {
        key.split(": ")[1]: row["share"]
        for key, row in results["training"].items()
        if key.startswith(f"{network}: ") and "share" in row
    }
    return max(shares.items(), key=lambda item: item[1]) if shares else None


def _profiles(results: Mapping[str, Any]) -> list[str]:
    """Kinds of work side by side, and the operations that take most."""
    found = _found_profiles(results)
    if not found:
        return []
    lines = [f"| time of a step | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    for kind in KINDS:
        shares = " | ".join(f"{each['kinds'][kind]:.1%}" for each in found.values())
        lines.append(f"| {kind} | {shares} |")
    for title, each in found.items():
        most = ", ".join(f"`{name}` {share:.1%}" for name, share in each["operations"][:5])
        lines += ["", f"Most in the {title}: {most}."]
    return [*lines, ""]


def _found_profiles(results: Mapping[str, Any]) -> dict[str, Mapping]:
    each = {title: results["training"].get(f"{name}: profile") for name, title in NETWORKS.items()}
    return {title: profile for title, profile in each.items() if profile and "kinds" in profile}


def _memory(results: Mapping[str, Any]) -> str:
    lines = [
        "| gradient of the trajectory | memory, GB | / its forward pass |",
        "|---|---:|---:|",
    ]
    for remat, row in results["memory"].items():
        if "failed" in row:
            lines.append(f"| recomputes {remat} | {row['failed']} | |")
            continue
        cells = f"{row['planned_bytes'] / 1e9:.3g} | {row['ratio']:.2f}"
        lines.append(f"| recomputes {remat} | {cells} |")
    limit = results["targets"]["bytes"] / 1e9
    return "\n".join([*lines, "", f"At most {limit:g} GB.", ""])


def _ratios(results: Mapping[str, Any]) -> str:
    lines = ["| of the U-Net | ratio | quartiles | at most |", "|---|---:|---:|---:|"]
    for name, row in results["ratios"].items():
        target = results["targets"][name]
        cells = (
            f"{row['failed']} | "
            if "failed" in row
            else f"{row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f}"
        )
        lines.append(f"| {_RATIOS[name]} | {cells} | {target:g} |")
    return "\n".join([*lines, ""])


def _convolutions(results: Mapping[str, Any]) -> str:
    peak = results["peak"]["best"]
    lines = [
        "| 3 x 3 convolution and its gradients | NHWC | NCHW |",
        "|---|---:|---:|",
    ]
    for size, row in results["convolutions"].items():
        shares = " | ".join(f"{row[layout] / peak:.1%}" for layout in row if layout != "failed")
        lines.append(f"| {size} | {row.get('failed', shares)} |")
    return "\n".join([*lines, "", "Shares of the peak.", ""])


def planned_table(results: Mapping[str, Any]) -> str:
    """A row for each program of `experiments.benchmarks.device.planned_memory`."""
    lines = [
        "| program | memory, GB | cuDNN's attention | cuDNN's convolutions |",
        "|---|---:|---:|---:|",
    ]
    for name, row in results["planned"].items():
        cells = f"{row['planned_bytes'] / 1e9:.1f} | {row['attention']} | {row['convolutions']}"
        lines.append(f"| {name} | {cells} |")
    limit = results["targets"]["bytes"] / 1e9
    return "\n".join(lines) + f"\n\nAn H100 has {limit:g} GB. The last two columns count kernels.\n"


@style.context(STYLE)
def figure(results: Mapping[str, Any]) -> Figure:
    """Shares of the peak by variant, and where the time of a step goes."""
    steps = {name: row for name, row in _steps(results).items() if "share" in row}
    profiles = _found_profiles(results)
    height = 0.9 + 0.2 * len(steps) + 0.35 * len(profiles)
    made = Figure(figsize=(WIDTH, height + 0.6), layout="constrained")
    above, below = made.subplots(2, height_ratios=(len(steps), 1.5 * max(len(profiles), 1)))
    _draw_shares(above, steps, results["targets"]["dit"])
    _draw_profiles(below, profiles)
    return settled(made)


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
