"""The papers' figures, each from one command.

    python -m sgmg_jax.studies.figures drift     --workdir=runs/studies
    python -m sgmg_jax.studies.figures fusion    --workdir=runs/studies
    python -m sgmg_jax.studies.figures speed     --json=runs/multi_object/multi_object.json --workdir=runs/studies
    python -m sgmg_jax.studies.figures stability --gt=RECORDS --pred SgMg=sgmg.zip SOC=soc.zip --workdir=runs/studies
    python -m sgmg_jax.studies.figures gallery   --gt=RECORDS --pred SgMg=sgmg.zip SOC=soc.zip --workdir=runs/studies

    drift      SgMg, Figures 1 and I: tokens before and after decoding, with a decoder and without
    fusion     SgMg, Figure 7: what fusion in the spectrum marks, and what plain attention does
    speed      SgMg, Figure 6: frames x sentences per second, from `sgmg_jax.benchmarks.multi_object`
    stability  SOC, Figure 4: how much J changes from frame to frame, of several systems
    gallery    SgMg, Figures 5 and J: films with several sentences, and the masks of several systems below each other

drift and fusion train the runs that they need as `sgmg_jax.studies.tables` does, and share its runs. RECORDS
are built records with ground truth; the files of --pred are submissions in the layout of Ref-YouTube-VOS. Each writes
WORKDIR/<figure>.png, and its numbers to WORKDIR/<figure>.json.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import pathlib
import statistics
import sys
import typing
from typing import Any

import numpy as np

from sgmg_jax import commands, files
from sgmg_jax.studies import tables
from sgmg_jax.studies.rows import TABLES

if typing.TYPE_CHECKING:
    import matplotlib.figure

    from sgmg_jax.inference.predictor import Predictor

Numbers = dict[str, Any]
TILE = 400  # pixels across a frame in the gallery
DRIFT = {'with a decoder': 'decode-and-segment', 'without': 'segment-and-optimize'}  # -> rows of Table 6
FUSION = {'spectrum': 'spectrum', 'attention': 'attention'}  # -> rows of Table H


def open_runs(options: argparse.Namespace, table: str, rows: Mapping[str, str]) -> 'dict[str, Predictor]':
    """The models of these rows, trained with seed --seed unless they are there. rows: name in the figure -> row.

    Raises:
        tables.Stopped: a signal stopped the training.
    """
    from sgmg_jax.inference.predictor import Predictor

    base = tables.open_config(options, TABLES[table])
    chosen = [row for row in TABLES[table].rows if row.name in rows.values()]
    tables.prepare(options, base)
    folders = tables.train(options.workdir, base, chosen, [options.seed])
    return {name: Predictor.from_workdir(folders[row, options.seed]) for name, row in rows.items()}


def films(predictor: 'Predictor', options: argparse.Namespace) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """Of the first --videos videos of the split that scores the runs: the record, its first sentence, and the masks of
    its object [T H W].

    Raises:
        ValueError: the split is empty.
    """
    from sgmg_jax.data import records

    assert predictor.config is not None
    data = predictor.config.data
    split = records.open_records(data.records, data.valid_split)
    if not len(split):
        raise ValueError(f'config.data.valid_split = {data.valid_split!r}: has no video in {data.records}.')
    for index in range(min(options.videos, len(split))):
        record = split[index]
        expression = record.video.expressions[0]
        yield record, expression, record.decode_targets()(expression)


def draw_drift(options: argparse.Namespace) -> 'tuple[matplotlib.figure.Figure, Numbers]':
    """See `feature_maps.drift` and `feature_maps.plot_drift`; the map of tokens is that of the first film."""
    from sgmg_jax.studies import feature_maps

    numbers, places = {}, {}
    for name, predictor in open_runs(options, 'sgmg6', DRIFT).items():
        of_films = []
        for record, expression, _ in films(predictor, options):
            maps = feature_maps.read_maps(predictor, record.decode_frames(), expression.text)
            of_films.append(feature_maps.drift(maps))
            if name not in places:
                places[name] = feature_maps.embed(maps)
        length = min(len(film['CKA']) for film in of_films)
        numbers[name] = {
            measure: np.mean([film[measure][:length] for film in of_films], axis=0).tolist() for measure in of_films[0]
        }
        print(f'{name}: ' + ', '.join(f'{key} {statistics.fmean(found):.3f}' for key, found in numbers[name].items()))
    return feature_maps.plot_drift(places, numbers), {'films': len(of_films), 'of each frame': numbers}


def draw_fusion(options: argparse.Namespace) -> 'tuple[matplotlib.figure.Figure, Numbers]':
    """See `feature_maps.contrast` and `feature_maps.plot_fusion`; the maps are those of the first film."""
    from sgmg_jax.studies import feature_maps

    numbers: dict[str, float] = {}
    shown: dict[str, np.ndarray] = {}
    first = None
    for name, predictor in open_runs(options, 'sgmgH', FUSION).items():
        found = []
        for record, expression, truth in films(predictor, options):
            frames = record.decode_frames()
            fused = feature_maps.read_maps(predictor, frames, expression.text).fused
            found.append(feature_maps.contrast(fused, truth))
            shown.setdefault(name, fused)
            first = first or (frames, truth, expression.text)
        known = [x for x in found if x is not None]
        if not known:
            raise ValueError(
                f'none of the first {len(found)} films shows an object and something else. Raise --videos.'
            )
        numbers[name] = statistics.fmean(known)
        print(f'{name}: fused features are {numbers[name]:.2f} times as strong in the object as outside')
    assert first is not None
    frames, truth, sentence = first
    return feature_maps.plot_fusion(frames, truth, shown, sentence), {'films': len(found), 'contrast': numbers}


def draw_speed(options: argparse.Namespace) -> 'tuple[matplotlib.figure.Figure, Numbers]':
    """The plot of benchmarks.multi_object, of a machine that is not here.

    Raises:
        ValueError: the JSON is not what that benchmark writes.
    """
    from sgmg_jax.benchmarks import multi_object

    found = files.read_json(options.json)
    try:
        rates = {
            method: {int(count): float(rate) for count, rate in found['rates'][method].items()}
            for method in multi_object.METHODS
        }
        title = f'{found["machine"]}, {found["size"]}'
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{options.json}: is not what `python -m sgmg_jax.benchmarks.multi_object` writes ({error!r:.100}).'
        ) from error
    return multi_object.plot(rates, title), {'rates': rates}


def read_predictions(options: argparse.Namespace) -> dict[str, str]:
    """--pred as name -> path, in order.

    Raises:
        ValueError: one has no name, or two have the same.
    """
    pairs = [word.partition('=') for word in options.pred]
    for word, (name, sign, path) in zip(options.pred, pairs):
        if not (name and sign and path):
            raise ValueError(f'--pred {files.one_line(word, 200)}: must be NAME=SUBMISSION, such as SgMg=runs/a.zip.')
    names = [name for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f'--pred: two submissions have the same name, of {", ".join(names)}.')
    return {name: path for name, _, path in pairs}


def draw_stability(options: argparse.Namespace) -> 'tuple[matplotlib.figure.Figure, Numbers]':
    """Left: the variance of J over the frames of each sentence, as the share of sentences below a value. Right: J in
    each frame of the sentence whose variance differs most between the first system and the last."""
    import matplotlib.figure

    from sgmg_jax.data import records
    from sgmg_jax.score import ytvos

    split = records.open_records(options.gt, options.split)
    count = min(options.videos, len(split))
    source = ytvos.truth_of_records, (split,)
    scores = {
        name: ytvos.score_videos(path, source, count, 1, True) for name, path in read_predictions(options).items()
    }
    if not all(scores.values()):
        raise ValueError(f'--gt={options.gt}, --split={options.split}: has no ground truth.')
    variances = {name: np.array([np.var(score['J']) for score in of_all]) for name, of_all in scores.items()}
    of_systems = list(variances.values())
    chosen = int(np.argmax(np.abs(of_systems[0] - of_systems[-1])))
    figure = matplotlib.figure.Figure(figsize=(9, 3.4), layout='constrained')
    share, lines = figure.subplots(1, 2)
    for name, of_all in variances.items():
        share.step(np.sort(of_all), np.arange(1, len(of_all) + 1) / len(of_all), where='post', label=name)
        lines.plot(scores[name][chosen]['J'], marker='.', label=name)
        print(f'{name}: variance of J over the frames of a sentence {of_all.mean():.2e}, of {len(of_all)} sentences')
    share.set(xlabel='variance of J over frames', ylabel='share of sentences below', ylim=(0, 1))
    shown = next(iter(scores.values()))[chosen]
    lines.set(
        xlabel='frame', ylabel='J', ylim=(0, 1), title=f'video {shown["video"]}, expression {shown["expression"]}'
    )
    share.legend()
    numbers = {
        name: {'sentences': len(of_all), 'J_variance': float(of_all.mean())} for name, of_all in variances.items()
    }
    return figure, numbers


def draw_gallery(options: argparse.Namespace) -> 'tuple[matplotlib.figure.Figure, Numbers]':
    """For each video a row of frames per system, with a contour per sentence; the ground truth comes first."""
    import matplotlib.figure

    from sgmg_jax.data import records
    from sgmg_jax.score import submission

    split = records.open_records(options.gt, options.split)
    videos = [split[index] for index in range(min(options.videos, len(split)))]
    paths = read_predictions(options)
    heights = [record.video.height / record.video.width for record in videos for _ in range(len(paths) + 1)]
    figure = matplotlib.figure.Figure(
        figsize=(1.9 * options.columns + 0.4, 1.9 * sum(heights) + 0.5 * len(videos)), layout='constrained'
    )
    parts = figure.subfigures(len(videos), 1, squeeze=False)
    with contextlib.ExitStack() as stack:
        systems = {name: stack.enter_context(submission.open_submission(path)) for name, path in paths.items()}
        for record, part in zip(videos, parts[:, 0]):
            _draw_video(part, record, systems, options.columns)
    return figure, {'videos': [record.video.name for record in videos]}


def _draw_video(part: Any, record: Any, systems: Mapping[str, Any], columns: int) -> None:
    """Fills a part of the gallery's figure. systems: name -> submission.Submission."""
    import matplotlib.patches

    from sgmg_jax import visualize
    from sgmg_jax.score import submission

    video = record.video
    expressions = distinct(video.expressions)[: len(visualize.COLOURS)]
    shown = np.unique(np.linspace(0, len(video.frame_names) - 1, columns).round().astype(int))
    size = video.height, video.width
    rows = {}
    if video.has_masks:
        masks_of = record.decode_targets(shown)
        rows['ground truth'] = np.stack([masks_of(expression) for expression in expressions])
    for name, predicted in systems.items():

        def read(key: str, frame_name: str, predicted: Any = predicted) -> np.ndarray:
            return submission.read_mask(predicted, video.name, key, frame_name, size)

        names = [video.frame_names[t] for t in shown]
        rows[name] = np.array([[read(expression.id, frame_name) for frame_name in names] for expression in expressions])
    frames, tile = record.decode_frames(shown), (TILE, max(1, round(TILE * video.height / video.width)))
    grid = part.subplots(len(rows), len(shown), squeeze=False)
    for of_row, (name, masks) in zip(grid, rows.items()):
        of_row[0].set_ylabel(name, fontsize=8)
        # Larger first; otherwise contours would be scaled with the frames.
        for axes, picture in zip(of_row, visualize.overlay(*visualize.resized(frames, masks, tile))):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
    ink, *colours = (
        '#{:02x}{:02x}{:02x}'.format(*colour) for colour in (visualize.INK, *visualize.COLOURS[: len(expressions)])
    )
    patches = [
        matplotlib.patches.Patch(
            facecolor=ink, edgecolor=colour, linewidth=2, label=files.one_line(expression.text, 80)
        )
        for colour, expression in zip(colours, expressions)
    ]
    part.legend(handles=patches, loc='outside upper left', fontsize=7, ncols=2)


def distinct(expressions: Sequence[Any]) -> list[Any]:
    """The first sentence about each object, or group of objects; all of them where the objects are hidden."""
    first: dict[Any, Any] = {}
    for expression in expressions:
        first.setdefault(expression.id if expression.objects is None else expression.objects, expression)
    return list(first.values())


FIGURES = {
    'drift': draw_drift,
    'fusion': draw_fusion,
    'speed': draw_speed,
    'stability': draw_stability,
    'gallery': draw_gallery,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.studies.figures', __doc__)
    kinds = parser.add_subparsers(dest='figure', metavar='FIGURE', required=True, help='one of those above')
    for name in FIGURES:
        kind = kinds.add_parser(name)
        kind.add_argument('--workdir', type=pathlib.Path, required=True, help='folder for runs and results')
        if name in ('drift', 'fusion'):
            tables.add_run_options(kind)
            kind.add_argument('--seed', type=commands.whole(0, 999), default=0, help='default: %(default)s')
        if name == 'speed':
            kind.add_argument('--json', required=True, help='multi_object.json of the benchmark')
        if name in ('stability', 'gallery'):
            kind.add_argument('--gt', required=True, metavar='RECORDS', help='built records')
            kind.add_argument('--split', default='valid', help='default: %(default)s')
            kind.add_argument('--pred', nargs='+', required=True, metavar='NAME=SUBMISSION', help='folders or zips')
        if name == 'gallery':
            kind.add_argument('--columns', type=commands.whole(1, 20), default=4, help='frames (default: %(default)s)')
        if name != 'speed':
            kind.add_argument(
                '--videos',
                type=commands.whole(1, 10**6),
                default=2 if name == 'gallery' else 40,
                metavar='N',
                help='only the first N (default: %(default)s)',
            )
    return commands.exit_with(_work, parser, argv)


def _work(options: argparse.Namespace) -> int:
    commands.log_plainly()
    if getattr(options, 'smoke', False):
        options.workdir /= tables.SMOKE
    options.workdir.mkdir(parents=True, exist_ok=True)  # fails now rather than after the training
    try:
        figure, numbers = FIGURES[options.figure](options)
    except tables.Stopped as stopped:
        return 128 + stopped.signal
    with files.replacing(options.workdir / f'{options.figure}.png') as partial:
        figure.savefig(partial, format='png', dpi=150)
    with files.replacing(options.workdir / f'{options.figure}.json') as partial:
        partial.write_text(json.dumps(numbers, indent=1) + '\n')
    print(f'written: {options.workdir}/{options.figure}.png, {options.figure}.json')
    return 0


if __name__ == '__main__':
    sys.exit(main())
