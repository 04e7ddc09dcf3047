"""Diffusers' pipelines: the same samples as lgd's own sampler, both ways, on tiny random models."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd

torch = pytest.importorskip("torch")
pytest.importorskip("torchax")
diffusers = pytest.importorskip("diffusers")

from lgd.exchange import diffusers as exchange  # noqa: E402
from lgd.exchange.diffusers import tiny  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of PyTorch, torchax and diffusers about themselves
]

N, RNG = 5, np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
SD = tiny.STABLE_DIFFUSION


def tokens(*shape):
    return {"tokens": RNG.normal(size=(*shape, 8)).astype(np.float32), "mask": np.ones(shape, bool)}


TEXT, NO_TEXT = {"text": tokens(2, 7)}, {"text": tokens(1, 7)}
POOLED, NO_POOLED = (RNG.normal(size=(rows, 8)).astype(np.float32) for rows in (2, 1))


def omega_of_text(*, s, t, c):
    """Another weight for every step and sample, below 0 for some."""
    return 2.0 * t - s - 1.0 + 4.0 * jnp.mean(c["text"]["tokens"], axis=(1, 2))


def brought(pipe, null):
    """The pipeline in lgd's terms, with the condition of the empty text given, not encoded."""
    model = exchange.load(pipe)
    if isinstance(null, int):
        return model

    def rows(c):
        return jax.tree.map(lambda leaf, like: jnp.repeat(leaf, len(like), axis=0), null, c)

    own = model.denoiser
    denoiser = lgd.denoisers.from_function(
        own.function, schedule=own.schedule, kind=own.kind, null=rows
    )
    return exchange.Model(denoiser, model.params, model.scheduler)


def ours(model, omega, c, *, solver="ddim", start=X):
    times = model.times(N)
    return np.asarray(
        jax.jit(
            lambda params, x, c: lgd.sampling.unroll(
                jax.random.key(0), model.denoiser, params, c, x, guidance=omega, times=times,
                solver=solver,
            )
        )(model.params, jnp.asarray(start), jax.tree.map(jnp.asarray, c))
    )  # fmt: skip


def close(found, expected):
    assert np.abs(found - expected).max() <= 5e-5 * np.abs(expected).max()


def tensor(leaf):
    return torch.tensor(np.broadcast_to(leaf, (2, *leaf.shape[1:])).copy())


SCHEDULERS = {
    "DDIM leading": (lambda: diffusers.DDIMScheduler(**SD, clip_sample=False, steps_offset=1,
                                             set_alpha_to_one=False), "ddim"),
    "DDIM trailing": (lambda: diffusers.DDIMScheduler(**SD, clip_sample=False,
                                              timestep_spacing="trailing"), "ddim"),
    "DDIM of v, zero SNR": (lambda: diffusers.DDIMScheduler(**SD, clip_sample=False,
                                                    prediction_type="v_prediction",
                                                    rescale_betas_zero_snr=True,
                                                    timestep_spacing="trailing"), "ddim"),
    "Euler": (lambda: diffusers.EulerDiscreteScheduler(**SD), "ddim"),
    "Euler, Karras": (lambda: diffusers.EulerDiscreteScheduler(**SD, use_karras_sigmas=True),
                      "ddim"),
    "Heun": (lambda: diffusers.HeunDiscreteScheduler(**SD), "heun_edm"),
    "DPM-Solver++(2M)": (lambda: diffusers.DPMSolverMultistepScheduler(**SD), "dpmpp_2m"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "solver"), SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_classic_pipeline_follows_learned_weights(make, solver):
    scheduler = make()
    pipe = tiny.stable_diffusion(scheduler)
    model = brought(pipe, NO_TEXT)
    scale, callback = exchange.guidance_callback(omega_of_text, pipe, N, TEXT)
    theirs = pipe(
        prompt_embeds=tensor(TEXT["text"]["tokens"]),
        negative_prompt_embeds=tensor(NO_TEXT["text"]["tokens"]),
        num_inference_steps=N,
        guidance_scale=scale,
        callback_on_step_end=callback,
        latents=torch.tensor(X),
        output_type="latent",
    ).images.numpy()
    # Schedulers of sigmas scale the noise that they are given, and hold x / alpha.
    first = model.times(N)[0]
    in_sigmas = float(scheduler.init_noise_sigma) != 1.0
    start = X * (float(model.denoiser.schedule.alpha(first)) * float(scheduler.init_noise_sigma)
                 if in_sigmas else 1.0)  # fmt: skip
    close(ours(model, omega_of_text, TEXT, solver=solver, start=start), theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sd3_follows_learned_weights_classic_and_modular_also_when_loaded(shift, tmp_path):
    from diffusers.modular_pipelines.stable_diffusion_3 import StableDiffusion3AutoBlocks

    pipe = tiny.stable_diffusion_3(diffusers.FlowMatchEulerDiscreteScheduler(shift=shift))
    c = {**TEXT, "pooled": POOLED}
    model = brought(pipe, {**NO_TEXT, "pooled": NO_POOLED})
    expected = ours(model, omega_of_text, c)
    size = 8 * pipe.vae_scale_factor
    inputs = {
        "prompt_embeds": tensor(TEXT["text"]["tokens"]),
        "negative_prompt_embeds": tensor(NO_TEXT["text"]["tokens"]),
        "pooled_prompt_embeds": tensor(POOLED),
        "negative_pooled_prompt_embeds": tensor(NO_POOLED),
        "num_inference_steps": N,
        "height": size,
        "width": size,
        "latents": torch.tensor(X),
    }
    scale, callback = exchange.guidance_callback(omega_of_text, pipe, N, c)
    classic = pipe(
        **inputs, guidance_scale=scale, callback_on_step_end=callback, output_type="latent"
    ).images.numpy()
    close(classic, expected)

    guider = exchange.LearnedGuidance.of(omega_of_text, pipe.scheduler, N, c)
    guider.save_pretrained(tmp_path)
    for each in (guider, exchange.LearnedGuidance.from_pretrained(tmp_path)):
        blocks = StableDiffusion3AutoBlocks()
        for name in ("text_encoder", "vae_encoder"):
            blocks.sub_blocks.pop(name)
        modular = blocks.init_pipeline()
        modular.update_components(
            transformer=pipe.transformer, vae=pipe.vae, scheduler=pipe.scheduler, guider=each
        )
        close(modular(**inputs, output="latents").numpy(), expected)


def test_a_pipeline_with_labels_follows_learned_weights_by_its_argument():
    pipe, labels = tiny.class_conditional(), [1, 7]
    model = exchange.load(pipe)
    c = model.conditions(labels)

    def omega(*, s, t, c):
        return 2.0 * t - s - 0.1 * c

    scale = exchange.guidance_argument(omega, pipe, N, c)
    for _ in range(2):  # the argument begins again
        theirs = pipe(labels, guidance_scale=scale, generator=torch.Generator().manual_seed(3),
                      num_inference_steps=N, output_type="np").images  # fmt: skip
        start = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(3)).numpy()
        images = model.decode(ours(model, omega, c, start=start))
        close(0.5 * images + 0.5, theirs)


def test_texts_are_encoded_once_and_guidance_is_learned_on_latents(tmp_path):
    pipe = tiny.with_texts()
    model = exchange.load(pipe, cache=tmp_path / "cache")
    c = model.conditions(["a cat", "a dog", "a cat"])
    np.testing.assert_array_equal(c["text"]["tokens"][0], c["text"]["tokens"][2])
    pipe.save_pretrained(tmp_path / "pipe")

    again = exchange.load(tmp_path / "pipe", cache=tmp_path / "cache")
    again.prompts._encode = None  # what was encoded is not encoded again
    np.testing.assert_array_equal(again.conditions(["a dog"])["text"]["tokens"][0],
                                  c["text"]["tokens"][1])  # fmt: skip

    images = RNG.uniform(-1.0, 1.0, size=(3, 16, 16, 3)).astype(np.float32)
    latents = model.encode(images)
    with torch.no_grad():
        mean = pipe.vae.encode(torch.tensor(images).permute(0, 3, 1, 2)).latent_dist.mean
    close(latents, ((mean - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor).numpy())
    guidance = lgd.learn_guidance(
        jax.random.key(0), model.denoiser, model.params, np.repeat(latents, 8, axis=0),
        jax.tree.map(lambda leaf: np.repeat(leaf, 8, axis=0), c),
        objective=lgd.objectives.SelfConsistency(),
        start={"constant(1)": lgd.guidance.constant(1.0)},
        trainer=lgd.training.Trainer(
            optimizer=lgd.training.Optimizer(num_steps=2), batch_size=8, progress=False,
            check=False),
    )  # fmt: skip
    scales = exchange.cfg_scales(guidance, pipe.scheduler, N, c)
    assert scales.shape == (N, 3)
    assert np.isfinite(scales).all()


def edm():
    return diffusers.EDMEulerScheduler()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: exchange.load(tiny.sd3()), "pipeline: expected one of StableDiffusionPipeline"),
        (lambda: exchange.load("no/such/folder"), "expected a folder with model_index.json"),
        (lambda: exchange.load(tiny.class_conditional(), null=None).conditions(["a cat"]),
         r"expected labels \(b,\)"),
        (lambda: exchange.load(tiny.stable_diffusion()).conditions(["a cat"]),
         "expected .*text_encoder.* to encode texts, got none"),
        (lambda: exchange.load(tiny.stable_diffusion()).conditions("a cat"),
         "expected a list of texts"),
        (lambda: exchange.load(tiny.stable_diffusion(), null=3), "null: expected none"),
        (lambda: exchange.load(tiny.class_conditional()).encode(np.zeros((1, 3, 16, 16))),
         r"images: expected floats \(b, h, w, 3\)"),
        (lambda: exchange.times_of(diffusers.PNDMScheduler(**SD, skip_prk_steps=True), N),
         "PNDMScheduler: expected times that decrease"),
        (lambda: exchange.times_of(diffusers.DDIMScheduler(timestep_spacing="linspace"), N),
         "DDIMScheduler: expected timesteps 200 apart, by which it steps"),
        (lambda: exchange.schedule_of("ddim"), "scheduler: expected one of diffusers"),
        (lambda: exchange.guidance_callback(omega_of_text, tiny.class_conditional(), N, TEXT),
         "use guidance_argument"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(act, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words) as refused:
        act()
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "settings",
    [{}, SD, {"beta_schedule": "squaredcos_cap_v2"}, {**SD, "rescale_betas_zero_snr": True}],
)
def test_noise_levels_are_those_of_the_scheduler(settings):
    scheduler = diffusers.DDIMScheduler(**settings)
    config = scheduler.config
    levels = jnp.arange(config.num_train_timesteps)
    t = lgd.schedules.time_of(levels, config.num_train_timesteps)
    named = lgd.schedules.discrete(
        betas=config.beta_schedule, beta_start=config.beta_start, beta_end=config.beta_end,
        zero_terminal_snr=config.rescale_betas_zero_snr,
    )  # fmt: skip
    squares = scheduler.alphas_cumprod.numpy()
    for schedule in (named, exchange.schedule_of(scheduler)):
        np.testing.assert_allclose(schedule.alpha(t), np.sqrt(squares), atol=4e-6)
        np.testing.assert_allclose(schedule.sigma(t), np.sqrt(1.0 - squares), atol=4e-6)
        np.testing.assert_allclose(schedule.t_from_logsnr(schedule.logsnr(t)), t, atol=1e-6)
    np.testing.assert_array_equal(exchange.timestep_of(scheduler, t), levels)


def test_edm_ends_in_its_smallest_sigma_and_then_data():
    scheduler = edm()
    times, schedule = exchange.times_of(scheduler, N), exchange.schedule_of(scheduler)
    copy = edm()
    copy.set_timesteps(N)
    np.testing.assert_allclose(schedule.sigma(times[:-1]), copy.sigmas[:-1], rtol=1e-5)
    np.testing.assert_allclose(
        exchange.timestep_of(scheduler, times[:-1]), copy.timesteps, atol=1e-5
    )
    assert times[-1] == 0.0


def test_a_guider_is_a_file_of_numbers(tmp_path):
    exchange.LearnedGuidance([900.0, 100.0], [2.0, 4.0]).save_pretrained(tmp_path)
    held = json.loads((tmp_path / "guider_config.json").read_text())
    assert (held["timesteps"], held["scales"]) == ([900.0, 100.0], [2.0, 4.0])
    with pytest.raises(ValueError, match="decreasing timesteps and as many scales"):
        exchange.LearnedGuidance([1.0, 2.0], [2.0, 4.0])
