"""Time, memory and operations of SgMg, or SOC: a forward pass, and a training step.

    python -m sgmg_jax.benchmarks.step
    python -m sgmg_jax.benchmarks.step --model=soc
    python -m sgmg_jax.benchmarks.step --backbone=base --batch 1 8 16 --dtype=bfloat16      # on an accelerator

Each mode runs in a process of its own, since memory peaks are per process; the batches in rising order, each of which
then has the highest peak so far. One that does not fit the device ends its mode. Random weights, RoBERTa-base, AdamW;
frames are padded to multiples of 16 for SgMg's forward pass, as the release does it, not at all for SOC's, and of 32
in training.

`first` is the first step with its compilation: the cache of compiled programs is off, also for the sake of `memory`,
which on a CPU includes what compiling takes. Operations are XLA's count for the program as it is written, and their
rate is given as a part of what a large matrix product of the same type reaches on the device: the nearer to 100 %, the
less is lost to memory traffic and launches. The count is made by JAX's CPU backend: a JAX_PLATFORMS in the environment
must name it too (cuda,cpu). XLA counts a loop's body once: on a CPU, where the windows of the backbone and the
feed-forward layers go through in loops, both figures are too low, and left out.
"""
import argparse
from collections.abc import Callable, Iterator, Sequence
import functools
import importlib
import json
import statistics
import sys
import time
import typing

from ml_collections import ConfigDict
import numpy as np

from sgmg_jax import commands
from sgmg_jax import config as configs
from sgmg_jax.benchmarks import machine

if typing.TYPE_CHECKING:
    from sgmg_jax import types

# What systems.SYSTEMS and video_swin.SIZES have, so that --help need not import them.
MODELS = {'sgmg': 'SgMg', 'fast_sgmg': 'FastSgMg', 'soc': 'SOC'}
BACKBONES = 'tiny', 'small', 'base', 'demo'
SMALLEST = 129  # pixels a side of a frame of SgMg
MOST_TOKENS = 512  # of RoBERTa-base
OPTIMIZER = ConfigDict(dict(batch_size=8, learning_rate=1e-4, groups=(('video_encoder/.*', 5e-5),),
                            freeze=('text_backbone/.*',), weight_decay=5e-4, clip_norm=0.1, warmup_steps=0,
                            drop_steps=()))


def make_example(options: argparse.Namespace, multiple: int, clips: int = 1) -> 'types.Example':
    """Random clips with one object each."""
    from sgmg_jax import types
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


def prepare(options: argparse.Namespace, batch: int) -> tuple:
    """The compiled step of options.mode with so many clips a device; a function without arguments that runs it to its
    end; the step itself with its arguments, for `count_operations`.

    Raises:
        ValueError: for devices that are not there, or are not a multiple of options.fsdp.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from sgmg_jax import compilation, sharding, systems
    from sgmg_jax.models import roberta, video_swin
    from sgmg_jax.ops import queries
    from sgmg_jax.training import optimizer as optimizers
    from sgmg_jax.training import step as steps
    devices = machine.devices(options.devices)
    if len(devices) % options.fsdp:
        raise ValueError(f'--fsdp={options.fsdp}: must divide {len(devices)}, the number of devices.')
    system = systems.SYSTEMS[options.model]
    model = system.module(backbone=video_swin.SIZES[options.backbone], text_encoder=roberta.SIZES['base'],
                          remat=options.remat, dtype=jnp.dtype(options.dtype))
    mesh = sharding.make_mesh(options.fsdp, devices)
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


def count_operations(step: Callable, *arguments) -> float:
    """XLA's count of floating-point operations in a function of arrays, as it is written.

    In a program compiled for a GPU the matrix products are calls of a library, which count as none.

    Raises:
        ValueError: JAX_PLATFORMS leaves out the CPU.
    """
    import jax
    from jax.sharding import SingleDeviceSharding

    from sgmg_jax import compilation
    cpu = SingleDeviceSharding(machine.cpu())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cpu), arguments)
    return compilation.jit(step).lower(*shapes).cost_analysis()['flops']


def measure(options: argparse.Namespace, batch: int, rate: float | None) -> dict | None:
    """What a row of the table says, and the machine in words: seconds, bytes, operations of one device and their share
    of its rate, a second (without a rate, None: XLA's count is none). None: the device's memory is too small."""
    for module in ('systems', 'training.step'):  # Importing is no part of the first step.
        importlib.import_module(f'sgmg_jax.{module}')
    started = time.perf_counter()
    try:
        with machine.fitting():
            _, run, program = prepare(options, batch)
            run()
    except machine.TooLarge:
        return None
    first = time.perf_counter() - started
    times = machine.seconds(run, options.runs)
    median = statistics.median(times)
    devices = len(machine.devices(options.devices))
    operations = count_operations(*program) / devices if rate else None
    clips = batch * devices
    return {'machine': machine.describe(), 'first': first, 'median': median, 'fastest': min(times),
            'slowest': max(times), 'peak': machine.peak_memory(), 'clips': clips / median,
            'frames': clips * options.frames / median, 'operations': operations,
            'share': operations / median / rate if rate else None}


def in_a_process(mode: str, arguments: Sequence[str]) -> Iterator[dict | None]:
    """What `measure` says there, batch by batch; stops after the first that does not fit. Raises as `lines_of`."""
    yield from map(json.loads, machine.lines_of(['-m', 'sgmg_jax.benchmarks.step', *arguments, f'--mode={mode}']))


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """The arguments that say how large a clip is, and of which type its numbers."""
    parser.add_argument('--backbone', default='tiny', choices=BACKBONES)
    parser.add_argument('--frames', type=commands.whole(1, 1000), default=5, metavar='T', help='default: %(default)s')
    for name, default in (('height', 360), ('width', 640)):
        parser.add_argument(f'--{name}', type=commands.whole(16, 8192), default=default, metavar='PIXELS',
                            help='of a frame (default: %(default)s)')
    parser.add_argument('--tokens', type=commands.whole(1, MOST_TOKENS), default=16, metavar='L',
                        help='of a sentence (default: %(default)s)')
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])


def check_sizes(options: argparse.Namespace, model: str, clips: int = 1) -> None:
    """Raises ValueError for frames that are too small for the model, or too much for any device."""
    height, width = options.height, options.width
    if model != 'soc' and min(height, width) < SMALLEST:
        raise ValueError(f'--height={height} --width={width}: frames of SgMg must have at least {SMALLEST} pixels a '
                         'side.')
    pixels = clips * options.frames * height * width
    if pixels > configs.MOST_PIXELS:
        raise ValueError(f'{clips} clip(s) of --frames={options.frames} --height={height} --width={width} have '
                         f'{pixels:,} pixels, must be at most {configs.MOST_PIXELS:,}.')


def only_batch(options: argparse.Namespace) -> int:
    """The number of --batch. Raises ValueError if there are several."""
    if len(options.batch) > 1:
        raise ValueError(f'--batch {" ".join(map(str, options.batch))}: give one number of clips a device.')
    return options.batch[0]


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of a command that measures steps: this one, or another with the same options."""
    # No abbreviations: what is passed on to other processes would be ambiguous there.
    parser = commands.make_parser(f'python -m sgmg_jax.benchmarks.{name}', description, allow_abbrev=False)
    parser.add_argument('--model', default='sgmg', choices=MODELS)
    add_sizes(parser)
    parser.add_argument('--batch', type=commands.whole(1, 2 ** 20), nargs='+', default=[1], metavar='B',
                        help='clips a device; benchmarks.step takes several, one after the other (default: 1)')
    count = commands.whole(1, 2 ** 16)
    parser.add_argument('--fsdp', type=count, default=1, metavar='N', help='devices that share a copy of the '
                        'parameters (default: %(default)s)')
    parser.add_argument('--devices', type=count, metavar='N', help='only so many (default: all)')
    parser.add_argument('--remat', action='store_true',
                        help='recompute the blocks of backbone and transformer in the backward pass')
    parser.add_argument('--runs', type=commands.whole(1, 10 ** 6), default=5, metavar='N',
                        help='timed runs after one to warm up (default: %(default)s)')
    return parser


def describe(options: argparse.Namespace) -> str:
    return (f'{MODELS[options.model]}, Video-Swin {options.backbone}, {options.frames} frames of '
            f'{options.height}x{options.width}, {options.dtype}{", remat" if options.remat else ""}')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser('step', __doc__)
    parser.add_argument('--mode', choices=['forward', 'train'], help='only this one, in this process, as JSON')
    arguments = list(sys.argv[1:] if argv is None else argv)
    return commands.exit_with(functools.partial(_work, arguments), parser, arguments)


def _work(arguments: Sequence[str], options: argparse.Namespace) -> None:
    check_sizes(options, options.model, max(options.batch))
    if options.mode:
        machine.compile_anew()
        # Before a model is there, so that the product's memory is not in its peak.
        rate = None
        if machine.devices(options.devices)[0].platform != 'cpu':
            machine.cpu()  # Without it operations cannot be counted; better known now than after the steps.
            rate = machine.matmul_rate(options.dtype)
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
    sys.exit(main())
