"""How far float32 Gram matrices are from particles in float64, and redrawn noise from that of R^d.

    python -m experiments.benchmarks gram_agreement --name=gram-agreement

Precision: the same noises go through three float32 paths and through particles in float64.
``statistics``: Gram matrix -> factor -> distances -> loss, the fresh noise given by its coordinates
along the factor; ``online``: rows in R^d -> distances -> loss, as in training that asks at every
step; ``particles``: the states themselves and their distances. Law: see `lgd.gram.law`; here with
40,960 draws. Takes 7 minutes on two idle cores.
"""

import itertools
from argparse import Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd import discrepancy, objectives, schedules
from lgd.diffusion import bridge_coefficients
from lgd.gram import law as gram_law
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
    """Parts that the particles of every example are made of: (g, m, d), float32."""

    x0: np.ndarray
    cond: np.ndarray
    uncond: np.ndarray
    eps: np.ndarray
    z: np.ndarray
    eps_target: np.ndarray


def draw(dim: int) -> Noises:
    """Return data of unit size; predictions off by a quarter of it, and less from one another."""
    rng = np.random.default_rng(dim)
    shape = (GROUPS, PARTICLES, dim)
    x0 = np.broadcast_to(rng.normal(size=(GROUPS, 1, dim)), shape)
    eps, z, eps_target = rng.normal(size=(3, *shape))
    cond = x0 + 0.15 * eps + 0.2 * rng.normal(size=shape)
    uncond = cond + 0.05 * eps + 0.1 * rng.normal(size=shape)
    return Noises(*(each.astype(np.float32) for each in (x0, cond, uncond, eps, z, eps_target)))


Data = Noises | Rows
Path = Callable[[Any, Float[Array, "g m"], Float[Array, " g"], Float[Array, " g"]], Array]


def particle_path(churn: float, coupling: str) -> Path:
    """Return (noises, omega, s, t) -> losses (g,), on the states themselves."""

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
    """Return (rows, omega, s, t) -> losses (g,), on distances of Gram matrices."""
    pairs = SelfConsistency(coupling=coupling, lam=LAM).pairs

    def losses(rows: Rows, omega: Array, s: Array, t: Array) -> Array:
        forms = objectives.step_forms(rows, s=s, t=t, schedule=FLOW, churn=churn, coupling=coupling)
        return objectives.gram_loss(forms, omega[:, :, None], beta=BETA, lam=LAM, pairs=pairs)

    return losses


def online_rows(noises: Noises) -> Rows:
    """Return rows as in training that asks at every step."""
    x0, cond, uncond, eps, z, eps_target = map(jnp.asarray, noises)
    return Rows(jnp.zeros_like(x0), cond - x0, cond - uncond, eps, z, eps_target)


def statistics_rows(rows: Rows) -> Rows:
    """Return rows from the Gram matrix of the frozen ones; the fresh ones by coordinates beside it.

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
    s, entries = np.linspace(0.02, 0.45, GROUPS, dtype=np.float32), []
    by_rows, by_particles = (
        {step: jax.jit(with_gradient(path(*step))) for step in STEPS}
        for path in (rows_path, particle_path)
    )
    with bar("precision", len(DIMS) * len(STEPS) * len(GAPS)) as advance:
        for dim in DIMS:
            noises = draw(dim)
            online = online_rows(noises)
            paths = ((by_rows, statistics_rows(online)), (by_rows, online), (by_particles, noises))
            for step, gap in itertools.product(STEPS, GAPS):
                times = (s, s + np.float32(gap))
                exact = in_float64(by_particles[step], noises, omega, *times)
                entry: dict[str, Any] = {"dim": dim, "gap": gap}
                entry |= {"churn": step[0], "coupling": step[1]}
                for name, (path, data) in zip(PATHS, paths, strict=True):
                    errors = map(_error, path[step](data, omega, *times), exact)
                    entry[name] = dict(zip(PARTS, errors, strict=True))
                entries.append(entry)
                advance("")
    return entries


def with_gradient(path: Path) -> Callable[..., tuple[Array, Array]]:
    """Return losses (g,), and their derivatives (g, m) in omega."""

    def both(data: Data, omega: Array, s: Array, t: Array) -> tuple[Array, Array]:
        values, pull = jax.vjp(lambda omega: path(data, omega, s, t), omega)
        return values, pull(jnp.ones_like(values))[0]

    return both


def in_float64(f: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``f(*arguments)`` in double precision."""
    with jax.enable_x64(True):
        doubles = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), arguments)
        return jax.tree.map(np.asarray, f(*doubles))


def _error(values: Array, exact: np.ndarray) -> float:
    """Norm of the error over the norm, of all examples."""
    return float(np.linalg.norm(np.asarray(values, np.float64) - exact) / np.linalg.norm(exact))


def law(draws: int) -> list[dict[str, Any]]:
    """Return the largest and root mean square z of every case, and what would be seen."""
    batch, drawn, rows = draws // gram_law.BATCHES, ~gram_law.NO_NOISE, []
    with bar("law", len(CASES)) as advance:
        for dim, members, directions in CASES:
            case = {"dim": dim, "members": members, "directions": directions}
            compared = gram_law.compared(dim, members, directions, batch=batch)
            for name, (gap, error) in compared.items():
                z = (gap / np.maximum(error, 1e-30))[drawn]
                seen = (LIMIT + gram_law.POWER_GAP) * error[drawn].max()
                row = {"of": name, "draws": batch * gram_law.BATCHES}
                row |= {"largest_z": float(np.abs(z).max()), "rms_z": float(np.mean(z**2) ** 0.5)}
                rows.append(case | row | {"seen_with_power_.99": float(seen)})
            advance("")
    return rows


def measure(options: Namespace) -> dict[str, Any]:
    """Return both comparisons, the first also as the largest errors of every dimension."""
    entries, rows = precision(), []
    for dim in DIMS:
        of_dim = [entry for entry in entries if entry["dim"] == dim]
        row: dict[str, Any] = {"dim": dim}
        for part, path in itertools.product(PARTS, PATHS):
            row[f"{part} {path}"] = max(entry[path][part] for entry in of_dim)
        ratios = [each["statistics"]["gradient"] / each["particles"]["gradient"] for each in of_dim]
        rows.append(row | {"ratio": max(ratios)})
    tables = {
        "precision": {"columns": PRECISION, "rows": rows},
        "law": {"columns": LAW, "rows": "law"},
    }
    return {"precision": entries, "law": law(options.draws), "tables": tables}


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    add("--draws", type=int, default=40_960, help="of noise, for the law")


STUDY = Study(measure=measure, arguments=arguments)
