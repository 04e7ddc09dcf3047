"""Eight fake devices, strict shapes, no stray precision: set before JAX starts.

What is compiled is kept in pytest's cache directory: most tests compile the programs of others.
"""

import collections
import os
import signal

import xla_flags

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = xla_flags.for_tests()
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it


def pytest_configure(config):
    """For this process by JAX's own settings, for those that tests start by the environment."""
    try:
        folder = config.cache.mkdir("jax")
    except (AttributeError, OSError):  # pytest without its cache, or nowhere to write
        return
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.hookimpl(tryfirst=True)  # before cases are left out by their markers
def pytest_collection_modifyitems(items):
    seen = collections.Counter()
    for item in items:
        if (marker := item.get_closest_marker("sampled")) is not None:
            test = item.nodeid.partition("[")[0]
            every, slow = (*marker.args, 2)[:2]
            turn, rest = divmod(seen[test], every)
            if rest:
                item.add_marker(pytest.mark.hour if (turn + rest - 1) % slow else pytest.mark.slow)
            seen[test] += 1


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests that compile much, compute little and compare up to rounding."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
