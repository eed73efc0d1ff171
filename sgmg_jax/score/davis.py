"""Ref-DAVIS17: index PNGs of one annotator or four against records or a copy of DAVIS-2017.

Axis letters: T frames, H W pixels.
"""

import argparse
import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import os
import pathlib
import typing
from typing import Any

from jaxtyping import UInt8
import numpy as np

from sgmg_jax import files
from sgmg_jax.data.decoding import Record
from sgmg_jax.evaluation import davis, scoring
from sgmg_jax.processes import for_each
from sgmg_jax.score import common, submission
from sgmg_jax.score.check import find_duplicates, read_png

COLUMNS = ('J', 'F', 'J&F', *scoring.COLUMNS[3:], 'frames', 'objects')


class Sequences(typing.NamedTuple):
    """Index maps of the sequences of a split. read: function(index of a sequence). where: for messages."""

    names: Sequence[str]
    frame_names: Sequence[Sequence[str]]
    read: Callable[[int], UInt8[np.ndarray, 'T H W']]
    where: str


def open_sequences(folder: str | os.PathLike, split: str, task: str) -> Sequences:
    """The ground truth: built records, or a copy of DAVIS-2017 (see `davis.find_truth`).

    Raises:
        FileNotFoundError: a sequence has a gap between its frames; or as find_truth and open_records.
        ValueError: as find_truth and open_records.
    """
    folder = pathlib.Path(folder)
    common.check_folder(folder)
    if not folder.is_dir() or any(any(folder.glob('*/' * level + 'dataset_info.json')) for level in range(4)):
        return sequences_of_records(common.open_records(folder, split))
    folder, names = davis.find_truth(folder, split, task)
    frames = [
        [name.removesuffix('.png') for name in common.listing(folder / sequence)[1] if name.endswith('.png')]
        for sequence in names
    ]
    for name, there in zip(names, frames):
        gap = next((number for number, stem in enumerate(there) if stem != f'{number:05d}'), None)
        if gap is not None:
            raise FileNotFoundError(
                f'{folder / name / f"{gap:05d}.png"}: is missing; frames must be numbered from '
                '00000 without a gap. Copy it again from the original archive.'
            )
    return Sequences(
        names,
        frames,
        lambda index: common.read_pngs([folder / names[index] / f'{frame}.png' for frame in frames[index]], ['P', 'L']),
        str(folder),
    )


def sequences_of_records(split: Sequence[Record]) -> Sequences:
    """The ground truth in built records. Raises ValueError if they have no index maps."""
    videos = common.videos_of(split)
    hidden = [
        video.name
        for video in videos
        if not video.has_masks or video.mask_places is not None or video.mask_layers is not None
    ]
    if hidden:
        raise ValueError(
            f'video {hidden[0]} has no index maps. Give records of Ref-DAVIS17, and a split with ground truth.'
        )

    def read(index: int) -> UInt8[np.ndarray, 'T H W']:
        masks = split[index].decode_masks()
        assert masks is not None  # has_masks
        return masks

    return Sequences(
        [video.name for video in videos],
        [video.frame_names for video in videos],
        read,
        getattr(split, 'directory', 'records'),
    )


@contextlib.contextmanager
def _open_work(
    path: str | os.PathLike,
    open_source: Callable[..., Sequences],
    arguments: tuple,
    task: str,
    annotators: Mapping[str, str],
    check_only: bool,
) -> Iterator[Callable[[int], tuple[common.Found, Any]]]:
    truth = open_source(*arguments)
    with submission.open_submission(path, top='') as predicted:

        def work(index: int) -> tuple[common.Found, list[list[dict]] | None]:
            """The problems of a sequence; without any, its scores per annotator."""
            found: common.Found = collections.defaultdict(list)
            masks = truth.read(index)
            count = davis.num_objects(masks[0])
            if not 0 < count <= davis.MAX_PREDICTED:  # Without objects nothing is scored; too many: no index map.
                raise ValueError(
                    f'sequence {truth.names[index]} of the ground truth: the highest object id in its '
                    f'first frame, {truth.frame_names[index][0]}, is {count}; it must be 1 to '
                    f'{davis.MAX_PREDICTED} (255 is void). Copy it again from the original archive.'
                )
            limit = davis.MAX_PREDICTED if task == 'unsupervised' else count
            names = truth.frame_names[index][davis.scored_frames(len(masks), task)]
            predictions = [
                _read_maps(
                    predicted,
                    [f'{folder}{truth.names[index]}/{name}.png' for name in names],
                    masks.shape[1:],
                    limit,
                    found,
                )
                for folder in annotators.values()
            ]
            return dict(found), None if found or check_only else davis.score_sequence(masks, predictions, task)

        yield work


def _read_maps(
    predicted: submission.Submission, names: list[str], size: tuple[int, int], limit: int, found: common.Found
) -> UInt8[np.ndarray, 'T H W']:
    """Index maps, 0 where a PNG is wrong."""
    maps = np.zeros((len(names), *size), np.uint8)
    for index_map, name in zip(maps, names):
        pixels = read_png(
            predicted, name, size, ['P', 'L'], "save 8-bit index maps with one channel: Pillow's mode P or L", found
        )
        if pixels is not None:
            index_map[:] = pixels
        if index_map.max() > limit:
            found[
                'too many objects',
                'values are 0 for background, then 1, 2, .. for the objects (not 0 and 255); '
                f'at most {davis.MAX_PREDICTED} if the task is unsupervised, otherwise at most the objects of the '
                'ground truth',
            ].append(f'{name}: object id {index_map.max()}, must be at most {limit}')
    return maps


def _missing_maps(names: set[str], truth: Sequences, annotators: Mapping[str, str], task: str) -> common.Found:
    found: common.Found = collections.defaultdict(list)
    there: dict[str, set[str]] = collections.defaultdict(set)
    for name in names:
        folder, _, file = name.rpartition('/')
        if file.endswith('.png') and not file.startswith('.'):
            there[folder].add(name)
    for folder in annotators.values():
        for sequence, frames in zip(truth.names, truth.frame_names):
            wanted = [f'{folder}{sequence}/{name}.png' for name in frames[davis.scored_frames(len(frames), task)]]
            missing = [name for name in wanted if name not in names]
            if len(missing) == len(wanted):
                found['missing sequence', 'predict it: every sequence of the split is scored'].append(
                    f'{folder}{sequence}'
                )
            else:
                found['missing frame', 'write an index PNG for every frame, all 0 where there is no object'].extend(
                    missing
                )
            found[
                'frame without ground truth',
                'use the same release for both: the last frames of the ground truth may be missing',
            ].extend(
                sorted(there[f'{folder}{sequence}'].difference(f'{folder}{sequence}/{name}.png' for name in frames))
            )
    return found


def run(options: argparse.Namespace) -> dict[str, Any] | None:
    """Runs the command, see its help. Returns the scores, or None with --check-only."""
    source = open_sequences, (options.gt, options.split, options.task)
    truth, annotators, results = _check(
        options.pred, source, options.task, processes=options.processes, check_only=options.check_only, progress=True
    )
    print(
        f'{files.printable(options.pred)}: complete and well-formed, {len(truth.names)} sequences, '
        f'{", ".join(annotators)}.\nground truth: {files.printable(truth.where)}'
    )
    return None if options.check_only else _summarise(truth, annotators, results, options.task)


def score_submission(path: str | os.PathLike, split: Sequence[Record], progress: bool) -> dict[str, Any]:
    """See `score.score_submission`."""
    task = 'unsupervised'
    checked = _check(path, (sequences_of_records, (split,)), task, processes=1, check_only=False, progress=progress)
    return _summarise(*checked, task)


def _check(
    path: str | os.PathLike,
    source: tuple[Callable[..., Sequences], tuple],
    task: str,
    *,
    processes: int,
    check_only: bool,
    progress: bool,
) -> tuple[Sequences, dict[str, str], list]:
    """The ground truth, the folder of each annotator, and the result of `_open_work` for each sequence."""
    open_source, arguments = source
    truth = open_source(*arguments)
    for name, frames in zip(truth.names, truth.frame_names):
        if not frames[davis.scored_frames(len(frames), task)]:
            raise ValueError(
                f'sequence {name} of the ground truth: has {len(frames)} frames, none of which task '
                f'{task!r} scores. Copy it again from the original archive.'
            )
    with submission.open_submission(path, top='') as predicted:
        names = predicted.files
    try:
        annotators = davis.find_predictions(names, truth.names)
    except ValueError as error:
        raise common.WrongPredictions(
            [common.Problem('wrong folders', 1, (str(error),), 'see python -m sgmg_jax.score davis --help')]
        ) from error
    missing = _missing_maps(set(names), truth, annotators, task)
    find_duplicates(predicted, missing)
    problems = common.problems_of(missing)
    if problems:
        raise common.WrongPredictions(problems)
    results = for_each(
        _open_work,
        (path, open_source, arguments, task, annotators, check_only),
        len(truth.names),
        processes,
        'scoring',
        progress,
    )
    found: common.Found = collections.defaultdict(list)
    for of_sequence, _ in results:
        for key, where in of_sequence.items():
            found[key] += where
    if found:
        raise common.WrongPredictions(common.problems_of(found))
    return truth, annotators, results


def _summarise(truth: Sequences, annotators: Mapping[str, str], results: list, task: str) -> dict[str, Any]:
    return davis.summarise(
        {
            annotator: {name: scores[number] for name, (_, scores) in zip(truth.names, results)}
            for number, annotator in enumerate(annotators)
        }
    ) | {'task': task}


def format_scores(summary: Mapping[str, Any]) -> str:
    """See `score.format_scores`."""
    rows = summary['annotators'] | ({'average': summary} if len(summary['annotators']) > 1 else {})
    return scoring.format_table(rows, COLUMNS)
