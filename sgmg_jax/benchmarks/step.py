"""Time, memory and FLOPs of a forward pass and of a training step, of SgMg or SOC.

    python -m sgmg_jax.benchmarks.step
    python -m sgmg_jax.benchmarks.step --model=soc
    python -m sgmg_jax.benchmarks.step --backbone=base --batch 1 8 16 --dtype=bfloat16      # on an accelerator

Each mode runs in its own process, because peak memory is per process, with batches in increasing order, so that each
one sets a new peak. A batch that does not fit the device ends its mode. Random weights, RoBERTa-base, AdamW. Frames are
padded to multiples of 32 in training; in a forward pass to multiples of 16 for SgMg, as in its release, and not at all
for SOC.

`first` is the first step including compilation. The compilation cache is off, also because of `memory`, which on a CPU
includes the memory of compilation. `operations` are the FLOPs of matrix products, convolutions and FFTs as written. `of
peak` is FLOP/s divided by that of a large matmul in the same dtype; the rest is lost to memory traffic and launches.
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
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from sgmg_jax import commands
from sgmg_jax import config as configs
from sgmg_jax.benchmarks import machine, operations

if typing.TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh

    from sgmg_jax import types

# Copies of systems.SYSTEMS and video_swin.SIZES: --help does not import them.
MODELS = {'sgmg': 'SgMg', 'fast_sgmg': 'FastSgMg', 'soc': 'SOC'}
BACKBONES = 'tiny', 'small', 'base', 'demo', 'pocket'
SMALLEST = 129  # pixels, the shortest side of a frame of SgMg
MOST_TOKENS = 512  # of RoBERTa-base
OPTIMIZER = ConfigDict(
    dict(
        batch_size=8,
        learning_rate=1e-4,
        groups=(('video_encoder/.*', 5e-5),),
        freeze=('text_backbone/.*',),
        weight_decay=5e-4,
        clip_norm=0.1,
        warmup_steps=0,
        drop_steps=(),
    )
)


def padded(options: argparse.Namespace, multiple: int, clips: int = 1) -> tuple[int, int, int, int]:
    """The shape [B T H W] of a batch of clips that is padded to a multiple of so many pixels."""
    return (clips, options.frames, *(-(-n // multiple) * multiple for n in (options.height, options.width)))


def make_example(options: argparse.Namespace, shape: Sequence[int], sentences: int = 1) -> 'types.Example':
    """A batch of random clips, each with so many sentences about its one object, padded to a shape [B T H W]."""
    from sgmg_jax import types

    clips, asked = shape[0], shape[0] * sentences
    rng = np.random.default_rng(0)
    valid = np.zeros(shape, bool)
    valid[:, :, : options.height, : options.width] = True
    frames = rng.integers(0, 256, (*shape, 3), np.uint8)
    masks = np.zeros((asked, *shape[1:]), bool)
    masks[:, :, 60:200, 100:300] = True
    box = np.array([200 / options.width, 130 / options.height, 200 / options.width, 140 / options.height])
    size = np.array([(options.height, options.width)], np.int32)
    clip = types.Clip(frames, valid, np.repeat(size, clips, axis=0))
    tokens = rng.integers(3, 50000, (asked, options.tokens)).astype(np.int32)
    text = types.Text(tokens, np.ones(tokens.shape, bool))
    present = np.ones((asked, shape[1]), bool)
    boxes = np.broadcast_to(box.astype(np.float32), (*present.shape, 4))
    targets = types.Targets(masks, boxes, present, np.repeat(size, asked, axis=0), present[:, 0])
    return types.Example(clip, text, targets)


def make_program(options: argparse.Namespace, mesh: 'Mesh', batch: int) -> tuple[Callable, 'jax.stages.Wrapped', tuple]:
    """The step of options.mode with `batch` clips per device, for devices that need not exist.

    Returns:
        a function; the same one jitted, to be lowered within jax.set_mesh(mesh); its two arguments, parameters or
        training state, and batch, as shapes with shardings.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from sgmg_jax import compilation, sharding, systems
    from sgmg_jax.models import roberta, video_swin
    from sgmg_jax.ops import queries
    from sgmg_jax.training import optimizer as optimizers
    from sgmg_jax.training import step as steps

    system = systems.SYSTEMS[options.model]
    model = system.module(
        backbone=video_swin.SIZES[options.backbone],
        text_encoder=roberta.SIZES['base'],
        remat=options.remat,
        dtype=jnp.dtype(options.dtype),
    )
    clips = batch * mesh.size
    config = ConfigDict(dict(optimizer=OPTIMIZER, data=dict(batch_size=clips), ema_decay=0.0))
    init, optimizer, _ = steps.init_state(model, config)
    state = jax.eval_shape(init, jax.random.key(0))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def placed(shapes: Any, shardings: Any) -> Any:
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)

    def forward(parameters: dict, example: 'types.Example') -> 'jax.Array':
        outputs: Any = model.apply({'params': parameters}, example.clip, example.text, queries.best_query)
        return outputs[2].masks

    multiple = model.conventions.pixels if options.mode == 'forward' else 32
    split = NamedSharding(mesh, PartitionSpec(sharding.BATCH))
    example = jax.tree.map(  # Every leaf's first axis is that of clips or sentences.
        lambda x: jax.ShapeDtypeStruct((clips * x.shape[0], *x.shape[1:]), x.dtype, sharding=split),
        make_example(options, padded(options, multiple), options.sentences),
    )
    if options.mode == 'forward':
        parameters = optimizers.merge(state.trainable, state.frozen)
        parameters = placed(parameters, jax.tree.map(lambda _: everywhere, parameters))
        return forward, compilation.jit(forward), (parameters, example)
    with_seed = steps.make_train_step(model, system, optimizer)

    def train_step(state: Any, example: 'types.Example') -> tuple:
        return with_seed(state, example, 0)

    shardings = sharding.parameter_shardings(mesh, state)
    jitted = compilation.jit(train_step, donate_argnums=0, out_shardings=(shardings, everywhere))
    return train_step, jitted, (placed(state, shardings), example)


def prepare(options: argparse.Namespace, batch: int) -> tuple['jax.stages.Compiled', Callable[[], object], tuple]:
    """The step of options.mode with `batch` clips per device, and random weights.

    Returns:
        the compiled step; a function that runs it to completion; the step with its arguments, for `operations.count`.

    Raises:
        ValueError: there are fewer devices, or their number is not a multiple of options.storage_shards.
    """
    import jax

    from sgmg_jax import sharding

    devices = machine.devices(options.devices)
    if len(devices) % options.storage_shards:
        raise ValueError(
            f'--storage_shards={options.storage_shards}: must divide {len(devices)}, the number of devices.'
        )
    mesh = sharding.make_mesh(options.storage_shards, devices)
    rng = np.random.default_rng(1)

    def fill(path: tuple, x: 'jax.ShapeDtypeStruct') -> 'jax.Array':
        # Zeros for the step, and for the optimizer's moments and counters.
        moment = 'optimizer_state' in jax.tree_util.keystr(path)
        zeros = moment or not np.issubdtype(x.dtype, np.floating)
        value = np.zeros(x.shape, x.dtype) if zeros else np.float32(0.02) * rng.standard_normal(x.shape, np.float32)
        return jax.device_put(value, x.sharding)

    function, jitted, shapes = make_program(options, mesh, batch)
    with jax.set_mesh(mesh):
        compiled = jitted.lower(*shapes).compile()
        state = jax.tree_util.tree_map_with_path(fill, shapes[0])
        example = sharding.global_batch(mesh, make_example(options, shapes[1].clip.frames.shape[:4], options.sentences))

    def run() -> None:
        nonlocal state
        if options.mode == 'forward':
            jax.block_until_ready(compiled(state, example))
        else:
            state, metrics = compiled(state, example)
            jax.block_until_ready((state, metrics))

    return compiled, run, (function, *shapes)


def measure(options: argparse.Namespace, batch: int, rate: float) -> dict[str, Any] | None:
    """A row of the table, in seconds and bytes, and the description of the machine; None if memory runs out.

    Args:
        rate: FLOP/s of a large matmul on one device, of which the row gives the share.
    """
    for module in ('systems', 'training.step'):  # Importing is not part of the first step.
        importlib.import_module(f'sgmg_jax.{module}')
    started = time.perf_counter()
    try:
        with machine.catch_out_of_memory():
            _, run, program = prepare(options, batch)
            run()
    except machine.OutOfMemory:
        return None
    first = time.perf_counter() - started
    times = machine.seconds(run, options.runs)
    median = statistics.median(times)
    devices = len(machine.devices(options.devices))
    counted = operations.count(*program) / devices
    clips = batch * devices
    return {
        'machine': machine.describe(),
        'first': first,
        'median': median,
        'fastest': min(times),
        'slowest': max(times),
        'peak': machine.peak_memory(),
        'clips': clips / median,
        'frames': clips * options.frames / median,
        'operations': counted,
        'share': counted / median / rate,
    }


def measure_in_subprocess(mode: str, arguments: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """The results of `measure` in a subprocess, per batch, up to the first that does not fit the memory.

    Raises: as `machine.output_lines`.
    """
    yield from map(json.loads, machine.output_lines(['-m', 'sgmg_jax.benchmarks.step', *arguments, f'--mode={mode}']))


def add_clip_size(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for the size of a clip, and the dtype."""
    parser.add_argument('--frames', type=commands.whole(1, 1000), default=5, metavar='T', help='default: %(default)s')
    for name, default in (('height', 360), ('width', 640)):
        parser.add_argument(
            f'--{name}',
            type=commands.whole(16, 8192),
            default=default,
            metavar='PIXELS',
            help='of a frame (default: %(default)s)',
        )
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `add_clip_size`, and those for the model's and the sentences' size."""
    parser.add_argument('--backbone', default='tiny', choices=BACKBONES)
    add_clip_size(parser)
    parser.add_argument(
        '--tokens',
        type=commands.whole(1, MOST_TOKENS),
        default=16,
        metavar='L',
        help='of a sentence (default: %(default)s)',
    )


def add_runs(parser: argparse.ArgumentParser, default: int = 5) -> None:
    """Adds the number of timed runs."""
    parser.add_argument(
        '--runs',
        type=commands.whole(1, 10**6),
        default=default,
        metavar='N',
        help='timed runs after one warm-up run (default: %(default)s)',
    )


def check_sizes(options: argparse.Namespace, model: str, clips: int = 1) -> None:
    """Raises ValueError if frames are too small for the model, or too many pixels for any device."""
    height, width = options.height, options.width
    if model != 'soc' and min(height, width) < SMALLEST:
        raise ValueError(
            f'--height={height} --width={width}: frames of SgMg must have at least {SMALLEST} pixels per side.'
        )
    pixels = clips * options.frames * height * width
    if pixels > configs.MOST_PIXELS:
        raise ValueError(
            f'{clips} clip(s) of --frames={options.frames} --height={height} --width={width} have '
            f'{pixels:,} pixels, must be at most {configs.MOST_PIXELS:,}.'
        )


def only_batch(options: argparse.Namespace) -> int:
    """The value of --batch. Raises ValueError if there are several."""
    if len(options.batch) > 1:
        raise ValueError(f'--batch {" ".join(map(str, options.batch))}: must be one number of clips per device.')
    return options.batch[0]


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of a command that measures steps: this one, and others with the same options."""
    # No abbreviations: in the subprocess, which has more options, they could be ambiguous.
    parser = commands.make_parser(f'python -m sgmg_jax.benchmarks.{name}', description, allow_abbrev=False)
    parser.add_argument('--model', default='sgmg', choices=MODELS)
    add_sizes(parser)
    parser.add_argument(
        '--batch',
        type=commands.whole(1, 2**20),
        nargs='+',
        default=[1],
        metavar='B',
        help='clips per device; benchmarks.step accepts several values (default: 1)',
    )
    count = commands.whole(1, 2**16)
    parser.add_argument(
        '--sentences',
        type=commands.whole(1, 1000),
        default=1,
        metavar='E',
        help='of a clip; Fast SgMg processes them together (default: %(default)s)',
    )
    parser.add_argument(
        '--storage_shards',
        '--fsdp',
        type=count,
        default=1,
        metavar='N',
        help='devices that share one copy of the parameters (default: %(default)s)',
    )
    parser.add_argument('--devices', type=count, metavar='N', help='number of devices to use (default: all)')
    parser.add_argument(
        '--remat',
        choices=configs.REMAT,
        default='hidden',
        help='what the backward pass computes again, as config.model.remat (default: %(default)s)',
    )
    add_runs(parser)
    return parser


def describe(options: argparse.Namespace) -> str:
    """One line: model, backbone, size of a clip, dtype."""
    return (
        f'{MODELS[options.model]}, Video-Swin {options.backbone}, {options.frames} frames of '
        f'{options.height}x{options.width}, {options.sentences} sentence(s), {options.dtype}'
        f'{"" if options.remat == "hidden" else f", remat {options.remat}"}'
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser('step', __doc__)
    parser.add_argument('--mode', choices=['forward', 'train'], help='only this one, in this process, as JSON')
    arguments = list(sys.argv[1:] if argv is None else argv)
    return commands.exit_with(functools.partial(_work, arguments), parser, arguments)


def _work(arguments: Sequence[str], options: argparse.Namespace) -> None:
    check_sizes(options, options.model, max(options.batch))
    if options.mode:
        machine.disable_compilation_cache()
        # Before the model exists, so that the memory of the matmul is not part of the peak.
        rate = machine.matmul_rate(options.dtype, 2048 if machine.devices()[0].platform == 'cpu' else 8192)
        for batch in sorted(options.batch):
            row = measure(options, batch, rate)
            print(json.dumps(row), flush=True)
            if row is None:
                break
        return
    print(describe(options))
    print(
        f'{"":8}{"batch":>6}{"median":>10}{"fastest":>10}{"slowest":>10}{"first":>10}{"clips/s":>9}{"frames/s":>10}'
        f'{"memory":>11}{"operations":>13}{"of peak":>9}'
    )
    where = None
    for mode in ('forward', 'train'):
        # In this order zip asks for a row after the last one, and so raises if the process failed.
        for row, batch in zip(measure_in_subprocess(mode, arguments), sorted(options.batch)):
            if row is None:
                print(f'{mode:8}{batch:>6}  does not fit the memory of the device')
                continue
            where = row['machine']
            print(
                f'{mode:8}{batch:>6}'
                + ''.join(f'{row[k]:>8.3f} s' for k in ('median', 'fastest', 'slowest', 'first'))
                + f'{row["clips"]:>9.3f}{row["frames"]:>10.2f}{row["peak"] / 2**30:>7.2f} GiB'
                + f'{row["operations"] / 1e12:>9.3f} TFL{row["share"]:>9.1%}',
                flush=True,
            )
    if where:
        print(where)


if __name__ == '__main__':
    sys.exit(main())
