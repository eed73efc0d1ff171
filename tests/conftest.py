"""Settings of the test run."""
import os

from absl import flags
from hypothesis import settings
import jax
import pytest
import small

from datasets import build
from sgmg_jax import synthetic as world

# The tests compile much and compute little: without optimisation a third less time, and by XLA's older way of writing
# fused operations another third of what a training step takes to compile. Processes that they start inherit it.
os.environ['XLA_FLAGS'] = (f'{os.environ.get("XLA_FLAGS", "")} --xla_backend_optimization_level=0 '
                           '--xla_cpu_use_fusion_emitters=false')

# Worker processes of grain refuse to start before absl flags are parsed.
flags.FLAGS.mark_as_parsed()

# The same examples in every run, however slow the machine.
settings.register_profile('seeded', derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile('seeded')


def pytest_configure(config):
    # The same small programs are compiled by several tests, by every worker, and by the processes that they start.
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(config.cache.mkdir('jax'))
    jax.config.update('jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR'])


def pytest_collection_modifyitems(items):
    # Files of minutes, the longest first: begun last, one worker would end with them while the other waits.
    long = ['test_benchmarks.py', 'test_many_devices.py', 'test_end_to_end.py', 'test_multi_instance.py',
            'test_loop.py', 'test_parity.py', 'test_predict.py', 'test_components.py', 'test_soc.py']
    items.sort(key=lambda item: long.index(item.path.name) if item.path.name in long else len(long))


@pytest.fixture(scope='session')
def world_records(tmp_path_factory):
    """A tiny procedural world, built: 3 videos to train on, 2 to validate."""
    root = tmp_path_factory.mktemp('world')
    world.write_dataset(root / 'raw', num_train=3, num_valid=2, num_frames=5, size=(80, 80))
    return build.build('ref_youtube_vos', root / 'raw', root / 'tfds')


@pytest.fixture
def tiny_config(world_records):
    return small.small_config(world_records)
