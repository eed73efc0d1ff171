"""Ref-DAVIS17: index PNGs of four annotators or one against records or a copy of DAVIS-2017.

Axis letters: T frames, H W pixels.
"""
import collections
from collections.abc import Callable, Sequence
import contextlib
import pathlib
import typing

import numpy as np

from sgmg_jax import files
from sgmg_jax.data import records
from sgmg_jax.evaluation import davis, scoring
from sgmg_jax.processes import for_each
from sgmg_jax.score import common, submission

COLUMNS = ('J', 'F', 'J&F', 'J_recall', 'F_recall', 'J_decay', 'F_decay', 'J_variance', 'F_variance', 'J&F_variance',
           'frames', 'objects')


class Sequences(typing.NamedTuple):
    """Index maps of a split's sequences. read: of a sequence's number, uint8 [T H W]. where: in words."""
    names: Sequence[str]
    frame_names: Sequence[Sequence[str]]
    read: Callable[[int], np.ndarray]
    where: str


def open_sequences(folder, split: str, task: str) -> Sequences:
    """Ground truth of `davis`: built records, or a copy of DAVIS-2017 (see `davis.find_truth`).

    Raises:
        FileNotFoundError: an index PNG is missing between others of its sequence; or as find_truth, open_records.
        ValueError: as find_truth, open_records.
    """
    folder = pathlib.Path(folder)
    common.check_folder(folder)
    if not folder.is_dir() or any(any(folder.glob('*/' * level + 'dataset_info.json')) for level in range(4)):
        return sequences_of_records(records.open_records(folder, split))
    folder, names = davis.find_truth(folder, split, task)
    frames = [[name.removesuffix('.png') for name in common.listing(folder / sequence)[1] if name.endswith('.png')]
              for sequence in names]
    for name, there in zip(names, frames):
        gap = next((number for number, stem in enumerate(there) if stem != f'{number:05d}'), None)
        if gap is not None:
            raise FileNotFoundError(f'{folder / name / f"{gap:05d}.png"}: is missing, frames are numbered from 00000 '
                                    'without a gap; take it from the original archive again')
    return Sequences(names, frames, lambda index: common.read_pngs([
        folder / names[index] / f'{frame}.png' for frame in frames[index]], ['P', 'L']), str(folder))


def sequences_of_records(split: Sequence[records.Record]) -> Sequences:
    """Ground truth from built records; ValueError if they have no index maps."""
    videos = split.videos
    hidden = [video.name for video in videos if not video.has_masks or video.mask_places is not None]
    if hidden:
        raise ValueError(f'video {hidden[0]} has no index maps: take records of Ref-DAVIS17, and a split with ground '
                         'truth')
    return Sequences([video.name for video in videos], [video.frame_names for video in videos],
                     lambda index: split[index].decode_masks(), getattr(split, 'directory', 'records'))


@contextlib.contextmanager
def _open_work(path, open_source, arguments, task: str, annotators: dict[str, str], check_only: bool):
    truth = open_source(*arguments)
    with submission.open_submission(path, top='') as predicted:
        def work(index):
            """What is wrong, and if nothing is, a list of scores for each annotator."""
            found = collections.defaultdict(list)
            masks = truth.read(index)
            count = davis.num_objects(masks[0])
            if not 0 < count <= davis.MAX_PREDICTED:  # None would not count, and too many are no index map.
                raise ValueError(f'sequence {truth.names[index]} of the ground truth: the highest object id in its '
                                 f'first frame, {truth.frame_names[index][0]}, is {count}; it must be 1 to '
                                 f'{davis.MAX_PREDICTED} (255 is void). Take it from the original archive again.')
            limit = davis.MAX_PREDICTED if task == 'unsupervised' else count
            names = truth.frame_names[index][davis.scored_frames(len(masks), task)]
            predictions = [_read_maps(predicted, [f'{folder}{truth.names[index]}/{name}.png' for name in names],
                                      masks.shape[1:], limit, found) for folder in annotators.values()]
            return dict(found), None if found or check_only else davis.score_sequence(masks, predictions, task)
        yield work


def _read_maps(predicted, names: list[str], size: tuple[int, int], limit: int, found) -> np.ndarray:
    """Index maps [T H W], 0 where something is wrong with a PNG."""
    maps = np.zeros((len(names), *size), np.uint8)
    for index_map, name in zip(maps, names):
        pixels = submission.read_png(predicted, name, size, ['P', 'L'],
                                      "save index maps with 8 bits and one channel: Pillow's mode P or L", found)
        if pixels is not None:
            index_map[:] = pixels
        if index_map.max() > limit:
            found['too many objects', 'values are 0 for background, then 1, 2, .. for the objects (not 0 and 255); '
                  f'at most {davis.MAX_PREDICTED} if the task is unsupervised, else at most the objects of the '
                  'truth'].append(f'{name}: object id {index_map.max()}, at most {limit} here')
    return maps


def _missing_maps(names: set[str], truth: Sequences, annotators: dict[str, str], task: str) -> dict:
    found, there = collections.defaultdict(list), collections.defaultdict(set)
    for name in names:
        folder, _, file = name.rpartition('/')
        if file.endswith('.png') and not file.startswith('.'):
            there[folder].add(name)
    for folder in annotators.values():
        for sequence, frames in zip(truth.names, truth.frame_names):
            wanted = [f'{folder}{sequence}/{name}.png' for name in frames[davis.scored_frames(len(frames), task)]]
            missing = [name for name in wanted if name not in names]
            if len(missing) == len(wanted):
                found['missing sequence', 'predict it: the benchmark counts every sequence of the split'].append(
                    f'{folder}{sequence}')
            else:
                found['missing frame', 'write an index PNG for every frame, all 0 where there is no object'
                      ].extend(missing)
            found['frame without ground truth', 'take both from the same release: the last frames of the ground truth '
                  'may be missing'].extend(sorted(there[f'{folder}{sequence}'].difference(
                      f'{folder}{sequence}/{name}.png' for name in frames)))
    return found


def run(options) -> dict | None:
    """Does the command's work, see the package's help."""
    source = open_sequences, (options.gt, options.split, options.task)
    truth, annotators, results = _check(options.pred, source, options.task, options.processes, options.check_only, True)
    print(f'{files.printable(options.pred)}: complete and well-formed, {len(truth.names)} sequences, '
          f'{", ".join(annotators)}.\nground truth: {files.printable(truth.where)}')
    return None if options.check_only else _summarise(truth, annotators, results, options.task)


def score_submission(path, split: Sequence[records.Record], progress: bool) -> dict:
    """See the package's."""
    task = 'unsupervised'
    return _summarise(*_check(path, (sequences_of_records, (split,)), task, 1, False, progress), task)


def _check(path, source, task: str, processes: int, check_only: bool, progress: bool) -> tuple[Sequences, dict, list]:
    """The ground truth, the folder of each annotator, and what `_open_work` gives of each sequence."""
    open_source, arguments = source
    truth = open_source(*arguments)
    for name, frames in zip(truth.names, truth.frame_names):
        if not frames[davis.scored_frames(len(frames), task)]:
            raise ValueError(f'sequence {name} of the ground truth: has {len(frames)} frames, of which none counts if '
                             f'the task is {task}; take it from the original archive again')
    with submission.open_submission(path, top='') as predicted:
        names = predicted.files
    try:
        annotators = davis.find_predictions(names, truth.names)
    except ValueError as error:
        raise common.WrongPredictions([common.Problem('wrong folders', 1, (str(error),),
                                                           'see python -m sgmg_jax.score davis --help')]) from error
    missing = _missing_maps(set(names), truth, annotators, task)
    submission.find_duplicates(predicted, missing)
    problems = common.problems_of(missing)
    if problems:
        raise common.WrongPredictions(problems)
    results = for_each(_open_work, (path, open_source, arguments, task, annotators, check_only),
                       len(truth.names), processes, 'scoring', progress)
    found = collections.defaultdict(list)
    for of_sequence, _ in results:
        for key, where in of_sequence.items():
            found[key] += where
    if found:
        raise common.WrongPredictions(common.problems_of(found))
    return truth, annotators, results


def _summarise(truth: Sequences, annotators: dict[str, str], results: list, task: str) -> dict:
    return davis.summarise({annotator: {name: scores[number] for name, (_, scores) in zip(truth.names, results)}
                            for number, annotator in enumerate(annotators)}) | {'task': task}


def format_scores(summary: dict) -> str:
    """See the package's."""
    rows = summary['annotators'] | ({'average': summary} if len(summary['annotators']) > 1 else {})
    return scoring.format_table(rows, COLUMNS)
