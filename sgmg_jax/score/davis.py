"""Ref-DAVIS17: index PNGs of four annotators or one against records or a copy of DAVIS-2017.

Axis letters: T frames, H W pixels.
"""
import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import io
import os
import pathlib
import typing

import numpy as np
from PIL import Image

from sgmg_jax.data import records
from sgmg_jax.evaluation import davis, scoring
from sgmg_jax.inference import leaderboard
from sgmg_jax.processes import for_each
from sgmg_jax.score import common

HELP = '''\
PRED is a folder or a zip of index PNGs (0 background, else the object's number; palette or grey), of the four
annotators or of one, below any other folders:

    anno_0/<sequence>/<frame>.png .. anno_3/<sequence>/<frame>.png
    <sequence>/<frame>.png

GT is a copy of DAVIS-2017 with Annotations_unsupervised/480p/<sequence>/<frame>.png (or Annotations/, for the
semi-supervised task) and ImageSets/2017/val.txt, in GT itself, in GT/DAVIS or in GT/valid; or the built records.

The numbers are those of davis2017-evaluation: J, F and J&F in percent, means over all objects. Ref-DAVIS17 is scored
by the task "unsupervised": all frames, void left out, ids free (the best assignment counts). Published numbers
are the plain average over the four annotators. J_variance, F_variance and J&F_variance, over an
object's frames, are a measure of temporal consistency of our own.

examples:
    python -m sgmg_jax.score davis --gt=refer_davis --pred=DVS_Annotations
    python -m sgmg_jax.score davis --gt=DAVIS --pred=results.zip --task=semi-supervised --processes=4
'''


class Sequences(typing.NamedTuple):
    """Index maps of a split's sequences. read: of a sequence's number, uint8 [T H W]."""
    names: Sequence[str]
    frame_names: Sequence[Sequence[str]]
    read: Callable[[int], np.ndarray]


def open_sequences(folder, split: str, task: str) -> Sequences:
    """Ground truth of `davis`: built records, or a copy of DAVIS-2017 (see `davis.find_truth`).

    Raises:
        FileNotFoundError: an index PNG is missing between others of its sequence; or as find_truth, open_records.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir() or any(any(folder.glob('*/' * level + 'dataset_info.json')) for level in range(4)):
        return sequences_of_records(records.open_records(folder, split))
    folder, names = davis.find_truth(folder, split, task)
    frames = [sorted(file.stem for file in (folder / name).glob('*.png')) for name in names]
    for name, there in zip(names, frames):
        gap = next((number for number, stem in enumerate(there) if stem != f'{number:05d}'), None)
        if gap is not None:
            raise FileNotFoundError(f'{folder / name / f"{gap:05d}.png"}: is missing, frames are numbered from 00000 '
                                    'without a gap; take it from the original archive again')
    return Sequences(names, frames, lambda index: common.read_pngs([
        folder / names[index] / f'{frame}.png' for frame in frames[index]]))


def sequences_of_records(split: Sequence[records.Record]) -> Sequences:
    """Ground truth from built records; ValueError if they have no index maps."""
    videos = split.videos
    hidden = [video.name for video in videos if not video.has_masks or video.mask_places is not None]
    if hidden:
        raise ValueError(f'video {hidden[0]} has no index maps: take records of Ref-DAVIS17, and a split with ground '
                         'truth')
    return Sequences([video.name for video in videos], [video.frame_names for video in videos],
                     lambda index: split[index].decode_masks())


@contextlib.contextmanager
def _open_predictions(path) -> Iterator[leaderboard.Submission]:
    """As leaderboard.open_submission, without its preference for Annotations/ in a folder."""
    root = pathlib.Path(path)
    if not root.is_dir():
        with leaderboard.open_submission(path) as submission:
            yield submission
        return
    names = sorted(pathlib.Path(folder, name).relative_to(root).as_posix()
                   for folder, _, names in os.walk(root) for name in names)
    yield leaderboard.Submission(str(root), tuple(names), lambda name: (root / name).read_bytes())


@contextlib.contextmanager
def _open_work(path, open_source, arguments, task: str, annotators: dict[str, str], check_only: bool):
    truth = open_source(*arguments)
    with _open_predictions(path) as submission:
        def work(index):
            """What is wrong, and if nothing is, a list of scores for each annotator."""
            found = collections.defaultdict(list)
            masks = truth.read(index)
            limit = davis.MAX_PREDICTED if task == 'unsupervised' else davis.num_objects(masks[0])
            names = truth.frame_names[index][davis.scored_frames(len(masks), task)]
            predictions = [_read_maps(submission, [f'{folder}{truth.names[index]}/{name}.png' for name in names],
                                      masks.shape[1:], limit, found) for folder in annotators.values()]
            return dict(found), None if found or check_only else davis.score_sequence(masks, predictions, task)
        yield work


def _read_maps(submission, names: list[str], size: tuple[int, int], limit: int, found) -> np.ndarray:
    """Index maps [T H W], 0 where something is wrong with a PNG."""
    maps = np.zeros((len(names), *size), np.uint8)
    for index_map, name in zip(maps, names):
        try:
            with Image.open(io.BytesIO(submission.read(name)), formats=['PNG']) as image:
                width, height = image.size
                if (height, width) != size:
                    found['wrong size', "resize the logits to the size of the sequence's frames"].append(
                        f'{name}: H x W is {height} x {width}, of its frames {size[0]} x {size[1]}')
                elif image.mode not in ('P', 'L'):
                    found['wrong mode', "save index maps with 8 bits and one channel: Pillow's mode P or L"].append(
                        f'{name}: mode {image.mode}')
                else:
                    index_map[:] = np.asarray(image)
        except leaderboard.UNREADABLE as error:
            found['unreadable PNG', 'write it again: the file is damaged or not a PNG'].append(f'{name}: {error}')
        if index_map.max() > limit:
            found['too many objects', 'values are 0 for background, then 1, 2, .. for the objects (not 0 and 255); '
                  f'at most {davis.MAX_PREDICTED} if the task is unsupervised, else at most the objects of the '
                  'truth'].append(f'{name}: object id {index_map.max()}, at most {limit} here')
    return maps


def _missing_maps(names: set[str], truth: Sequences, annotators: dict[str, str], task: str) -> dict:
    found, there = collections.defaultdict(list), collections.defaultdict(set)
    for name in names:
        if name.endswith('.png') and not name.rpartition('/')[2].startswith('.'):
            there[name.rpartition('/')[0]].add(name)
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
    source = open_sequences, (options.gt, options.split, options.task)
    return _check_and_score(options.pred, source, options.task, options.processes, options.check_only, progress=True)


def score_submission(path, split: Sequence[records.Record], progress: bool) -> dict:
    """See the package's."""
    return _check_and_score(path, (sequences_of_records, (split,)), 'unsupervised', 1, False, progress)


def _check_and_score(path, source, task: str, processes: int, check_only: bool, progress: bool) -> dict | None:
    open_source, arguments = source
    truth = open_source(*arguments)
    with _open_predictions(path) as submission:
        names = submission.files
    try:
        annotators = davis.find_predictions(names, truth.names)
    except ValueError as error:
        raise common.WrongPredictions([leaderboard.Problem('wrong folders', 1, (str(error),),
                                                           'see python -m sgmg_jax.score davis --help')]) from error
    problems = common.problems_of(_missing_maps(set(names), truth, annotators, task))
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
    if progress:
        print(f'{path}: complete and well-formed, {len(truth.names)} sequences, {", ".join(annotators)}.')
    if check_only:
        return None
    return davis.summarise({annotator: {name: scores[number] for name, (_, scores) in zip(truth.names, results)}
                            for number, annotator in enumerate(annotators)}) | {'task': task}


def format_scores(summary: dict) -> str:
    """See the package's."""
    rows = summary['annotators'] | ({'average': summary} if len(summary['annotators']) > 1 else {})
    return scoring.format_table(rows, [key for key in summary if key not in ('annotators', 'task')])
