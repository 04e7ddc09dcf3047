"""What the papers say of their rules, each asserted by one function: a known answer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lgd import guidance, sampling, schedules
from lgd.denoisers import GaussianMixture, from_function
from lgd.diffusion import KINDS, add_noise, bridge_step, denoise_pair, from_x0, to_x0
from tests.rule_toys import CLASSES, EMBEDDING, FLOW, PLAIN, START, TIMES, draw

T = jnp.full(5, TIMES[1])
OMEGA = 2.0
SLOPES = 0.3 * jax.random.normal(jax.random.key(2), (4, 2, 2))
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def some_posterior(params, x_t, t, c):
    return jax.nn.sigmoid(jnp.sum(x_t, axis=1) + t)


def some_logits(x0):
    return jnp.stack([x0[:, 1], 0.7 + 0.0 * x0[:, 1]], axis=1)


def step_of(index=1, inputs=None, batch=5):
    """A step of the grid, with one weight for all samples unless inputs are given."""
    inputs = jnp.full((4, batch), OMEGA) if inputs is None else inputs
    every = sampling.steps(jax.random.key(0), TIMES, None, inputs)
    return jax.tree.map(lambda leaf: leaf[index], every)


def guided(rule, *, state=None, index=1, denoiser=PLAIN, params=EMBEDDING, x_t=START):
    """The x0 of a rule and the state after a step."""
    ready, inputs = rule.prepare(denoiser, TIMES, CLASSES)
    step = step_of(index, inputs)
    made, state = ready.apply(
        denoiser, params, state, x_t, step=step, t=jnp.full(5, step.t), c=CLASSES
    )
    return made.x0, state


def pair_of(denoiser=PLAIN, params=EMBEDDING):
    return denoise_pair(denoiser, params, START, t=T, c=CLASSES)


def in_space(kind, *x0):
    return [from_x0(each, START, t=T, schedule=FLOW, kind=kind) for each in x0]


def is_cfg(rule):
    """Whether the rule is the plain mixture of the two predictions, but for rounding."""
    close(guided(rule)[0], guidance.mix(*pair_of(), OMEGA))


def norms(x):
    return jnp.linalg.norm(x, axis=1)


def gaussians(schedule, cond, uncond):
    """The exact denoiser of centred Gaussians with a variance for every axis.

    cond: variances (d,), or those of every label, (labels, d). uncond: (d,).
    """

    def mean(x_t, t, variance):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        return alpha * variance / (alpha**2 * variance + sigma**2) * x_t

    def both(params, x_t, t, c):
        of_label = jnp.atleast_2d(jnp.asarray(cond))
        of_label = of_label[c] if len(of_label) > 1 else of_label
        return mean(x_t, t, of_label), mean(x_t, t, jnp.asarray([uncond]))

    return from_function(lambda *given: both(*given)[0], schedule=schedule, kind="x0", pair=both)


def of_apg():
    """Orthogonal to cond at eta 0; momentum of a constant Delta goes to 1 / (1 - beta); CFG."""
    cond, uncond = pair_of()
    still = jnp.zeros_like(START)
    moved = guided(guidance.Apg(OMEGA), state=still)[0] - cond
    np.testing.assert_allclose(jnp.sum(moved * cond, axis=1), 0.0, atol=1e-6)
    state = still
    for share in (1.0, 0.5, 0.75, 0.625):
        _, state = guided(guidance.Apg(OMEGA), state=state)
        close(state, share * (cond - uncond))
    plain = guided(guidance.Apg(OMEGA, eta=1.0, momentum=0.0), state=still)[0]
    close(plain, guidance.mix(cond, uncond, OMEGA))
    short = guidance.Apg(OMEGA, eta=1.0, momentum=0.0, radius=1e-3)
    close(norms(guided(short, state=state)[0] - cond), 2e-3, rtol=1e-3)


def of_cfg_plus_plus():
    """The rule and the weight are one under DDIM, at every churn."""
    for churn in (0.0, 0.6, 1.0):
        weight = guidance.cfg_plus_plus(0.7, churn, schedule=FLOW)
        found, expected = (
            draw(rule, "plain", churn=churn) for rule in (guidance.CfgPlusPlus(0.7), weight)
        )
        np.testing.assert_allclose(found.trajectory, expected.trajectory, rtol=1e-5, atol=1e-5)


def of_fitted():
    """It shrinks a collapsed direction by r^(1 + w), and few steps do not blow up.

    With variances 0 and 1, w = 8 and sigma from 10 to 0.01, the amplification after 8 and 16 steps
    of CFG and of the rule; and at w = 0.5 that of a direction in which uncond is x_t / alpha.
    """
    edm = schedules.EDM(sigma_min=0.005, sigma_max=10.0)
    c = jnp.asarray([1, 1, 0])

    def pair(params, x_t, t, c):
        return 0.0 * x_t, x_t / (1.0 + c * edm.sigma(t) ** 2)[:, None]

    zero = from_function(lambda *given: pair(*given)[0], schedule=edm, kind="x0", pair=pair)
    rules = (guidance.constant(8.0), *(guidance.fitted_cfg(w, schedule=edm) for w in (8.0, 0.5)))
    for num_steps, of_cfg, of_rule in ((8, 31.73, 2.82e-12), (16, 0.545, 5.63e-16)):
        times = edm.t_from_logsnr(-2.0 * jnp.log(jnp.geomspace(10.0, 0.01, num_steps + 1)))
        times = times.at[0].set(1.0)
        weights = [guidance.on_grid(rule, times, c)[:, :1] for rule in rules]
        given = {"guidance": jnp.concatenate(weights, axis=1), "times": times}
        found = sampling.unroll(jax.random.key(0), zero, None, c, jnp.ones((3, 1)), **given)
        expected = [of_cfg, of_rule, 1e-3**1.5]
        close(jnp.abs(found[:, 0]), expected, rtol=5e-3, atol=0.0)


def of_beta():
    """power 1: every step of P has the length of the scale; 0: CFG; the mean scale is the scale."""
    _, uncond = pair_of()
    unit = guided(guidance.BetaCfg(OMEGA, power=1.0))[0]
    close(norms(unit - uncond), 1.0 + OMEGA)
    is_cfg(guidance.BetaCfg(OMEGA, power=0.0))
    t = (jnp.arange(4000) + 0.5) / 4000
    density = guidance.beta_density(1.7, 2.0, 3.5)(s=t, t=t, c=t)
    close(jnp.mean(density), 0.7, rtol=1e-3)


def of_cfg_zero():
    """On centred Gaussians it is the conditional sampler for every weight; the start is still."""
    denoiser = gaussians(FLOW, [0.6, 0.6], [1.7, 1.7])
    found, _ = guided(guidance.CfgZero(OMEGA), denoiser=denoiser, params=None)
    close(found, pair_of(denoiser, None)[0])
    still, _ = guided(guidance.CfgZero(OMEGA), index=0)
    np.testing.assert_array_equal(still, START)
    two, _ = guided(guidance.CfgZero(OMEGA, zero_steps=2))
    np.testing.assert_array_equal(two, START)
    v_c, v_u = in_space("velocity", *pair_of())
    best = jnp.sum(v_c * v_u, axis=1, keepdims=True) / jnp.sum(v_u**2, axis=1, keepdims=True)
    velocity = best * v_u + (1.0 + OMEGA) * (v_c - best * v_u)
    x0 = to_x0(velocity, START, t=T, schedule=FLOW, kind="velocity")
    close(guided(guidance.CfgZero(OMEGA))[0], x0)


def of_tcfg():
    """The projection is that of an SVD; parallel predictions are guided as by CFG."""
    for kind in KINDS:
        own = np.stack(in_space(kind, *pair_of()), axis=1)  # (b, 2, d)
        leading = np.linalg.svd(own.astype(np.float64))[2][:, :1]
        projected = (own[:, 1:] @ leading.transpose(0, 2, 1) @ leading)[:, 0]
        expected = projected + (1.0 + OMEGA) * (own[:, 0] - projected)
        expected = to_x0(jnp.asarray(expected, jnp.float32), START, t=T, schedule=FLOW, kind=kind)
        rule = guidance.Tcfg(None, kind=kind)
        made, _ = rule.apply(PLAIN, EMBEDDING, None, START, step=step_of(), t=T, c=CLASSES)
        close(made.x0, expected)
    parallel = gaussians(FLOW, [0.6, 0.6], [1.7, 1.7])
    found, _ = guided(guidance.Tcfg(OMEGA), denoiser=parallel, params=None)
    close(found, guidance.mix(*pair_of(parallel, None), OMEGA))


def of_rescaled():
    """phi 1: the deviation of P_c; phi 0: CFG."""
    for kind in ("velocity", "x0"):
        found, _ = guided(guidance.Rescaled(OMEGA, phi=1.0, kind=kind))
        own, expected = in_space(kind, found, pair_of()[0])
        close(jnp.std(own, axis=1), jnp.std(expected, axis=1))
    is_cfg(guidance.Rescaled(OMEGA, phi=0.0))


def of_mog():
    """along 1 and across 1: CFG; the part across P_u is divided, the part along it is not."""
    is_cfg(guidance.Mog(OMEGA, along=1.0, across=1.0, kind="velocity"))
    cond, uncond = pair_of()
    moved = guided(guidance.Mog(OMEGA, along=1.0, across=5.0))[0] - uncond
    unit = uncond / norms(uncond)[:, None]
    for found, expected in zip(split(moved, unit), split(3.0 * (cond - uncond), unit), strict=True):
        close(found, expected if found.ndim == 1 else expected / 5.0)


def split(x, unit):
    along = jnp.sum(x * unit, axis=1)
    return along, x - along[:, None] * unit


def of_auto_mog():
    """Unclipped, a step is as long as gamma |P_u|; clipped, it is a `Mog`."""
    uncond = pair_of()[1]
    free, _ = guided(guidance.AutoMog(OMEGA, low=0.0, high=1e6))
    close(norms(free - uncond), (1.0 + OMEGA) * norms(uncond))
    held, _ = guided(guidance.AutoMog(OMEGA, low=3.0, high=3.0))
    close(held, guided(guidance.Mog(OMEGA))[0])


def of_recfg():
    """On centred Gaussians it is the conditional sampler for every weight.

    The coordinates are independent, and every label has variances of its own.
    """
    variances = [[0.6, 1.0], [2.5, 0.2]]
    denoiser = gaussians(FLOW, variances, [1.7, 0.4])
    labels = jnp.arange(64, dtype=jnp.int32) % 2
    x0 = jax.random.normal(jax.random.key(3), (64, 2)) * jnp.sqrt(jnp.asarray(variances))[labels]
    given = {"times": TIMES, "num_labels": 3}
    slopes = guidance.recfg_slopes(jax.random.key(4), denoiser, None, x0, labels, **given)
    assert slopes.shape == (4, 3, 2)
    close(slopes[:, 2], slopes[:, :2].mean(axis=1))
    walk = {"times": TIMES, "shape": (2,), "return_trajectory": True}
    found, expected = (
        sampling.sample(jax.random.key(0), denoiser, None, CLASSES, guidance=rule, **walk)
        for rule in (guidance.ReCfg(OMEGA, slopes, TIMES), 0.0)
    )
    np.testing.assert_allclose(found.trajectory, expected.trajectory, rtol=1e-3, atol=1e-4)
    cond, uncond = pair_of()
    (eps,) = in_space("eps", uncond)
    rest = guided(guidance.ReCfg(OMEGA, SLOPES, TIMES))[0] - cond
    close(rest, OMEGA * (cond - uncond - SLOPES[1][CLASSES] * eps))


def of_rectified_cfg():
    """No step ahead: CFG; half a step: (t / t') Delta there, for rectified flow."""
    none = guidance.RectifiedCfgPlusPlus(OMEGA, fraction=0.0)
    is_cfg(none)
    first = denoise_pair(PLAIN, EMBEDDING, START, t=jnp.ones(5), c=CLASSES)
    close(guided(none, index=0)[0], guidance.mix(*first, OMEGA))
    cond, _ = pair_of()
    t, ahead = 0.75, 0.625
    x = START + (ahead - t) * (START - cond) / t
    far = denoise_pair(PLAIN, EMBEDDING, x, t=jnp.full(5, ahead), c=CLASSES)
    expected = cond + OMEGA * t / ahead * (far[0] - far[1])
    close(guided(guidance.RectifiedCfgPlusPlus(OMEGA))[0], expected)


def of_raag():
    """rate 0: CFG; at a ratio of log 2 / rate the weight is halved."""
    is_cfg(guidance.Raag(OMEGA, rate=0.0))
    cond, uncond = pair_of()
    own = in_space("velocity", cond, uncond)
    ratio = norms(own[0] - own[1]) / norms(own[1])
    half = guidance.Raag(OMEGA, rate=float(np.log(2.0) / ratio[3]), kind="velocity")
    close((guided(half)[0] - cond)[3], 0.5 * OMEGA * (cond - uncond)[3])


def of_power_law():
    """power 0: CFG; power 1: the weight is the norm of the difference of the scores."""
    is_cfg(guidance.PowerLaw(OMEGA, power=0.0))
    cond, uncond = pair_of()
    size = norms(cond - uncond) * FLOW.alpha(T) / FLOW.sigma(T) ** 2
    found, _ = guided(guidance.PowerLaw(OMEGA, power=1.0))
    close(found, cond + OMEGA * size[:, None] * (cond - uncond))


MIXTURE = GaussianMixture((0, 0, 1), FLOW)
MIXTURE_PARAMS = MIXTURE.params(
    jnp.asarray([[-1.0, 0.5], [0.5, 1.0], [1.0, -0.5]]), jnp.asarray([0.3, 0.1, 0.5])
)


def of_evidence():
    """The guided score is score_c + grad omega (L - exp L); one of |Delta| is no gradient."""

    def moved(rule, x):
        given = {"step": step_of(batch=1), "t": T[:1], "c": CLASSES[:1]}
        made, _ = rule.apply(MIXTURE, MIXTURE_PARAMS, None, x[None], **given)
        cond = MIXTURE.apply(MIXTURE_PARAMS, x[None], t=T[:1], c=CLASSES[:1])
        return (FLOW.alpha(T[0]) / FLOW.sigma(T[0]) ** 2 * (made.x0 - cond))[0]

    def potential(x):
        q = MIXTURE.posterior(MIXTURE_PARAMS, x[None], t=T[:1], c=CLASSES[:1])[0]
        return OMEGA * (jnp.log(q) - q)

    x = START[0]
    score = jax.jit(functools.partial(moved, guidance.EvidenceScale(None)))(x)
    close(score, jax.jit(jax.grad(potential))(x), rtol=1e-3)
    raag = functools.partial(moved, guidance.Raag(None, rate=1.0, kind="x0"))
    slopes = jax.jit(jax.jacfwd(raag))(x)
    assert abs(slopes[0, 1] - slopes[1, 0]) > 1e-2
    every = [MIXTURE.log_density(MIXTURE_PARAMS, START, t=T, c=jnp.full(5, c)) for c in (0, 1, 2)]
    share = MIXTURE.posterior(MIXTURE_PARAMS, START, t=T, c=jnp.zeros(5, jnp.int32))
    close(share, 2.0 / 3.0 * jnp.exp(every[0] - every[2]))


def of_adaptive():
    """threshold 1: CFG; -1: none; a sample that was left alone stays so."""
    guiding, cond = jnp.ones(5), pair_of()[0]
    found, state = guided(guidance.AdaptiveCfg(OMEGA, threshold=1.0), state=guiding)
    close(found, guidance.mix(*pair_of(), OMEGA))
    np.testing.assert_array_equal(state, guiding)
    found, state = guided(guidance.AdaptiveCfg(OMEGA, threshold=-1.0), state=guiding)
    np.testing.assert_array_equal(found, cond)
    np.testing.assert_array_equal(state, 0.0)
    some = jnp.asarray([1.0, 0.0, 1.0, 0.0, 1.0])
    found, state = guided(guidance.AdaptiveCfg(OMEGA, threshold=1.0), state=some)
    np.testing.assert_array_equal(state, some)
    np.testing.assert_array_equal(found[1], cond[1])


def of_gfcg():
    """Samples that are taken for their class are left alone, the others led away from the other."""
    cond = pair_of()[0]
    other = PLAIN.apply(EMBEDDING, START, t=T, c=1 - CLASSES)
    q = np.asarray(jax.nn.softmax(some_logits(cond)))[np.arange(5), CLASSES]
    assert (q < 0.5).any()
    assert (q > 0.5).any()
    weight = np.where(q < 0.5, OMEGA * (1.0 - q), 0.0)[:, None]
    close(guided(guidance.GfcgStyle(OMEGA, some_logits))[0], cond + weight * (cond - other))


def of_smc_cfg():
    """gain 0: CFG; the correction is at most gain; at the first step it has the sign of Delta."""
    cond, uncond = pair_of()
    error, still = cond - uncond, jnp.zeros_like(START)
    found, state = guided(guidance.SmcCfg(OMEGA, gain=0.0), state=still)
    close(found, guidance.mix(cond, uncond, OMEGA))
    close(state, error)
    found, state = guided(guidance.SmcCfg(OMEGA, gain=0.1), state=10.0 * START)
    assert jnp.max(jnp.abs(state - error)) <= 0.1 + 1e-6
    close(found, uncond + (1.0 + OMEGA) * state)
    sliding = error + (5.0 - 1.0) * 10.0 * START
    close(state, error - 0.1 * jnp.sign(sliding))
    first = denoise_pair(PLAIN, EMBEDDING, START, t=jnp.ones(5), c=CLASSES)
    _, state = guided(guidance.SmcCfg(OMEGA, gain=0.1), state=still, index=0)
    close(state, first[0] - first[1] - 0.1 * jnp.sign(first[0] - first[1]))


PAIR = GaussianMixture((0, 1), FLOW)
PAIR_PARAMS = PAIR.params(jnp.asarray([[1.0], [-1.0]]), 0.25)


def posterior_errors(num_steps, num_paths=1500):
    """Root mean squares of log q against the posterior, at the end of paths of churn 1.

    Of the conditional paths, and of the unconditional ones.
    """
    taus = jnp.append(jnp.geomspace(20.0, 0.02, num_steps + 1), 0.01)
    times = FLOW.t_from_logsnr(-2.0 * jnp.log(taus))
    c = jnp.zeros(2 * num_paths, jnp.int32)
    which = jnp.where(jnp.arange(2 * num_paths) < num_paths, 0, PAIR.null(c))
    rule, inputs = guidance.FeedbackGuidance(pi=1.0, highest=1e6).prepare(PAIR, times, c)
    every = sampling.steps(jax.random.key(5), times, 1.0, inputs)

    def body(carry, step):
        x, state = carry
        t, s = jnp.full(len(x), step.t), jnp.full(len(x), step.s)
        _, state = rule.apply(PAIR, PAIR_PARAMS, state, x, step=step, t=t, c=c)
        x0 = PAIR.apply(PAIR_PARAMS, x, t=t, c=which)
        x_s = bridge_step(step.key, x, x0, t=t, s=s, schedule=FLOW, churn=1.0)
        return (x_s, state), (x, state.log_q)

    x0 = PAIR.draw(jax.random.key(6), PAIR_PARAMS, which)
    x = add_noise(jax.random.key(7), x0, t=jnp.full(len(c), times[0]), schedule=FLOW)
    xs, log_q = jax.jit(lambda x: jax.lax.scan(body, (x, rule.init(x, c)), every))(x)[1]
    q = PAIR.posterior(PAIR_PARAMS, xs[-1], t=jnp.full(len(c), times[-2]), c=c)
    errors = (log_q[-1] - jnp.log(2.0 * q)).reshape(2, num_paths)
    return jnp.sqrt(jnp.mean(errors**2, axis=1))


def of_feedback():
    """q is the posterior up to the error of the steps; the weight is the paper's.

    Errors after 200 steps, of conditional and of unconditional paths.
    """
    close(posterior_errors(200), [0.137, 0.26], rtol=0.15)
    cond, uncond = pair_of()
    fresh = guidance.FeedbackGuidance(pi=0.8, largest=20.0)
    found, state = guided(fresh, state=fresh.init(START, CLASSES), index=0)
    assert isinstance(state, tuple)
    first = denoise_pair(PLAIN, EMBEDDING, START, t=jnp.ones(5), c=CLASSES)
    close(found, guidance.mix(*first, 0.25))
    known = state._replace(log_q=jnp.log(jnp.full(5, 0.5)), delta=jnp.zeros_like(START))
    half = guidance.FeedbackGuidance(0.5, pi=0.8, largest=20.0)
    close(guided(half, state=known)[0], guidance.mix(cond, uncond, 0.5 + 0.2 / 0.3))
    gone = known._replace(log_q=jnp.full(5, -50.0))
    strongest = dataclasses.replace(fresh, omega=0.0, largest=10.0)
    close(guided(strongest, state=gone)[0], guidance.mix(cond, uncond, 9.0), rtol=1e-3)
    later, _ = fresh.prepare(PLAIN, TIMES, CLASSES)
    times = {"step": step_of(1, jnp.zeros((4, 5))), "t": jnp.full(5, TIMES[2]), "c": CLASSES}
    _, again = later.apply(PLAIN, EMBEDDING, state, START, **times)
    np.testing.assert_array_equal(again.log_q, state.log_q)  # at a second stage


def of_feedback_constants():
    """Without evidence the CFG scale is 3 at t0; the temperature is that of the variance at t1."""
    edm = schedules.EDM()
    zero = from_function(lambda params, x_t, t, c: 0.0 * x_t, schedule=edm, kind="x0", null=2)
    times = schedules.uniform_times(40)
    preset = guidance.FeedbackGuidance(pi=0.99, t0=0.75, t1=0.5)
    rule, _ = preset.prepare(zero, times, CLASSES)
    log_q = 10 * rule.offset
    close(0.01 / (jnp.exp(log_q) - 0.01), 2.0, rtol=1e-3)
    tau_t, tau_s = (np.float64(edm.sigma(times[i])) for i in (20, 21))
    variance = (tau_t**2 - tau_s**2) * (tau_s / tau_t) ** 2
    close(rule.temperature, abs(0.2 * variance * rule.offset), rtol=1e-3)
