"""Forward passes of the models of a table, in turn in one process."""

import argparse
from collections.abc import Callable, Mapping
import json
import statistics
import time
from typing import Any

from ml_collections import ConfigDict

from sgmg_jax import files
from sgmg_jax.benchmarks import machine

TOKENS = 16  # of the sentence


def program(config: ConfigDict) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A function that segments one clip of config.data.num_frames and frame_size by one sentence, from the frames to
    scores and mask logits, and its arguments; the weights are random."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sgmg_jax import systems, types
    from sgmg_jax.inference.segment import best_masks

    model = systems.build_model(config.model)
    rng = np.random.default_rng(0)
    parameters = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(0.02 * rng.standard_normal(x.shape, np.float32) + (path[-1].key == 'scale')),
        systems.parameter_shapes(model),
    )
    shape = 1, config.data.num_frames, *config.data.frame_size
    clip = types.Clip(
        rng.standard_normal((*shape, 3), np.float32), np.ones(shape, bool), np.array([shape[2:]], np.int32)
    )
    tokens = rng.integers(3, model.text_encoder.vocabulary, (1, TOKENS)).astype(np.int32)

    def whole(parameters, clip, text):
        video = model.apply({'params': parameters}, clip, method='encode_video')
        return best_masks(model, parameters, video, text, clip.valid[:, :, 0, 0])

    return whole, jax.device_put((parameters, clip, types.Text(tokens, np.ones_like(tokens, bool))))


def prepare(config: ConfigDict) -> Callable[[], object]:
    """A function that runs `program` to completion."""
    import jax

    from sgmg_jax import compilation

    function, arguments = program(config)
    jitted = compilation.jit(function)
    return lambda: jax.block_until_ready(jitted(*arguments))


def measure(passes: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Clips per second of each function, from the median of its times; all run in turn, once before to compile."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for i in range(runs + 1):
        for name, run in passes.items():
            started = time.perf_counter()
            run()
            if i:
                seconds[name].append(time.perf_counter() - started)
    return {name: 1 / statistics.median(found) for name, found in seconds.items()}


def report(table: str, rows: Mapping[str, ConfigDict], options: argparse.Namespace) -> None:
    """Prints the speed of every row and writes it to <workdir>/<table>_speed.json.

    rows: name -> config.
    """
    with machine.catch_out_of_memory():
        rates = measure({name: prepare(config) for name, config in rows.items()}, options.runs)
    fastest = max(rates.values())
    for name, rate in rates.items():
        data = rows[name].data
        size = f'{data.num_frames} x {data.frame_size[0]} x {data.frame_size[1]}'
        print(f'{name:24}{rate:>9.2f} clips/s{rate / fastest:>8.2f} of the fastest; {size}')
    print(machine.describe())
    with files.replacing(options.workdir / f'{table}_speed.json') as partial:
        partial.write_text(json.dumps({'machine': machine.describe(), 'clips per second': rates}, indent=1) + '\n')
