"""The same numbers on one device, on eight in every mesh, and in two processes."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

import numpy as np
import pytest
import small

from sgmg_jax import checkpoints, files
from sgmg_jax.benchmarks import accidents

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 4

# Four training steps of the whole model, dropout on, on eight virtual devices; in two parts a step, on four of them:
# then without dropout, which each part draws anew, and against whole batches on one device.
PROGRAM = """
    import functools, re, sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    import small
    from sgmg_jax import compilation, sharding, systems, types
    from sgmg_jax.losses import matching
    from sgmg_jax.training import optimizer as optimizers, step as steps

    assert jax.device_count() == 8
    name, E, accumulate, *meshes = sys.argv[1], *(int(x) for x in sys.argv[2:])
    config = small.small_config('')
    config.ema_decay = 0.5
    config.model.name = name
    config.model.update(dict(dropout=0.1, text_dropout=0.1, drop_path=0.2) if accumulate == 1 else
                        dict(dropout=0.0, text_dropout=0.0, drop_path=0.0))
    config.model.hidden = 64  # with 32 every channel is a group of its norm, and a ReLU has its kink at its mean
    config.model.decoder_layers = 1  # a second one exchanges nothing that the first does not, and takes long to compile
    if name == 'soc':
        config.model.update(hidden=128, cluster_encoder_layers=1, cluster_decoder_layers=1, cluster_mlp=32)
        only_sgmg = 'box_refinement', 'relative_coordinates', 'fusion', 'labels', 'optimizer', 'feature_decoder'
        for field in only_sgmg:
            del config.model[field]
    config.data.batch_size = B = 8
    model, system = systems.build_model(config.model), systems.SYSTEMS[name]
    rng = np.random.default_rng(0)
    T, S, N = 2, 80, B * E
    valid = np.ones((B, T, S, S), bool)
    valid[1, :, 70:] = False
    size = np.full((B, 2), 80, np.int32)
    size[1, 0] = 70
    lengths = np.resize([6, 3, 5, 4, 2, 0 if E > 1 else 1, 6, 2], N)[:, None]

    def batch():
        clip = types.Clip(rng.standard_normal((B, T, S, S, 3), dtype=np.float32), valid, size)
        text = types.Text(rng.integers(3, 20, (N, 6)).astype(np.int32), np.arange(6)[None] < lengths)
        targets = types.Targets(
            rng.random((N, T, S, S)) < .3, rng.uniform(.2, .6, (N, T, 4)).astype(np.float32), rng.random((N, T)) < .8,
            np.repeat(size, E, axis=0), lengths[:, 0] > 0)
        return types.Example(clip, text, targets)

    batches = [batch() for _ in range(4)]
    init, optimizer, _ = steps.init_state(model, config)
    shapes = jax.eval_shape(init, jax.random.key(0))
    trainable = {path: (rng.normal(0, 0.05, x.shape) + path.endswith('scale')).astype(np.float32)
                 for path, x in shapes.trainable.items()}
    begin = lambda: steps.TrainState(jnp.zeros((), jnp.int32), trainable, {}, trainable, optimizer.init(trainable))
    whole, step = (functools.partial(steps.make_train_step(model, system, optimizer, parts, ema_decay=0.5), seed=0)
                   for parts in (1, accumulate))

    def run(function, state, place):
        losses = []
        for batch in batches:
            state, metrics = function(state, place(batch))
            losses.append((metrics['loss'], metrics['gradient_norm']))
        return np.array(losses), jax.device_get((state.trainable, state.average))

    expected, parameters = run(compilation.jit(whole), begin(), lambda batch: batch)
    shapes_known, numbers = {x.shape for x in trainable.values()}, sum(x.size for x in trainable.values())
    for shards in meshes:
        mesh = sharding.make_mesh(shards, jax.devices()[:8 // accumulate])
        shardings = sharding.parameter_shardings(mesh, shapes)
        assert any(not x.is_fully_replicated for x in jax.tree.leaves(shardings)) == (shards > 1)
        with jax.set_mesh(mesh):
            state = jax.device_put(begin(), shardings)
            place = lambda batch: sharding.global_batch(mesh, batch)
            compiled = compilation.jit(step, out_shardings=(shardings, NamedSharding(mesh, PartitionSpec()))).lower(
                state, place(batches[0])).compile()
            losses, ours = run(compiled, state, place)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), ours, parameters)

        # Parameters may be gathered, gradients are summed once, nothing else goes from device to device.
        program = compiled.as_text()
        assert (' fft(' in program) == (name != 'soc')
        results = {kind: [[tuple(int(n) for n in shape.split(',') if n)
                           for shape in re.findall(r'[a-z]+[0-9]+\\[([0-9,]*)\\]', line)]
                          for line in re.findall(f'= (.*?) {kind}[(]', program)]
                   for kind in ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')}
        assert not results['reduce-scatter'] + results['all-to-all'] + results['collective-permute']
        assert bool(results['all-gather']) == (shards > 1)
        assert {shape for result in results['all-gather'] for shape in result} <= shapes_known
        summed = sum(np.prod(shape) for result in results['all-reduce'] for shape in result)
        # A little more, as attention's biases are summed by pairs of tokens, before they go to their tables.
        assert numbers * 0.9 < summed < numbers * 1.1, (summed, numbers)
        print('storage_shards', shards, np.abs(losses / expected - 1).max())

    if name == 'soc':  # several trajectories a clip, which no records have
        cost, real = rng.random((16, 2, 5, 3), np.float32), np.arange(3) < rng.integers(1, 4, (16, 1))
        match = lambda cost, real: matching.assign(jnp.moveaxis(cost, 0, 1), real).swapaxes(0, 1)
        with jax.set_mesh(mesh):
            split = sharding.global_batch(mesh, (cost, real))
            compiled = jax.jit(match).lower(*split).compile()
            np.testing.assert_array_equal(compiled(*split), match(cost, real))
        assert 'while' in compiled.as_text() and not re.search('all-|collective-', compiled.as_text())
    print('equal')
"""


@pytest.mark.parametrize(
    'arguments',
    [('sgmg', '1', '1', '8'), ('fast_sgmg', '2', '2', '2'), ('soc', '2', '1', '4')],
    ids=['sgmg', 'fast_sgmg in two parts', 'soc'],
)
def test_every_mesh_computes_alike(arguments):
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(PROGRAM), *arguments],
        text=True,
        capture_output=True,
        env=environment(8) | {'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])},
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.splitlines()[-1] == 'equal'


def environment(devices):
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
    return os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}


def run(script, config, workdir, devices, *flags_of_processes, status=0, meanwhile=lambda processes: None):
    """One process for each of the flags, together; waits for all, and returns what they said."""
    command = [sys.executable, script, *small.flags(config), f'--workdir={workdir}']
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile('w+')) for _ in flags_of_processes]
        processes = [
            subprocess.Popen([*command, *flags], cwd=ROOT, env=environment(devices), stdout=log, stderr=log)
            for flags, log in zip(flags_of_processes, logs)
        ]
        for process in processes:
            stack.callback(process.kill)
        meanwhile(processes)
        said = []
        for process, log in zip(processes, logs):
            process.wait()
            log.seek(0)
            said.append(log.read())
            assert process.returncode == status, said[-1][-4000:]
    return said


def together(count):
    """The flags of each of so many processes that find each other."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    return [
        (f'--coordinator=localhost:{port}', f'--process_count={count}', f'--process_index={i}') for i in range(count)
    ]


def lines(workdir):
    return [line for line in accidents.lines_of(workdir) if line['step'] <= STEPS]


def test_two_processes_train_and_evaluate_as_one(tiny_config, tmp_path):
    config = tiny_config
    config.update(steps=STEPS, log_every=1, eval_every=STEPS, checkpoint_every=STEPS, ema_decay=0.5)
    config.data.update(batch_size=8, valid_split='train')  # of three videos
    config.model.update(hidden=64, decoder_layers=1, dropout=0.1, text_dropout=0.1, drop_path=0.2)  # see above
    config.evaluation.videos = 3
    one, two = tmp_path / 'one', tmp_path / 'two'
    run('train.py', config, one, 1, [])

    def train_two(**options):
        return run(
            'train.py',
            config,
            two,
            4,
            *(['--config.storage_shards=2', '--config.steps=100', *flags] for flags in together(2)),
            **options,
        )

    def stop_the_second(processes):
        """At the beginning of the validation; it takes a second until both of them know."""
        while processes[1].poll() is None:
            if (two / 'metrics.jsonl').exists() and len(lines(two)) == STEPS:
                processes[1].send_signal(signal.SIGTERM)
                break
            time.sleep(0.1)

    with files.locked(two / '.lock', 'training'):
        refusals = train_two(status=2)
        assert any(f'process {os.getpid()} of' in said and 'is at work here' in said for said in refusals)
    stopped = train_two(status=128 + signal.SIGTERM, meanwhile=stop_the_second)
    saved = checkpoints.Checkpoints(two, read_only=True)
    last = saved.latest_step()
    assert last >= STEPS and all(f'stopped by SIGTERM; step {last} is saved' in said for said in stopped)
    ours, theirs = saved.read(STEPS), checkpoints.Checkpoints(one, read_only=True).read(STEPS)
    assert set(ours) == set(theirs)
    for path in ours:
        if path.startswith(('parameters', 'training/trainable')):
            # Of weights of about 0.1, in steps of AdamW, which divides small gradients by their own size.
            np.testing.assert_allclose(ours[path], theirs[path], rtol=0, atol=2e-5, err_msg=path)

    # Two evaluate what one wrote, and find what its validation did; one goes on with what two wrote.
    config.evaluation.split = 'train'
    run('evaluate.py', config, one, 4, *together(2))
    (path,) = one.glob('evaluation/*/scores.json')
    assert json.loads(path.read_text())['J&F'] == pytest.approx(lines(one)[-1]['valid/J&F'], rel=1e-5)
    run('train.py', config, two, 1, [f'--config.steps={last + 1}'])
    assert [line['step'] for line in accidents.lines_of(two) if 'loss' in line] == list(range(1, last + 2))
    assert [list(line) for line in lines(two)] == [list(line) for line in lines(one)]
    for ours, theirs in zip(lines(two), lines(one)):
        for name in theirs:
            # A pixel at the edge of a mask changes percents by 7e-4; a variance is of numbers in [0, 1].
            atol = 5e-8 if name.endswith('variance') else 2e-3 if name.startswith('valid/') else 0
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=atol, err_msg=name)
