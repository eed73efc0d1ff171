"""Checkpoints of a small state: retention, restoring, detection of damage."""

import contextlib
import errno
import inspect
import json
import os
import re
import shutil
import types

from absl import logging
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest
import tokenizers

from sgmg_jax import checkpoints, checksums
from sgmg_jax.training import step as steps

CONFIG = {'seed': 3, 'data': {'records': ['a']}}
TOKENIZER, OTHER_TOKENIZER = (tokenizers.Tokenizer(tokenizers.models.WordLevel({'a': i}, 'a')) for i in range(2))


def make_state(step, seed=0, average=True):
    rng = np.random.default_rng(seed + step)

    def numbers(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    trainable = {'a/kernel': numbers(7, 5), 'a/bias': numbers(5), 'b/scale': numbers(3)}
    return steps.TrainState(
        jnp.int32(step),
        trainable,
        {'c/embedding': numbers(11, 2)},
        {path: numbers(*x.shape) for path, x in trainable.items()} if average else {},
        {'mu': {path: numbers(*x.shape) for path, x in trainable.items()}, 'finite': jnp.bool_(True)},
    )


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])),
        state,
    )


def save(folder, *states, scores=None):
    with contextlib.closing(checkpoints.Checkpoints(folder)) as saved:
        for i, state in enumerate(states):
            saved.save(state, CONFIG, TOKENIZER, scores[i] if scores else None)


@pytest.fixture
def opened(tmp_path):
    with contextlib.closing(checkpoints.Checkpoints(tmp_path, read_only=True)) as saved:
        yield saved


@pytest.mark.parametrize('average', [True, False])
def test_restored_training_state_has_the_trained_parameters(tmp_path, average):
    state = make_state(4, average=average)
    save(tmp_path, state)
    with contextlib.closing(checkpoints.Checkpoints(tmp_path, read_only=True)) as saved:
        restored = saved.restore(4, abstract(state))
        parameters = saved.restore_parameters(4, abstract(state.parameters()))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    # Evaluation uses the average if there is one.
    evaluated = state.average if average else state.trainable
    for path in state.trainable:
        np.testing.assert_array_equal(parameters[path], evaluated[path])
        assert average == bool((np.asarray(parameters[path]) != np.asarray(state.trainable[path])).any())


def test_the_best_and_the_last_two_are_kept(tmp_path):
    states = [make_state(step) for step in range(1, 8)]
    save(tmp_path, *states, scores=[10.0, 30.0, None, 20.0, 30.5, 5.0, None])
    with contextlib.closing(checkpoints.Checkpoints(tmp_path, read_only=True)) as saved:
        assert saved.all_steps() == [5, 6, 7] and saved.best_step() == 5 and saved.latest_step() == 7
        assert [saved.score(step) for step in (5, 6, 7)] == [30.5, 5.0, None]
        assert saved.restore_config(5) == CONFIG
        jax.tree.map(np.testing.assert_array_equal, saved.restore(5, abstract(states[4])), states[4])


def test_flipped_bits_are_detected(tmp_path):
    """In any file: either an error names the checkpoint, or the content read is unchanged."""
    state, rng = make_state(2), np.random.default_rng(0)
    save(tmp_path / 'whole', make_state(1), state)
    saved = tmp_path / 'whole' / 'checkpoints' / '2'
    every = sorted(path.relative_to(saved) for path in saved.rglob('*') if path.is_file())
    assert any('d' in path.parts for path in every)
    noticed = 0
    for number, file in enumerate(every):
        shutil.copytree(tmp_path / 'whole', tmp_path / 'damaged')
        path = tmp_path / 'damaged' / 'checkpoints' / '2' / file
        data = bytearray(path.read_bytes())
        for place in rng.integers(0, len(data), 3):
            data[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(data if number % 3 else data[: len(data) // 2])
        try:
            with contextlib.closing(checkpoints.Checkpoints(tmp_path / 'damaged', read_only=True)) as opened:
                restored, config = opened.restore(2, abstract(state)), opened.restore_config(2)
            jax.tree.map(np.testing.assert_array_equal, restored, state)
            assert config == CONFIG, file
        except ValueError as error:
            noticed += 1
            assert f'{tmp_path / "damaged" / "checkpoints" / "2"}: ' in str(error)
        shutil.rmtree(tmp_path / 'damaged')
    assert noticed >= 8


@pytest.mark.parametrize('item', ['parameters', 'metrics', 'checksums', '.'])
def test_a_pipe_in_a_checkpoint_is_refused(tmp_path, item):
    save(tmp_path, make_state(1), scores=[50.0])
    file = next(path for path in sorted((tmp_path / 'checkpoints' / '1' / item).rglob('*')) if path.is_file())
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match=rf'{re.escape(str(file))}: is a pipe, not a file'):
        checkpoints.Checkpoints(tmp_path, read_only=True)


@pytest.mark.parametrize('item', ['parameters', 'training', 'config'])
def test_weights_of_another_checkpoint_are_detected(tmp_path, opened, item):
    """All files are whole, but a folder was copied from another checkpoint."""
    save(tmp_path, make_state(1), make_state(2))
    folder = tmp_path / 'checkpoints' / '2' / item
    if item == 'config':
        content = json.loads((folder / 'metadata').read_text())
        (folder / 'metadata').write_text(json.dumps(content | {'seed': 4}))
    else:
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / 'checkpoints' / '1' / item, folder)
    opened._manager.reload()
    reason = 'config differs from what was written' if item == 'config' else f'differ from what was .* first {item}/'
    with pytest.raises(
        ValueError,
        match=rf'2: this checkpoint is damaged .*{reason}.*--checkpoint=1, or remove this '
        'folder: training then resumes from step 1',
    ):
        opened.restore(2, abstract(make_state(2)))
        opened.restore_config(2)


def test_the_order_of_config_fields_does_not_matter(tmp_path, opened):
    save(tmp_path, make_state(1))
    file = tmp_path / 'checkpoints' / '1' / 'config' / 'metadata'
    content = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(content.items()))))
    opened._manager.reload()
    assert list(content) != list(reversed(content)) and opened.restore_config(1) == CONFIG


def full_disk_of_orbax(*arguments, **options):
    try:
        raise OSError(errno.ENOSPC, 'No space left on device')
    except OSError as error:
        raise RuntimeError('a writer failed') from error


def full_disk_of_tensorstore(*arguments, **options):
    raise ValueError('RESOURCE_EXHAUSTED: Error writing: No space left on device')


@pytest.mark.parametrize('full_disk', [full_disk_of_orbax, full_disk_of_tensorstore, None])
def test_a_full_disk_keeps_whole_checkpoints_and_removes_partial_ones(tmp_path, monkeypatch, full_disk):
    save(tmp_path, make_state(1))
    with contextlib.closing(checkpoints.Checkpoints(tmp_path)) as saved:
        if full_disk:
            monkeypatch.setattr(saved._manager, 'save', full_disk)
        else:
            monkeypatch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=100))
        part = tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp'
        part.mkdir()
        (part / 'parameters').touch()
        with pytest.raises(OSError, match='no space left for a checkpoint .* last whole one .* step 1') as caught:
            saved.save(make_state(2), CONFIG, TOKENIZER)
        assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / 'checkpoints')
        assert not part.exists() and saved.all_steps() == [1]


def test_a_disk_that_fills_up_in_the_background(tmp_path, monkeypatch):
    """The next save says so; the checkpoint before stays whole, and the run can go on from it."""
    save(tmp_path, make_state(1))
    with contextlib.closing(checkpoints.Checkpoints(tmp_path)) as saved, monkeypatch.context() as patch:
        patch.setattr(checkpoints.ocp.StandardCheckpointHandler, 'finalize', full_disk_of_tensorstore)
        saved.save(make_state(2), CONFIG, TOKENIZER)
        with pytest.raises(OSError, match=r'filled up while writing\); the last whole one is step 1'):
            saved.save(make_state(3), CONFIG, TOKENIZER)
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['1']
    save(tmp_path, make_state(2))
    with contextlib.closing(checkpoints.Checkpoints(tmp_path, read_only=True)) as saved:
        assert saved.all_steps() == [1, 2]


def test_other_errors_of_a_save_are_raised(tmp_path, monkeypatch):
    with contextlib.closing(checkpoints.Checkpoints(tmp_path)) as saved:
        monkeypatch.setattr(saved._manager, 'save', lambda *arguments, **options: {}['key'])
        with pytest.raises(KeyError, match='key'):
            saved.save(make_state(2), CONFIG, TOKENIZER)


def test_checkpoints_without_checksums_are_read(tmp_path, opened, caplog):
    state = make_state(3)
    save(tmp_path, state)
    shutil.rmtree(tmp_path / 'checkpoints' / '3' / 'checksums')
    opened._manager.reload()
    with caplog.at_level('INFO'):
        jax.tree.map(np.testing.assert_array_equal, opened.restore(3, abstract(state)), state)
    assert 'without checksums' in caplog.text and opened.restore_config(3) == CONFIG
    opened.check_tokenizer(3, OTHER_TOKENIZER)


def test_another_tokenizer_is_refused(tmp_path, opened):
    save(tmp_path, make_state(3))
    opened._manager.reload()
    opened.check_tokenizer(3, TOKENIZER)
    with pytest.raises(ValueError, match=r'tokenizer.json: is not the tokenizer that the checkpoint of step 3'):
        opened.check_tokenizer(3, OTHER_TOKENIZER)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32', 'bool', 'uint8', 'float16'])
def test_every_flipped_bit_changes_the_checksum(dtype):
    rng = np.random.default_rng(0)
    x = np.asarray(jnp.asarray(rng.standard_normal((3, 5, 2)), dtype))
    before = checksums.of_arrays({'x': x})
    bits = x.view(f'u{x.itemsize}')
    for place in np.ndindex(x.shape):
        for bit in range(8 * x.itemsize if dtype != 'bool' else 1):
            changed = bits.copy()
            changed[place] ^= np.array(1 << bit, bits.dtype)
            assert checksums.of_arrays({'x': changed.view(x.dtype)}) != before
    assert checksums.of_arrays({'x': jnp.asarray(x)}) == before
    assert dtype == 'bool' or checksums.of_arrays({'x': x[::-1]}) != before


@pytest.mark.parametrize('shape', [(), (0, 3), (1,), (8,), (8, 3), (4, 6, 2, 3, 2, 2, 1)])
def test_the_checksum_does_not_depend_on_the_layout(shape):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    whole = checksums._sum_of_bits(x)
    mesh = jax.make_mesh((1,), ('data',), devices=jax.devices()[:1])
    assert checksums._sum_of_bits(jax.device_put(x, NamedSharding(mesh, PartitionSpec()))) == whole

    class Split:
        """An array with all parts in this process, one of them twice."""

        is_fully_addressable = False

        def __init__(self, parts):
            self.shape, self.dtype, self.addressable_shards = x.shape, x.dtype, parts

    class Part:
        def __init__(self, index, replica_id):
            self.index, self.replica_id, self.data = index, replica_id, x[index]

    if x.ndim and len(x) % 2 == 0:
        half = len(x) // 2
        rest = (slice(None),) * (x.ndim - 1)
        first = slice(0, half), *rest
        parts = [Part(first, 0), Part((slice(half, None), *rest), 0), Part(first, 1)]
        assert checksums._sum_of_bits(Split(parts)) == whole


def test_alarming_messages_of_orbax_are_hidden(tmp_path, caplog):
    """Its other warnings and our own messages are still logged."""
    caplog.set_level('INFO', logger='absl')
    save(tmp_path, make_state(1), scores=[50.0])
    with contextlib.closing(checkpoints.Checkpoints(tmp_path, read_only=True)) as saved:
        saved.read(1)
    assert not caplog.records
    of_orbax = compile('logging.warning("a warning"); logging.info("a step")', 'site-packages/orbax/x.py', 'exec')
    exec(of_orbax, {'logging': logging})
    logging.info('a message')
    assert [record.getMessage() for record in caplog.records] == ['a warning', 'a message']


def test_checksums_add_up_over_processes(monkeypatch):
    """Of an array whose rows lie in two processes, each of which also holds a replica of the other's."""
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)

    def part(mine):
        rows = [slice(0, 4), slice(4, 6)]
        shards = [
            types.SimpleNamespace(data=x[here], index=(here, slice(None)), replica_id=int(i != mine))
            for i, here in enumerate(rows)
        ]
        return types.SimpleNamespace(is_fully_addressable=False, shape=x.shape, addressable_shards=shards)

    parts = [part(0), part(1)]
    sums = np.array([[checksums._sum_of_bits(x)] for x in parts], np.uint32)
    assert sums.all()
    monkeypatch.setattr(checksums.multihost_utils, 'process_allgather', lambda mine: sums)
    unchecked = inspect.unwrap(checksums.of_arrays)  # These are no arrays.
    for x_of_process in parts:
        assert unchecked({'x': x_of_process}) == checksums.of_arrays({'x': x})
