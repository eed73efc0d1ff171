"""Inference throughput for several sentences about one clip (SgMg, Figure 6), in frames x sentences per second.

    python -m sgmg_jax.benchmarks.multi_object --out=runs/multi_object
    python -m sgmg_jax.benchmarks.multi_object --frames=36 --dtype=bfloat16 --together=10     # on an accelerator

Three methods, in turn in one process:

    a   SgMg, from the frames for each sentence, as in the release
    b   SgMg, encoding the video once, with `--together` sentences per call
    c   Fast SgMg, all sentences in one pass

Random weights, RoBERTa-base. Each method ends with the mask logits of all sentences at the padded size. Reports the
median of several runs, and writes multi_object.json and multi_object.png to <out>. --memory prints instead the peak
memory of c with one sentence and with ten, each in its own process.
"""

import argparse
from collections.abc import Callable, Sequence
import functools
import json
import pathlib
import statistics
import sys
import time
import typing
from typing import Any

import numpy as np
import tqdm

from sgmg_jax import commands, files
from sgmg_jax.benchmarks import machine, step

if typing.TYPE_CHECKING:
    import matplotlib.figure

METHODS = {'a': 'SgMg, from the frames for each sentence', 'b': 'SgMg, the video encoded once', 'c': 'Fast SgMg'}


def prepare(options: argparse.Namespace, most: int) -> dict[str, Callable[[int], Any]]:
    """The three methods: name -> function(number of sentences, at most `most`) that runs to completion."""
    import jax
    import jax.numpy as jnp

    from sgmg_jax import compilation, systems, types
    from sgmg_jax.inference.segment import best_masks, groups
    from sgmg_jax.models import multi_instance, roberta, sgmg, video_swin

    sizes = dict(
        backbone=video_swin.SIZES[options.backbone], text_encoder=roberta.SIZES['base'], dtype=jnp.dtype(options.dtype)
    )
    models = sgmg.SgMg(**sizes), multi_instance.FastSgMg(**sizes)
    rng = np.random.default_rng(0)
    # Scales of norms are near 1; otherwise the sentences would hardly matter.
    parameters = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(0.02 * rng.standard_normal(x.shape, np.float32) + (path[-1].key == 'scale')),
        systems.parameter_shapes(models[1]),
    )
    clip = jax.device_put(step.make_example(options, step.padded(options, multiple=16)).clip)
    tokens = types.Text(
        rng.integers(3, 50000, (most, options.tokens)).astype(np.int32), np.ones((most, options.tokens), bool)
    )
    real_frames = clip.valid[:, :, 0, 0]

    def encode_video(parameters, clip):
        return models[0].apply({'params': parameters}, clip, method='encode_video')

    encode = compilation.jit(encode_video)
    segment, fast_segment = (compilation.jit(functools.partial(best_masks, model)) for model in models)

    @compilation.jit
    def whole(parameters, clip, tokens):
        return best_masks(models[0], parameters, encode_video(parameters, clip), tokens, real_frames)

    def some(start, stop):
        return jax.tree.map(lambda x: x[start:stop], tokens)

    def release(count):
        return [jax.block_until_ready(whole(parameters, clip, some(i, i + 1))) for i in range(count)]

    def encoded_once(count):
        video = encode(parameters, clip)
        return [
            jax.block_until_ready(segment(parameters, video, some(group.start, group.stop), real_frames))
            for group in groups(range(count), options.together)
        ]

    def fast(count):
        video = encode(parameters, clip)
        return jax.block_until_ready(fast_segment(parameters, video, some(0, count), real_frames))

    return {'a': release, 'b': encoded_once, 'c': fast}


def measure(options: argparse.Namespace) -> tuple[dict[str, dict[int, float]], float]:
    """{method: {number of sentences: frames x sentences per second}}, and the maximal difference between the logits of
    a and b relative to the largest logit."""
    methods = prepare(options, max(options.sentences))
    cases = [(method, count) for count in options.sentences for method in methods]
    for method, count in tqdm.tqdm(cases, desc='compiling'):
        if method != 'a' or count == options.sentences[0]:
            methods[method](count)
    count = options.sentences[-1]
    ours, theirs = (np.concatenate([logits for _, logits in methods[method](count)]) for method in 'ba')
    seconds: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in tqdm.trange(options.runs, desc='measuring', unit='run'):
        for method, count in cases:
            started = time.perf_counter()
            methods[method](count)
            seconds[method, count].append(time.perf_counter() - started)
    rates = {
        method: {
            count: options.frames * count / statistics.median(seconds[method, count]) for count in options.sentences
        }
        for method in methods
    }
    return rates, float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def plot(rates: dict[str, dict[int, float]], title: str) -> 'matplotlib.figure.Figure':
    """The plot of Figure 6: a line per method."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for (method, of_counts), marker in zip(rates.items(), 'osD'):
        axes.plot(list(of_counts), list(of_counts.values()), marker=marker, label=METHODS[method])
    axes.set(xlabel='sentences per clip', ylabel='frames x sentences / s', ylim=(0, None), title=title)
    axes.set_xticks(list(of_counts))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def print_memory(arguments: Sequence[str]) -> None:
    """Prints the peak memory of method c with one sentence and with ten."""
    for count in (1, 10):
        *_, where, peak = machine.output_lines(
            ['-m', 'sgmg_jax.benchmarks.multi_object', *arguments, f'--peak-of={count}']
        )
        print(f'{count:>3} sentences, peak memory {float(peak) / 2**30:.2f} GiB; {where.strip()}')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.benchmarks.multi_object', __doc__, allow_abbrev=False)
    count = commands.whole(1, 1000)
    parser.add_argument(
        '--sentences',
        type=count,
        nargs='+',
        default=[1, 2, 4, 5, 10, 20],
        metavar='E',
        help='sentences per clip; several numbers are measured in turn (default: 1 2 4 5 10 20)',
    )
    parser.add_argument(
        '--together', type=count, default=1, metavar='E', help='sentences per call of b (default: %(default)s)'
    )
    step.add_sizes(parser)
    step.add_runs(parser, default=3)
    parser.add_argument(
        '--out', type=pathlib.Path, default='runs/multi_object', metavar='FOLDER', help='default: %(default)s'
    )
    parser.add_argument('--memory', action='store_true', help='measure peak memory instead')
    parser.add_argument('--peak-of', type=count, metavar='E', help='print the peak memory of c with E sentences')
    arguments = list(sys.argv[1:] if argv is None else argv)
    return commands.exit_with(functools.partial(_work, arguments), parser, arguments)


def _work(arguments: Sequence[str], options: argparse.Namespace) -> None:
    step.check_sizes(options, 'sgmg')
    if options.peak_of:
        machine.disable_compilation_cache()  # On a CPU the peak includes compilation.
        with machine.catch_out_of_memory():
            prepare(options, options.peak_of)['c'](options.peak_of)
        print(machine.describe(), machine.peak_memory(), sep='\n')
        return
    size = (
        f'Video-Swin {options.backbone}, {options.frames} frames of {options.height}x{options.width}, {options.dtype}'
    )
    print(size)
    if options.memory:
        print_memory(arguments)  # before JAX starts here, which would take the memory of the accelerator
        return
    from sgmg_jax import compilation

    options.out.mkdir(parents=True, exist_ok=True)  # fails now rather than after the measurement
    compilation.keep_programs()
    print(machine.describe())
    with machine.catch_out_of_memory():
        rates, difference = measure(options)
    print('frames x sentences per second')
    print(f'{"E":>4}' + ''.join(f'{name:>10}' for name in (*rates, 'b / a', 'c / a')))
    for count in options.sentences:
        a, b, c = (of_counts[count] for of_counts in rates.values())
        print(f'{count:>4}{a:>10.3f}{b:>10.3f}{c:>10.3f}{b / a:>10.2f}{c / a:>10.2f}')
    print('\n'.join(f'{method}   {what}' for method, what in METHODS.items()))
    print(f'logits of a and b differ by at most {difference:.1e} of the largest')
    with files.replacing(options.out / 'multi_object.json') as partial:
        partial.write_text(
            json.dumps(
                {
                    'machine': machine.describe(),
                    'size': size,
                    'together': options.together,
                    'rates': rates,
                    'difference': difference,
                },
                indent=1,
            )
            + '\n'
        )
    with files.replacing(options.out / 'multi_object.png') as partial:
        plot(rates, f'{machine.devices()[0].device_kind}, {size}').savefig(partial, format='png', dpi=150)
    print(f'written: {options.out}/multi_object.json, multi_object.png')


if __name__ == '__main__':
    sys.exit(main())
