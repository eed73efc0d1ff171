"""Full float32 precision by default on accelerators too; the cache of compiled programs."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from sgmg_jax import compilation


@pytest.mark.parametrize(
    'set_by_user, expected', [(None, 'HIGHEST'), ('tensorfloat32', 'HIGH'), ('bfloat16', 'DEFAULT')]
)
def test_products_have_full_precision_unless_set_by_user(set_by_user, expected):
    x, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))

    def loss(x, kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return jnp.einsum('bhwc,bhwd->cd', y, y).sum()

    with jax.default_matmul_precision(set_by_user):
        program = compilation.jit(jax.grad(loss, (0, 1))).lower(x, kernel).as_text()
    products = [line for line in program.splitlines() if 'dot_general' in line or 'convolution' in line]
    assert len(products) >= 5
    assert all(
        f'precision = [{expected}, {expected}]' in line or f'<precision {expected}>' in line for line in products
    )


@pytest.fixture
def restored_settings():
    names = 'jax_compilation_cache_dir', 'jax_compilation_cache_max_size'
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    'set_by_user, expected',
    [
        ({}, 'home/.cache/sgmg_jax'),
        ({'XDG_CACHE_HOME': ''}, 'home/.cache/sgmg_jax'),
        ({'XDG_CACHE_HOME': 'fast'}, 'fast/sgmg_jax'),
        ({'JAX_COMPILATION_CACHE_DIR': 'mine'}, None),
        ({'JAX_COMPILATION_CACHE_DIR': ''}, None),
    ],
)
def test_programs_are_cached_in_the_users_cache_folder(tmp_path, monkeypatch, restored_settings, set_by_user, expected):
    monkeypatch.chdir(tmp_path)
    for name in ('JAX_COMPILATION_CACHE_DIR', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({'HOME': str(tmp_path / 'home')} | set_by_user).items():
        monkeypatch.setenv(name, value)
    jax.config.update('jax_compilation_cache_dir', 'before')
    compilation.keep_programs()
    if expected is None:  # JAX reads it by itself.
        assert jax.config.jax_compilation_cache_dir == 'before' and not list(tmp_path.iterdir())
    else:
        folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
        assert folder.is_dir() and (tmp_path / folder).parent == tmp_path / expected
        assert jax.config.jax_compilation_cache_max_size == 8 * 2**30  # bytes


def test_unwritable_cache_folder_is_ignored(tmp_path, monkeypatch, restored_settings):
    (tmp_path / 'file').touch()
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    jax.config.update('jax_compilation_cache_dir', 'before')
    compilation.keep_programs()
    assert jax.config.jax_compilation_cache_dir == 'before'


def test_cpu_programs_need_little_memory():
    """Of many products that could be computed in parallel, only a few are held at a time."""
    if jax.default_backend() != 'cpu':
        pytest.skip('needs a CPU')

    def of_many(x):
        return sum(jnp.sin(x @ (x + i)).sum() for i in range(16))

    x = jnp.ones((256, 256))
    ours, default = (
        compiled(of_many).lower(x).compile().memory_analysis().temp_size_in_bytes
        for compiled in (compilation.jit, jax.jit)
    )
    assert ours < default / 2


@pytest.mark.parametrize(
    'backend, version, warned',
    [('gpu', '0.10.2', True), ('gpu', '0.11.0', True), ('gpu', '0.11.2', False), ('cpu', '0.10.2', False)],
)
def test_slow_scatters_of_some_versions_are_warned_of_once(monkeypatch, caplog, backend, version, warned):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    monkeypatch.setattr(jax, '__version__', version)
    compilation._warn_of_slow_scatters.cache_clear()
    for _ in range(2):
        compilation.jit(lambda x: x)
    compilation._warn_of_slow_scatters.cache_clear()
    assert len([record for record in caplog.records if 'Install jax 0.11.2' in record.message]) == warned
