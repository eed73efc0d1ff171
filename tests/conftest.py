"""Settings of the test run, and fixtures that several packages use."""

import os

# Before any import of the package: checks the annotations of every call, including shapes.
from jaxtyping import install_import_hook

install_import_hook(['sgmg_jax', 'datasets'], 'beartype.beartype')

from absl import flags
from hypothesis import settings
import jax
import pytest
import small

from datasets import build
from sgmg_jax import synthetic as world

# The tests compile a lot and compute little. Without optimization they take a third less time, and XLA's older emitters
# compile a training step in a third less time again. Subprocesses inherit these flags.
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_backend_optimization_level=0'
if jax.__version_info__ < (0, 11):  # Later versions reject this flag.
    os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'

# Grain's worker processes do not start before absl flags are parsed.
flags.FLAGS.mark_as_parsed()

# The same examples in every run, however slow the machine.
settings.register_profile('seeded', derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile('seeded')


def pytest_configure(config):
    # Several tests, all workers and their subprocesses compile the same small programs.
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(config.cache.mkdir('jax'))
    jax.config.update('jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR'])


def pytest_collection_modifyitems(items):
    # Files that take minutes first, or one worker would run them at the end while the other is idle.
    long = [
        'test_documented_commands.py',
        'test_many_devices.py',
        'test_end_to_end.py',
        'test_multi_instance.py',
        'test_loop.py',
        'test_parity.py',
        'test_predictor.py',
        'test_components.py',
        'test_soc.py',
    ]
    items.sort(key=lambda item: long.index(item.path.name) if item.path.name in long else len(long))


@pytest.fixture(scope='session')
def world_records(tmp_path_factory):
    """The records of a tiny procedural world: 3 training and 2 validation videos."""
    root = tmp_path_factory.mktemp('world')
    world.write_dataset(root / 'raw', num_train=3, num_valid=2, num_frames=5, size=(80, 80))
    return build.build('ref_youtube_vos', root / 'raw', root / 'tfds')


@pytest.fixture
def tiny_config(world_records):
    return small.small_config(world_records)
