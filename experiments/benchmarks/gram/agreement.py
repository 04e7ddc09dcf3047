"""How far float32 Gram matrices are from particles in float64, and redrawn noise from noise of R^d.

    python -m experiments.benchmarks gram_agreement --name=gram-agreement   # 7 minutes, 2 idle cores

Precision: the same noises go through three float32 paths and through particles in float64 numpy.
``statistics``: Gram matrix -> factor -> distances -> loss, the fresh noise given by its coordinates
along the factor; ``online``: rows in R^d -> distances -> loss, as in training that asks the denoiser
at every step; ``particles``: the states themselves and their distances. Law: see
`experiments.benchmarks.gram.law`; here with 40,960 draws.
"""

import itertools
from argparse import Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.benchmarks.gram import law as gram_law
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd import discrepancy, objectives, schedules
from lgd.diffusion import bridge_coefficients
from lgd.gram.layout import Members
from lgd.gram.redraw import factor
from lgd.machinery.progress import bar
from lgd.objectives import Rows, SelfConsistency
from lgd.objectives.forms import gram_matrix
from lgd.objectives.rows import Coupling

DIMS = (12, 48, 784, 3072, 12_288)
GAPS = (1e-3, 1e-2, 0.1, 0.5)
STEPS: tuple[tuple[float, Coupling], ...] = (
    (0.0, "independent"),
    (0.0, "shared"),
    (1.0, "independent"),
    (1.0, "shared"),
)
GROUPS, PARTICLES, BETA, LAM = 16, 4, 1.75, 1.0
FLOW = schedules.rectified_flow()
CASES: tuple[tuple[int, Members, int], ...] = (
    (2, "copies", 2),
    (7, "condition", 1),
    (14, "copies", 1),
    (64, "mixed", 2),
)
LIMIT = 4.5
PATHS = ("statistics", "online", "particles")
PARTS = ("loss", "gradient")
PRECISION = [
    number("dim", "numbers in x0", ","),
    *(
        number(f"{part} {path}", path if path != PATHS[0] else f"{part}: {path}", ".1e")
        for part in PARTS
        for path in PATHS
    ),
    number("ratio", "statistics / particles", ".2f"),
]
LAW = [
    number("dim", "numbers in x0", "d"),
    text("members", "members"),
    number("directions", "directions", "d"),
    text("of", "of"),
    number("largest_z", "largest z", ".1f"),
    number("rms_z", "rms z", ".2f"),
    number("seen_with_power_.99", "seen with power .99", ".1%"),
]


class Noises(NamedTuple):
    """What the particles of every example are made of: (g, m, d), float32."""

    x0: np.ndarray
    cond: np.ndarray
    uncond: np.ndarray
    eps: np.ndarray
    z: np.ndarray
    eps_target: np.ndarray


def draw(dim: int) -> Noises:
    """Data of unit size; predictions off by a quarter of it, and by less from one another."""
    rng = np.random.default_rng(dim)
    shape = (GROUPS, PARTICLES, dim)
    x0 = np.broadcast_to(rng.normal(size=(GROUPS, 1, dim)), shape)
    eps, z, eps_target = rng.normal(size=(3, *shape))
    cond = x0 + 0.15 * eps + 0.2 * rng.normal(size=shape)
    uncond = cond + 0.05 * eps + 0.1 * rng.normal(size=shape)
    return Noises(*(each.astype(np.float32) for each in (x0, cond, uncond, eps, z, eps_target)))


def reference(
    noises: Noises, omega: np.ndarray, s: float, t: float, churn: float, coupling: str
) -> tuple[np.ndarray, np.ndarray]:
    """Losses (g,) and their gradients (g, m) of the particles of rectified flow, in float64."""
    x0, cond, uncond, eps, z, eps_target = (each.astype(np.float64) for each in noises)
    ratio = (1.0 - t) * s / ((1.0 - s) * t)
    k = churn**2 * ratio + 1.0 - churn**2
    x_t = (1.0 - t) * x0 + t * eps
    scale = (1.0 - s) - s / t * k * (1.0 - t)
    guided = scale * (cond - uncond)
    proposal = scale * cond + s / t * k * x_t + s * np.sqrt(max(1.0 - k**2, 0.0)) * z
    proposal = proposal + omega[:, :, None] * guided
    target = (1.0 - s) * x0 + s * (eps if coupling == "shared" else eps_target)
    cross, cross_slope = _powers(proposal, target, guided)
    within, within_slope = _powers(proposal, proposal, guided)
    off = 1.0 - np.eye(PARTICLES)
    met = off if coupling == "shared" else np.ones((PARTICLES, PARTICLES))
    pairs = met.sum(), off.sum()
    loss = (cross * met).sum((1, 2)) / pairs[0] - 0.5 * LAM * (within * off).sum((1, 2)) / pairs[1]
    slope = (cross_slope * met).sum(2) / pairs[0] - LAM * (within_slope * off).sum(2) / pairs[1]
    return loss, slope


def _powers(x: np.ndarray, y: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``|x_i - y_j|^beta`` (g, m, m), and its derivative as x_i moves along its direction."""
    values, slopes = np.zeros((2, len(x), x.shape[1], y.shape[1]))
    for i, j in np.ndindex(x.shape[1], y.shape[1]):
        apart = x[:, i] - y[:, j]
        square = np.sum(apart**2, axis=-1)
        positive = np.where(square > 0.0, square, 1.0)
        values[:, i, j] = np.where(square > 0.0, positive ** (BETA / 2), 0.0)
        slopes[:, i, j] = np.sum(apart * along[:, i], axis=-1) * BETA
        slopes[:, i, j] *= np.where(square > 0.0, positive ** (BETA / 2 - 1.0), 0.0)
    return values, slopes


Data = Noises | Rows
Path = Callable[[Any, Float[Array, "g m"], Float[Array, " g"], Float[Array, " g"]], Array]


def particle_path(churn: float, coupling: str) -> Path:
    """(noises, omega, s, t) -> losses (g,), on states in float32."""

    def losses(noises: Noises, omega: Array, s: Array, t: Array) -> Array:
        x0, cond, uncond, eps, z, eps_target = noises
        scale = bridge_coefficients(t, s, schedule=FLOW, churn=churn)
        each = {name: value[:, None, None] for name, value in scale._asdict().items()}
        s, t = s[:, None, None], t[:, None, None]
        x_t = (1.0 - t) * x0 + t * eps
        x0_hat = cond + omega[:, :, None] * (cond - uncond)
        proposal = each["x0"] * x0_hat + each["x_t"] * x_t + each["noise"] * z
        target = (1.0 - s) * x0 + s * (eps if coupling == "shared" else eps_target)
        cross, within = (_distances(proposal, other) for other in (target, proposal))
        off_diagonal = discrepancy.off_diagonal_mean
        first = off_diagonal(cross) if coupling == "shared" else jnp.mean(cross, axis=(1, 2))
        return first - 0.5 * LAM * off_diagonal(within)

    return losses


def _distances(x: Float[Array, "g m d"], y: Float[Array, "g m d"]) -> Float[Array, "g m m"]:
    squares = jax.vmap(discrepancy.squared_distances)(x, y)
    return discrepancy.power(squares, BETA)


def rows_path(churn: float, coupling: Coupling) -> Path:
    """(rows, omega, s, t) -> losses (g,)."""
    pairs = SelfConsistency(coupling=coupling, lam=LAM).pairs

    def losses(rows: Rows, omega: Array, s: Array, t: Array) -> Array:
        forms = objectives.step_forms(rows, s=s, t=t, schedule=FLOW, churn=churn, coupling=coupling)
        return objectives.gram_loss(forms, omega[:, :, None], beta=BETA, lam=LAM, pairs=pairs)

    return losses


def online_rows(noises: Noises) -> Rows:
    """As in training without statistics."""
    x0, cond, uncond, eps, z, eps_target = map(jnp.asarray, noises)
    return Rows(jnp.zeros_like(x0), cond - x0, cond - uncond, eps, z, eps_target)


def statistics_rows(rows: Rows) -> Rows:
    """From the Gram matrix of the frozen rows, and coordinates of the fresh ones beside them.

    The factor of the float32 matrix times the orthonormal axes that bring it nearest to the rows.
    """
    frozen = np.concatenate([np.asarray(each) for each in rows[1:4]], axis=1)
    fresh = np.concatenate([np.asarray(each, np.float64) for each in rows[4:]], axis=1)
    dim, q = frozen.shape[-1], frozen.shape[1]
    lower = factor(np.asarray(jax.jit(gram_matrix)(frozen)), dim)
    left, _, right = np.linalg.svd(np.swapaxes(lower, 1, 2) @ frozen, full_matrices=False)
    axes = left @ right
    along = fresh @ np.swapaxes(axes, 1, 2)
    rest = fresh - along @ axes
    products = rest @ np.swapaxes(rest, 1, 2)
    beside = factor(products, dim - q) if dim > q else np.zeros_like(products)
    known = np.concatenate([lower, np.zeros((*lower.shape[:2], fresh.shape[1]))], axis=2)
    whole = np.concatenate([known, np.concatenate([along, beside], axis=2)], axis=1)
    blocks = [jnp.asarray(block, jnp.float32) for block in np.split(whole, 5, axis=1)]
    return Rows(jnp.zeros_like(blocks[0]), *blocks)


def precision() -> list[dict[str, Any]]:
    """Return the errors of every dimension, gap, churn and coupling."""
    omega = np.random.default_rng(0).uniform(0.0, 2.0, (GROUPS, PARTICLES)).astype(np.float32)
    lows = np.linspace(0.02, 0.45, GROUPS, dtype=np.float32)
    paths = {
        step: [jax.jit(_with_gradient(path(*step))) for path in (rows_path, particle_path)]
        for step in STEPS
    }
    found = []
    with bar("precision", len(DIMS) * len(STEPS) * len(GAPS)) as advance:
        for dim in DIMS:
            noises = draw(dim)
            online = online_rows(noises)
            data = (statistics_rows(online), online, noises)
            for step, gap in itertools.product(STEPS, GAPS):
                s, t = lows, lows + np.float32(gap)
                truth = [
                    reference(each, w[None], float(a), float(b), *step)
                    for each, w, a, b in zip(_single(noises), omega, s, t, strict=True)
                ]
                exact = [np.concatenate(values) for values in zip(*truth, strict=True)]
                by_rows, by_particles = paths[step]
                entry: dict[str, Any] = {
                    "dim": dim,
                    "gap": gap,
                    "churn": step[0],
                    "coupling": step[1],
                }
                for name, arrays, path in zip(
                    PATHS, data, (by_rows, by_rows, by_particles), strict=True
                ):
                    got = path(arrays, omega, s, t)
                    entry[name] = dict(zip(PARTS, map(_error, got, exact), strict=True))
                found.append(entry)
                advance("")
    return found


def _with_gradient(path: Path) -> Callable[..., tuple[Array, Array]]:
    def both(data: Data, omega: Array, s: Array, t: Array) -> tuple[Array, Array]:
        values, pull = jax.vjp(lambda omega: path(data, omega, s, t), omega)
        return values, pull(jnp.ones_like(values))[0]

    return both


def _single(noises: Noises) -> list[Noises]:
    """Every example by itself."""
    return [Noises(*(each[i : i + 1] for each in noises)) for i in range(GROUPS)]


def _error(found: Array, exact: np.ndarray) -> float:
    """Norm of the error over the norm, of all examples."""
    return float(np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact))


def law(draws: int) -> list[dict[str, Any]]:
    """`gram_law.compared` of every case: largest and root mean square z, and what would be seen."""
    batch, found = draws // gram_law.BATCHES, []
    with bar("law", len(CASES)) as advance:
        for dim, members, num_directions in CASES:
            compared = gram_law.compared(dim, members, num_directions, batch=batch)
            for name, (gap, error) in compared.items():
                z = (gap / np.maximum(error, 1e-30))[~gram_law.NO_NOISE]
                seen = (LIMIT + gram_law.POWER_GAP) * error[~gram_law.NO_NOISE].max()
                found.append(
                    {
                        "dim": dim,
                        "members": members,
                        "directions": num_directions,
                        "of": name,
                        "draws": batch * gram_law.BATCHES,
                        "largest_z": float(np.abs(z).max()),
                        "rms_z": float(np.sqrt(np.mean(z**2))),
                        "seen_with_power_.99": float(seen),
                    }
                )
            advance("")
    return found


def measure(chosen: Namespace) -> dict[str, Any]:
    """Return both comparisons, the first also as the largest errors of every dimension."""
    entries, rows = precision(), []
    for dim in DIMS:
        mine = [entry for entry in entries if entry["dim"] == dim]
        row: dict[str, Any] = {"dim": dim}
        for part, path in itertools.product(PARTS, PATHS):
            row[f"{part} {path}"] = max(entry[path][part] for entry in mine)
        ratios = [each["statistics"]["gradient"] / each["particles"]["gradient"] for each in mine]
        rows.append(row | {"ratio": max(ratios)})
    tables = {
        "precision": {"columns": PRECISION, "rows": rows},
        "law": {"columns": LAW, "rows": "law"},
    }
    return {"precision": entries, "law": law(chosen.draws), "tables": tables}


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    add("--draws", type=int, default=40_960, help="of noise, for the law")


STUDY = Study(measure=measure, arguments=arguments)
