"""Trains the rows of a table of the papers and prints its numbers beside the paper's.

    python -m sgmg_jax.studies.tables sgmg5 --workdir=runs/studies
    python -m sgmg_jax.studies.tables sgmg5 --workdir=runs/studies --row=SCF --seed=1     # only this run
    python -m sgmg_jax.studies.tables sgmg5 --workdir=runs/studies --show                 # only print what is finished
    python -m sgmg_jax.studies.tables sgmg5 --workdir=runs/studies --speed                # forward passes, no training

Every row is trained with each seed, one run after the other, as train.py does, and scored as evaluate.py does, on
config.data.valid_split. Runs are in WORKDIR/runs; rows of several tables that are the same model share them. Re-run the
same command to continue: an interrupted run resumes, and a finished one is not run again. Commands for different rows
or seeds may run at the same time.

Without --config the data is the procedural world, which the command writes to WORKDIR/world (configs/studies.py), and
numbers are not comparable with the paper's; only their order is. With the data set of the paper,

    python -m sgmg_jax.studies.tables sgmg5 --workdir=runs/ytvos_studies --config=configs/ytvos.py \\
        --init swin_tiny_kinetics.pth roberta-base/model.safetensors

gives the paper's own table, on the held-out part of the training split: the public validation split has no ground
truth. For its leaderboard files run evaluate.py with the folder of a run as --workdir.

Prints the mean of the seeds and their sample standard deviation, and writes TABLE.json and TABLE.png to WORKDIR.
"""

import argparse
from collections.abc import Mapping, Sequence
import importlib
import json
import pathlib
import statistics
import sys
import time
import typing
from typing import Any

from ml_collections import ConfigDict

from sgmg_jax import commands, files
from sgmg_jax import config as configs
from sgmg_jax.studies.rows import SCORES, TABLES, TAGS, Row, Table, configure

if typing.TYPE_CHECKING:
    import matplotlib.figure

RESULT = 'result.json'
SMOKE = 'smoke'  # its tiny world would otherwise be taken for the whole one later
WORLD = dict(num_train=800, num_valid=40, num_frames=8, size=(96, 96))


def write_world(workdir: pathlib.Path, **sizes: Any) -> pathlib.Path:
    """Writes and builds the procedural world in `workdir` unless it is there; returns the folder of its records.

    sizes: of synthetic.write_dataset; default: WORLD.
    """
    from sgmg_jax import synthetic

    build = importlib.import_module('sgmg_jax.datasets.build')
    world = workdir / 'world'
    found = sorted((world / 'records' / 'ref_youtube_vos').glob('[0-9]*'))
    if found:
        return found[-1]
    with files.locked(workdir / '.world.lock', 'writing the world'):
        if not (world / 'raw').is_dir():
            synthetic.write_dataset(world / 'raw', **(WORLD | sizes))
        return build.build('ref_youtube_vos', world / 'raw', world / 'records')


def read_result(folder: pathlib.Path, config: ConfigDict) -> dict[str, Any] | None:
    """The result of the finished run in `folder`; None if it is not finished, or was shorter than `config` wants.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    result = files.read_json(path)
    if not isinstance(result, dict) or not isinstance(result.get('scores'), dict):
        raise ValueError(f'{path}: is not the result of a run. Delete it, and the run is scored again.')
    same = all(result.get(field) == config.get(field) for field in ('steps', 'epochs'))
    return result if same else None


def run(folder: pathlib.Path, config: ConfigDict) -> int | None:
    """Trains and scores the run in `folder`, or resumes it; returns the signal that stopped it, None at its end.

    Raises: as training.loop.train and inference.evaluate.evaluate; ValueError without ground truth.
    """
    from sgmg_jax.inference import evaluate
    from sgmg_jax.training import loop

    started = time.monotonic()
    signal = loop.train(config, folder)
    if signal:
        return signal
    scored = config.copy_and_resolve_references()
    scored.evaluation.split = config.data.valid_split
    summary = evaluate.evaluate(scored, folder)
    if summary is None:
        raise ValueError(f'config.data.valid_split = {config.data.valid_split!r}: has no ground truth to score.')
    result = {
        'steps': config.steps,
        'epochs': config.epochs,
        'parameters': count_parameters(config),
        'seconds': time.monotonic() - started,  # of the session that finished it
        'scores': {name: summary[name] for name in SCORES if name in summary}
        | {tag: summary['tags'][tag]['J&F'] for tag in TAGS if tag in summary.get('tags', {})},
    }
    with files.replacing(folder / RESULT) as partial:
        partial.write_text(json.dumps(result, indent=1) + '\n')
    return None


def count_parameters(config: ConfigDict) -> int:
    """Parameters of the model without its text encoder."""
    import jax

    from sgmg_jax import systems

    shapes = systems.parameter_shapes(systems.build_model(config.model))
    return sum(x.size for name, part in shapes.items() if name != 'text_backbone' for x in jax.tree.leaves(part))


def summarise(row: Row, results: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """A row's numbers, for JSON: scores of each seed, mean, and spread, the sample standard deviation.

    results: seed -> what `run` wrote, of the finished runs.
    """
    names = list(dict.fromkeys(name for result in results.values() for name in result['scores']))
    values = {name: [result['scores'][name] for result in results.values()] for name in names}
    return {
        'name': row.name,
        'changes': dict(row.changes),
        'paper': row.paper,
        'parameters': next((result['parameters'] for result in results.values()), None),
        'seeds': {str(seed): result['scores'] for seed, result in results.items()},
        'mean': {name: statistics.fmean(found) for name, found in values.items()},
        'spread': {name: statistics.stdev(found) if len(found) > 1 else None for name, found in values.items()},
    }


def format_table(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """A printable table of the results of `summarise`; '-' where there is no number."""
    names = list(dict.fromkeys(name for row in rows for name in row['mean']))
    lines = [['', 'seeds', *names, 'parameters', 'paper']]
    for row in rows:
        cells = []
        for name in names:
            mean, spread = row['mean'].get(name), row['spread'].get(name)
            cells.append('-' if mean is None else f'{mean:.1f}' + (f' ± {spread:.1f}' if spread is not None else ''))
        parameters = '-' if row['parameters'] is None else f'{row["parameters"] / 1e6:.2f} M'
        paper = '-' if row['paper'] is None else f'{row["paper"]:.1f}'
        lines.append([row['name'], f'{len(row["seeds"])} of {seeds}', *cells, parameters, paper])
    widths = [max(map(len, column)) for column in zip(*lines)]
    printed = [
        '  '.join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:]))])
        for first, *cells in lines
    ]
    return '\n'.join([printed[0], '-' * len(printed[0]), *printed[1:]])


def plot(rows: Sequence[Mapping[str, Any]], title: str) -> 'matplotlib.figure.Figure':
    """A bar for the mean of each row that has results, a dot for each seed, a line for the paper's number."""
    import matplotlib.figure

    finished = [row for row in rows if row['mean']]
    figure = matplotlib.figure.Figure(figsize=(6.5, 0.8 + 0.45 * max(len(finished), 1)), layout='constrained')
    axes = figure.subplots()
    for place, row in enumerate(finished):
        score = next(iter(row['mean']))
        axes.barh(place, row['mean'][score], color='#9ec5e8', xerr=row['spread'][score] or 0, capsize=3)
        axes.plot([scores[score] for scores in row['seeds'].values()], [place] * len(row['seeds']), 'k.', ms=5)
        if row['paper'] is not None:
            axes.plot([row['paper']] * 2, [place - 0.4, place + 0.4], color='#d0006f')
        axes.set_xlabel(score)
    axes.set_yticks(range(len(finished)), [row['name'] for row in finished])
    axes.invert_yaxis()
    axes.set_title(title, fontsize=8, wrap=True)
    return figure


def collect(table: Table, base: ConfigDict, workdir: pathlib.Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of a table, as `summarise` returns them, from the finished runs in `workdir`."""
    rows = []
    for row in table.rows:
        results = {}
        for seed in seeds:
            config, name = configure(base, row, seed)
            result = read_result(workdir / 'runs' / name / f'seed{seed}', config)
            if result:
                results[seed] = result
        rows.append(summarise(row, results))
    return rows


def open_config(options: argparse.Namespace, table: Table) -> ConfigDict:
    """The config that the rows change; its records are WORKDIR/world without --config.

    Raises:
        ValueError: it is of another system.
    """
    words = [word for word, wanted in (('soc', table.system == 'soc'), ('smoke', options.smoke)) if wanted]
    config = commands.load_config(options.config or f'studies:{",".join(words or ["full"])}')
    if config.model.name != table.system:
        raise ValueError(
            f'--config={options.config}: config.model.name = {config.model.name!r}, but this table is about '
            f'{table.system!r}. Give a config such as configs/ytvos{"_soc" * (table.system == "soc")}.py.'
        )
    if options.init:
        config.init = tuple(options.init)
    return config


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `open_config` and `prepare`."""
    parser.add_argument('--config', help='instead of the procedural world: an experiment, such as configs/ytvos.py')
    parser.add_argument('--init', nargs='+', default=[], metavar='WEIGHTS', help='config.init of every run')
    parser.add_argument('--smoke', action='store_true', help='two steps in a tiny world, in WORKDIR/smoke')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser(
        'python -m sgmg_jax.studies.tables',
        __doc__,
        epilog='tables and their rows:\n'
        + '\n'.join(
            f'  {name:6} {table.what}\n         {", ".join(row.name for row in table.rows)}'
            for name, table in TABLES.items()
        ),
    )
    parser.add_argument('table', choices=TABLES, metavar='TABLE', help='one of those below')
    parser.add_argument('--workdir', type=pathlib.Path, required=True, help='folder for the runs and the results')
    add_run_options(parser)
    parser.add_argument('--row', help='only this row')
    parser.add_argument(
        '--seeds', type=commands.whole(1, 1000), default=3, metavar='N', help='seeds 0 to N - 1 (default: %(default)s)'
    )
    parser.add_argument('--seed', type=commands.whole(0, 999), metavar='K', help='only this seed')
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--show', action='store_true', help='only print what is finished')
    what.add_argument('--speed', action='store_true', help='measure forward passes of all rows in turn instead')
    parser.add_argument('--runs', type=commands.whole(1, 10**6), default=5, help='timed passes (default: %(default)s)')
    return commands.exit_with(_work, parser, argv)


def _work(options: argparse.Namespace) -> int:
    table = TABLES[options.table]
    if options.row and options.row not in [row.name for row in table.rows]:
        raise ValueError(f'--row={options.row}: must be one of {", ".join(row.name for row in table.rows)}.')
    if options.seed is not None and options.seed >= options.seeds:
        raise ValueError(f'--seed={options.seed}: must be less than --seeds={options.seeds}.')
    if options.smoke:
        options.workdir /= SMOKE
    commands.log_plainly()
    base = open_config(options, table)
    chosen = [row for row in table.rows if options.row in (None, row.name)]
    if options.speed:
        from sgmg_jax.studies import speed

        speed.report(options.table, {row.name: configure(base, row, 0)[0] for row in chosen}, options)
        return 0
    signal = None
    if not options.show:
        prepare(options, base)
        try:
            train(options.workdir, base, chosen, range(options.seeds) if options.seed is None else (options.seed,))
        except Stopped as stopped:
            signal = stopped.signal
    rows = collect(table, base, options.workdir, range(options.seeds))
    print(f'{table.what}\n{format_table(rows, options.seeds)}')
    _write(options, table, rows, base)
    return 128 + signal if signal else 0


class Stopped(Exception):
    """A signal stopped a training; the same command resumes it."""

    def __init__(self, signal: int) -> None:
        super().__init__(f'signal {signal}')
        self.signal = signal


def prepare(options: argparse.Namespace, base: ConfigDict) -> None:
    """Without --config, writes the procedural world, and sets config.data.records of `base`."""
    if not options.config:
        sizes = dict(num_train=3, num_valid=1) if options.smoke else {}
        base.data.records = (str(write_world(options.workdir, **sizes)),)


def train(
    workdir: pathlib.Path, base: ConfigDict, rows: Sequence[Row], seeds: Sequence[int]
) -> dict[tuple[str, int], pathlib.Path]:
    """Trains and scores all runs that are not finished; returns (name of the row, seed) -> folder of the run.

    Raises:
        Stopped: a signal stopped one.
    """
    import jax

    runs = [(*configure(base, row, seed), row.name, seed) for seed in seeds for row in rows]
    folders = {}
    for number, (config, name, row, seed) in enumerate(runs, 1):
        folder = folders[row, seed] = workdir / 'runs' / name / f'seed{seed}'
        line = f'[{number}/{len(runs)}] {row}, seed {seed}'
        if read_result(folder, config):
            print(f'{line}: finished before', flush=True)
            continue
        print(f'{line}: {folder}', flush=True)
        signal = run(folder, config)
        if signal:
            raise Stopped(signal)
        result = read_result(folder, config)
        assert result is not None  # `run` has written it
        score, value = next(iter(result['scores'].items()))
        print(f'{line}: {score} {value:.1f} after {result["seconds"] / 60:.1f} minutes', flush=True)
        jax.clear_caches()  # Every run compiles its own programs; together they would fill the memory.
    return folders


def _write(options: argparse.Namespace, table: Table, rows: Sequence[Mapping[str, Any]], base: ConfigDict) -> None:
    content = {
        'table': options.table,
        'what': table.what,
        'config': options.config or 'configs/studies.py',
        'base': configs.to_json(base),
        'rows': list(rows),
    }
    with files.replacing(options.workdir / f'{options.table}.json') as partial:
        partial.write_text(json.dumps(content, indent=1) + '\n')
    with files.replacing(options.workdir / f'{options.table}.png') as partial:
        plot(rows, table.what).savefig(partial, format='png', dpi=150)
    print(f'written: {options.workdir}/{options.table}.json, {options.table}.png')


if __name__ == '__main__':
    sys.exit(main())
