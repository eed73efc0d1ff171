"""Time and peak memory of SgMg: a forward pass, and a training step.

    python -m sgmg_jax.benchmarks.step
    python -m sgmg_jax.benchmarks.step --backbone=base --frames=8 --dtype=bfloat16

Each mode runs in a process of its own, since memory peaks are per process. Random weights, RoBERTa-base, AdamW;
frames are padded as the released model does it: to multiples of 16 for the forward pass, of 32 in training.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from sgmg_jax import compilation, systems, types
from sgmg_jax.benchmarks import machine
from sgmg_jax.models import roberta, sgmg, video_swin
from sgmg_jax.ops import queries
from sgmg_jax.training import optimizer as optimizers
from sgmg_jax.training import step as steps

OPTIMIZER = ConfigDict(dict(batch_size=8, learning_rate=1e-4, groups=(('video_encoder/.*', 5e-5),),
                            freeze=('text_backbone/.*',), weight_decay=5e-4, clip_norm=0.1, warmup_steps=0,
                            drop_steps=()))


def make_example(options, multiple):
    """One random clip with one object."""
    height, width = (-(-n // multiple) * multiple for n in (options.height, options.width))
    shape = (options.batch, options.frames, height, width)
    rng = np.random.default_rng(0)
    valid = np.zeros(shape, bool)
    valid[:, :, :options.height, :options.width] = True
    frames = rng.standard_normal((*shape, 3), dtype=np.float32) * valid[..., None]
    masks = np.zeros(shape, bool)
    masks[:, :, 60:200, 100:300] = True
    box = np.array([200 / options.width, 130 / options.height, 200 / options.width, 140 / options.height])
    clip = types.Clip(frames, valid, np.full((options.batch, 2), (options.height, options.width), np.int32))
    text = types.Text(rng.integers(3, 50000, (options.batch, options.tokens)).astype(np.int32),
                      np.ones((options.batch, options.tokens), bool))
    present = np.ones(shape[:2], bool)
    boxes = np.broadcast_to(box.astype(np.float32), (*shape[:2], 4))
    return types.Example(clip, text, types.Targets(masks, boxes, present, clip.size, present[:, 0]))


def prepare(options):
    """A function without arguments that runs one step to its end."""
    model = sgmg.SgMg(backbone=video_swin.SIZES[options.backbone], text_encoder=roberta.SIZES['base'],
                      remat=options.remat, dtype=jnp.dtype(options.dtype))
    system = systems.SYSTEMS['sgmg']
    config = ConfigDict(dict(optimizer=OPTIMIZER, data=dict(batch_size=options.batch), ema_decay=0.0))
    example = jax.device_put(make_example(options, 16 if options.mode == 'forward' else 32))
    init, optimizer, _ = steps.init_state(model, config)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(init, jax.random.key(0))
    trainable, frozen = ({name: jnp.asarray(0.02 * rng.standard_normal(x.shape, np.float32))
                          for name, x in part.items()} for part in (shapes.trainable, shapes.frozen))
    if options.mode == 'forward':
        parameters = optimizers.merge(trainable, frozen)
        forward = compilation.jit(lambda parameters: model.apply(
            {'params': parameters}, example.clip, example.text, queries.best_query)[2].masks)
        return lambda: jax.block_until_ready(forward(parameters))
    state = steps.TrainState(jnp.zeros((), jnp.int32), trainable, frozen, {}, optimizer.init(trainable))
    train_step = compilation.jit(steps.make_train_step(model, system, optimizer, 0), donate_argnums=0)

    def run():
        nonlocal state
        state, metrics = train_step(state, example)
        jax.block_until_ready((state, metrics))

    return run


def measure(options):
    """{'first': seconds with compilation, 'median', 'fastest', 'slowest': seconds, 'peak': bytes}."""
    started = time.perf_counter()
    run = prepare(options)
    run()
    first, times = time.perf_counter() - started, []
    for _ in range(options.runs):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return {'first': first, 'median': statistics.median(times), 'fastest': min(times), 'slowest': max(times),
            'peak': machine.peak_memory()}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backbone', default='tiny', choices=video_swin.SIZES)
    parser.add_argument('--frames', type=int, default=5, help='T (default: 5)')
    parser.add_argument('--height', type=int, default=360)
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--tokens', type=int, default=16, help='L (default: 16)')
    parser.add_argument('--batch', type=int, default=1, help='clips (default: 1)')
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
    parser.add_argument('--remat', action='store_true',
                        help='recompute the blocks of backbone and transformer in the backward pass')
    parser.add_argument('--runs', type=int, default=5, help='timed runs after one to warm up (default: 5)')
    parser.add_argument('--mode', choices=['forward', 'train'], help='only this one, in this process, as JSON')
    options = parser.parse_args(argv)
    if options.mode:
        print(json.dumps(measure(options)))
        return
    print(machine.describe())
    print(f'SgMg, Video-Swin {options.backbone}, {options.batch} x {options.frames} frames of '
          f'{options.height}x{options.width}, {options.dtype}{", remat" if options.remat else ""}')
    print(f'{"":10}{"median":>10}{"fastest":>10}{"slowest":>10}{"first":>10}{"peak memory":>14}')
    for mode in ('forward', 'train'):
        command = [sys.executable, '-m', 'sgmg_jax.benchmarks.step', *(argv or sys.argv[1:]), f'--mode={mode}']
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        print(f'{mode:10}' + ''.join(f'{result[k]:>8.2f} s' for k in ('median', 'fastest', 'slowest', 'first'))
              + f'{result["peak"] / 2 ** 30:>10.2f} GiB')


if __name__ == '__main__':
    main()
