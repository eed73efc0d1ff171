"""Time, memory and operations of SgMg, or SOC: a forward pass, and a training step.

    python -m sgmg_jax.benchmarks.step
    python -m sgmg_jax.benchmarks.step --model=soc
    python -m sgmg_jax.benchmarks.step --backbone=base --batch 1 8 16 --dtype=bfloat16      # on an accelerator

Each mode runs in a process of its own, since memory peaks are per process; the batches in rising order, each of which
then has the highest peak so far. One that does not fit the device ends its mode. Random weights, RoBERTa-base, AdamW;
frames are padded to multiples of 16 for SgMg's forward pass, as the release does it, not at all for SOC's, and of 32
in training.

`first` is the first step with its compilation. Operations are XLA's count for the program as it is written, and their
rate is given as a part of what a large matrix product of the same type reaches on the device: the nearer to 100 %, the
less is lost to memory traffic and launches. The count is made by JAX's CPU backend: a JAX_PLATFORMS in the environment
must name it too (cuda,cpu). XLA counts a loop's body once: on a CPU, where the windows of the backbone and the
feed-forward layers go through in loops, both figures are too low, and left out.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from ml_collections import ConfigDict
import numpy as np

from sgmg_jax import compilation, sharding, systems, types
from sgmg_jax.benchmarks import machine
from sgmg_jax.models import roberta, video_swin
from sgmg_jax.ops import queries
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training import step as steps

OPTIMIZER = ConfigDict(dict(batch_size=8, learning_rate=1e-4, groups=(('video_encoder/.*', 5e-5),),
                            freeze=('text_backbone/.*',), weight_decay=5e-4, clip_norm=0.1, warmup_steps=0,
                            drop_steps=()))


def make_example(options, multiple, clips=1):
    """Random clips with one object each."""
    height, width = (-(-n // multiple) * multiple for n in (options.height, options.width))
    shape = (clips, options.frames, height, width)
    rng = np.random.default_rng(0)
    valid = np.zeros(shape, bool)
    valid[:, :, :options.height, :options.width] = True
    frames = rng.standard_normal((*shape, 3), dtype=np.float32) * valid[..., None]
    masks = np.zeros(shape, bool)
    masks[:, :, 60:200, 100:300] = True
    box = np.array([200 / options.width, 130 / options.height, 200 / options.width, 140 / options.height])
    clip = types.Clip(frames, valid, np.full((clips, 2), (options.height, options.width), np.int32))
    text = types.Text(rng.integers(3, 50000, (clips, options.tokens)).astype(np.int32),
                      np.ones((clips, options.tokens), bool))
    present = np.ones(shape[:2], bool)
    boxes = np.broadcast_to(box.astype(np.float32), (*shape[:2], 4))
    return types.Example(clip, text, types.Targets(masks, boxes, present, clip.size, present[:, 0]))


def prepare(options, batch):
    """The compiled step of options.mode with so many clips a device; a function without arguments that runs it to its
    end; the step itself with its arguments, for `count_operations`."""
    system = systems.SYSTEMS[options.model]
    model = system.module(backbone=video_swin.SIZES[options.backbone], text_encoder=roberta.SIZES['base'],
                          remat=options.remat, dtype=jnp.dtype(options.dtype))
    mesh = sharding.make_mesh(options.fsdp, jax.devices()[:options.devices])
    clips = batch * mesh.size
    config = ConfigDict(dict(optimizer=OPTIMIZER, data=dict(batch_size=clips), ema_decay=0.0))
    init, optimizer, _ = steps.init_state(model, config)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(init, jax.random.key(0))
    trainable, frozen = ({name: np.float32(0.02) * rng.standard_normal(x.shape, np.float32) for name, x in part.items()}
                         for part in (shapes.trainable, shapes.frozen))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def forward(parameters, example):
        return model.apply({'params': parameters}, example.clip, example.text, queries.best_query)[2].masks

    with jax.set_mesh(mesh):
        multiple = model.conventions.pixels if options.mode == 'forward' else 32
        example = sharding.global_batch(mesh, make_example(options, multiple, clips))
        if options.mode == 'forward':
            parameters = jax.device_put(optimizers.merge(trainable, frozen), everywhere)
            compiled = compilation.jit(forward).lower(parameters, example).compile()
            return (compiled, lambda: jax.block_until_ready(compiled(parameters, example)),
                    (forward, parameters, example))
        train_step = steps.make_train_step(model, system, optimizer, 0)
        shardings = sharding.parameter_shardings(mesh, shapes)
        state = jax.device_put(
            steps.TrainState(np.zeros((), np.int32), trainable, frozen, {}, optimizer.init(trainable)), shardings)
        compiled = compilation.jit(train_step, donate_argnums=0, out_shardings=(shardings, everywhere)).lower(
            state, example).compile()

    def run():
        nonlocal state
        state, metrics = compiled(state, example)
        jax.block_until_ready((state, metrics))

    return compiled, run, (train_step, state, example)


def count_operations(step, *arguments):
    """XLA's count of floating-point operations in a function of arrays, as it is written.

    In a program compiled for a GPU the matrix products are calls of a library, which count as none.
    """
    cpu = SingleDeviceSharding(jax.devices('cpu')[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cpu), arguments)
    return compilation.jit(step).lower(*shapes).cost_analysis()['flops']


def measure(options, batch, rate):
    """What a row of the table says, and the machine in words: seconds, bytes, operations of one device and their share
    of its rate, a second (without a rate, None: XLA's count is none). None: the device's memory is too small."""
    started = time.perf_counter()
    try:
        _, run, program = prepare(options, batch)
        run()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return None
    first = time.perf_counter() - started
    times = machine.seconds(run, options.runs)
    median = statistics.median(times)
    devices = options.devices or jax.device_count()
    operations = count_operations(*program) / devices if rate else None
    clips = batch * devices
    return {'machine': machine.describe(), 'first': first, 'median': median, 'fastest': min(times),
            'slowest': max(times), 'peak': machine.peak_memory(), 'clips': clips / median,
            'frames': clips * options.frames / median, 'operations': operations,
            'share': operations / median / rate if rate else None}


def in_a_process(mode, arguments):
    """What `measure` says there, batch by batch; stops after the first that does not fit."""
    command = [sys.executable, '-m', 'sgmg_jax.benchmarks.step', *arguments, f'--mode={mode}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def parse(parser, argv):
    """Adds the options to a parser of argparse; returns their values, and what to pass on to `in_a_process`."""
    parser.add_argument('--model', default='sgmg', choices=systems.SYSTEMS)
    parser.add_argument('--backbone', default='tiny', choices=video_swin.SIZES)
    parser.add_argument('--frames', type=int, default=5, help='T (default: %(default)s)')
    parser.add_argument('--height', type=int, default=360)
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--tokens', type=int, default=16, help='L (default: %(default)s)')
    parser.add_argument('--batch', type=int, nargs='+', default=[1], metavar='B',
                        help='clips a device; several are measured one after the other (default: 1)')
    parser.add_argument('--fsdp', type=int, default=1, help='devices that share a copy of the parameters')
    parser.add_argument('--devices', type=int, help='only so many (default: all)')
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
    parser.add_argument('--remat', action='store_true',
                        help='recompute the blocks of backbone and transformer in the backward pass')
    parser.add_argument('--runs', type=int, default=5, help='timed runs after one to warm up (default: %(default)s)')
    parser.add_argument('--mode', choices=['forward', 'train'], help='only this one, in this process, as JSON')
    arguments = sys.argv[1:] if argv is None else list(argv)
    return parser.parse_args(arguments), arguments


def describe(options):
    name = systems.SYSTEMS[options.model].module.__name__
    return (f'{name}, Video-Swin {options.backbone}, {options.frames} frames of {options.height}x{options.width}, '
            f'{options.dtype}{", remat" if options.remat else ""}')


def main(argv=None):
    options, arguments = parse(argparse.ArgumentParser(
        prog='python -m sgmg_jax.benchmarks.step', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter), argv)
    if options.mode:
        # Before a model is there, so that the product's memory is not in its peak.
        rate = None if jax.default_backend() == 'cpu' else machine.matmul_rate(options.dtype)
        for batch in sorted(options.batch):
            row = measure(options, batch, rate)
            print(json.dumps(row), flush=True)
            if row is None:
                break
        return
    print(describe(options))
    print(f'{"":8}{"batch":>6}{"median":>10}{"fastest":>10}{"slowest":>10}{"first":>10}{"clips/s":>9}{"frames/s":>10}'
          f'{"memory":>11}{"operations":>13}{"of peak":>9}')
    where = None
    for mode in ('forward', 'train'):
        # In this order zip asks for a row after the last, and so sees whether the process ended well.
        for row, batch in zip(in_a_process(mode, arguments), sorted(options.batch)):
            if row is None:
                print(f'{mode:8}{batch:>6}  does not fit the memory of the device')
                continue
            where, known = row['machine'], row['operations'] is not None
            print(f'{mode:8}{batch:>6}'
                  + ''.join(f'{row[k]:>8.3f} s' for k in ('median', 'fastest', 'slowest', 'first'))
                  + f'{row["clips"]:>9.3f}{row["frames"]:>10.2f}{row["peak"] / 2 ** 30:>7.2f} GiB'
                  + (f'{row["operations"] / 1e12:>9.3f} TFL{row["share"]:>9.1%}' if known else f'{"-":>13}{"-":>9}'),
                  flush=True)
    if where:
        print(where)


if __name__ == '__main__':
    main()
