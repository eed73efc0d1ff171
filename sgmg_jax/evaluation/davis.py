"""Scores of Ref-DAVIS17 and DAVIS-2017 as the released davis2017-evaluation computes them, and where the files are.

The objects of a sequence are 1 to the highest id in its first frame; ids that first appear later are ignored. All
results are means over objects, not over sequences. Two tasks:

unsupervised (used by Ref-DAVIS17): all frames; void is ignored; the predicted objects of a sequence (at most 20) are
    matched one to one to the true objects such that mean J + mean F is maximal.
semi-supervised: without the first and last frame; void is background; predictions use the ids of the ground truth.

Axis letters: T frames, H W pixels, N objects of the truth, P objects of the prediction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import os
import pathlib
import re
import typing
from typing import Any

from jaxtyping import Bool, Float64, UInt8
import numpy as np
import scipy.optimize

from sgmg_jax import files
from sgmg_jax.evaluation import region_boundary, scoring

TASKS = 'unsupervised', 'semi-supervised'
MAX_PREDICTED = 20
ANNOTATORS = tuple(f'anno_{number}' for number in range(4))  # of Ref-DAVIS17: two people, two kinds of sentences


def num_objects(first_map: UInt8[np.ndarray, 'H W']) -> int:
    """The number of objects of a sequence, from the index map of its first frame."""
    return int(first_map[first_map != scoring.VOID].max(initial=0))


def scored_frames(num_frames: int, task: str) -> slice:
    """The frames of a sequence that are scored."""
    return slice(num_frames) if task == 'unsupervised' else slice(1, num_frames - 1)


@typing.no_type_check  # checks its own arguments
def score_sequence(
    truth: UInt8[np.ndarray, 'T H W'], predictions: Sequence[UInt8[np.ndarray, 'n H W']], task: str = 'unsupervised'
) -> list[list[dict[str, Any]]]:
    """J and F of each object of a sequence, for each of several predictions.

    Args:
        truth: index maps of all frames: 0 background, 255 void, otherwise the id of an object.
        predictions: index maps of the task's `scored_frames`, n of them each.
        task: one of TASKS.

    Returns:
        for each prediction a list of N scores in the order of ids, see `scoring.with_statistics`.

    Raises:
        ValueError: a shape or type does not fit, no frame is scored, or a prediction has ids above the task's limit.
    """
    count = num_objects(truth[0])
    truth = truth[scored_frames(len(truth), task)]
    limit = MAX_PREDICTED if task == 'unsupervised' else count
    if not len(truth):
        raise ValueError(
            f'a sequence of task {task!r} must have a frame to score: at least '
            f'{1 if task == "unsupervised" else 3} frames'
        )
    for prediction in predictions:
        if prediction.shape != truth.shape or prediction.dtype != np.uint8:
            raise ValueError(f'predictions must be uint8 {truth.shape}, got {prediction.dtype} {prediction.shape}')
        if prediction.max() > limit:
            raise ValueError(f'object id {prediction.max()} in a prediction: task {task!r} allows at most {limit}')
    # Missing predicted objects are padded with empty ones.
    counts = [max(int(prediction.max()), count) for prediction in predictions]
    region, boundary = ([np.empty((len(truth), number, count)) for number in counts] for _ in range(2))
    there = np.empty((len(truth), count), bool)
    found = [np.empty((len(truth), number), bool) for number in counts]
    for t, frame in enumerate(truth):
        void = frame == scoring.VOID if task == 'unsupervised' else np.False_
        frame = np.where(frame <= count, frame, np.uint8(0))  # Without void and objects that appear later.
        contours = region_boundary.contours(frame, count)
        there[t] = np.bincount(frame.ravel(), minlength=count + 1)[1:] > 0
        for number, prediction, j, f, has in zip(counts, predictions, region, boundary, found):
            seen = np.where(void, np.uint8(0), prediction[t]) if void.any() else prediction[t]
            has[t] = np.bincount(seen.ravel(), minlength=number + 1)[1:] > 0
            j[t] = region_boundary.pairwise_region_similarity(frame, seen, count, number)
            f[t] = region_boundary.pairwise_boundary_accuracy(contours, region_boundary.contours(seen, number))
    return [_assign(j, f, there, has, task) for j, f, has in zip(region, boundary, found)]


def _assign(
    region: Float64[np.ndarray, 'T P N'],
    boundary: Float64[np.ndarray, 'T P N'],
    there: Bool[np.ndarray, 'T N'],
    seen: Bool[np.ndarray, 'T P'],
    task: str,
) -> list[dict]:
    predicted: Iterable[int] = range(region.shape[2])
    true = predicted
    if task == 'unsupervised':
        predicted, true = scipy.optimize.linear_sum_assignment(-(region.mean(0) + boundary.mean(0)) / 2)
    pairs = sorted(zip(true, predicted))
    return [
        scoring.with_statistics(region[:, row, column], boundary[:, row, column], there[:, column], seen[:, row])
        for column, row in pairs
    ]


def find_truth(root: str | os.PathLike, split: str, task: str = 'unsupervised') -> tuple[pathlib.Path, list[str]]:
    """The folder of index PNGs in a copy of the data set, and the names of the sequences of a split.

    Args:
        root: the folder that holds Annotations_unsupervised/ or Annotations/ (with or without a level 480p/), or the
            folder above, in which they may also be below DAVIS/ or <split>/; or one above that, if it holds one copy.
        split: 'valid' or 'train', listed in ImageSets/2017/; without a list, every sequence that has a folder.

    Raises:
        FileNotFoundError: none of these places has index PNGs, or those of a listed sequence are missing.
        ValueError: several folders in `root` hold copies, the list is damaged, or only other splits have lists.
    """
    root = pathlib.Path(root)
    found = _truth_below(root, split, task)
    if found is None:
        deeper = {name: _truth_below(root / name, split, task) for name in _listing(root)[0]}
        deeper = {name: found for name, found in deeper.items() if found}
        if len(deeper) > 1:
            raise ValueError(f'{root}: holds several copies of the data set, in {", ".join(deeper)}. Give one of them.')
        found = next(iter(deeper.values()), None)
    if found is None:
        looked = ', '.join(str(folder) for folder in _places(root, split, task))
        raise FileNotFoundError(
            f'{root}: no index PNGs <sequence>/<frame>.png; looked in {looked}. Give the folder '
            'that holds one of these, or built records.'
        )
    folder, names, missing = found
    if missing:
        raise FileNotFoundError(
            f'{folder}: has no <frame>.png of {len(missing)} sequences that ImageSets/2017 lists, '
            f'such as {missing[0]}. Complete the folder, or shorten the list.'
        )
    return folder, names


def _truth_below(root: pathlib.Path, split: str, task: str) -> tuple[pathlib.Path, list[str], list[str]] | None:
    """The folder of index PNGs, its sequences, and the missing ones among these; None without any PNG."""
    lists = [
        part / 'ImageSets' / folder / f'{"val" if split == "valid" else split}.txt'
        for part in _parts(root, split)
        for folder in ('2017', '2017/class')
    ]
    listed = next((_sequences(file) for file in lists if file.exists()), None)
    others = [f'{file.parent}/{name}' for file in lists for name in _listing(file.parent)[1] if name.endswith('.txt')]
    if listed is None and others:
        raise ValueError(
            f'{root}: has no list of the sequences of split {split!r}, {lists[0].name}, only '
            f'{", ".join(others[:4])}. Name one of these splits, or add the list.'
        )
    best = None
    for folder in _places(root, split, task):
        there = {
            name for name in _listing(folder)[0] if any(file.endswith('.png') for file in _listing(folder / name)[1])
        }
        missing = [name for name in listed or () if name not in there]
        if there and (best is None or len(missing) < len(best[2])):
            best = folder, listed or sorted(there), missing
    return best


def _parts(root: pathlib.Path, split: str) -> tuple[pathlib.Path, ...]:
    return root, root / split, root / 'DAVIS'


def _places(root: pathlib.Path, split: str, task: str) -> list[pathlib.Path]:
    """Where index PNGs may be, the likeliest place first."""
    kinds = ['Annotations_unsupervised/480p', 'Annotations_unsupervised', 'Annotations/480p', 'Annotations']
    if task != 'unsupervised':
        kinds = kinds[2:] + kinds[:2]
    return [part / kind for part in _parts(root, split) for kind in kinds]


def _listing(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    return files.listing(folder) if folder.is_dir() else ([], [])


def _sequences(file: pathlib.Path) -> list[str]:
    # Old releases list paths of frames and masks: /JPEGImages/480p/bear/00000.jpg ...
    words = (line.split()[0] for line in files.read_text(file).splitlines() if line.strip())
    names = list(dict.fromkeys(word.split('/')[-2] if '/' in word else word for word in words))
    if not names:
        raise ValueError(f'{file}: lists no sequence. Take it from the original archive again.')
    for name in names:
        files.check_name(name, f'{file}: the name of a sequence')
    return names


def find_predictions(names: Sequence[str], sequences: Iterable[str]) -> dict[str, str]:
    """The folders that hold <sequence>/<frame>.png: annotator -> folder, ending in '/' unless it is empty.

    Args:
        names: all files of a submission.
        sequences: the sequences of the split.

    Returns:
        four entries anno_0 .. anno_3, or one named 'results' for a folder that is not an annotator's.

    Raises:
        ValueError: there is no such folder, there are several, or an annotator is missing.
    """
    folders = sorted(set(_prediction_folders(names, set(sequences))))
    of_annotators = [folder for folder in folders if re.search(r'(^|/)anno_\d+/$', folder)]
    if of_annotators:
        annotators, above = zip(*(reversed(folder[:-1].rpartition('/')[::2]) for folder in of_annotators))
        if annotators != ANNOTATORS or len(set(above)) > 1:
            raise ValueError(
                f'annotators are {", ".join(of_annotators[:8])}: there must be anno_0 to anno_3, side by '
                'side and once each; to score only one, give its folder'
            )
        return dict(zip(annotators, of_annotators))
    if len(folders) != 1:
        kind = f'several folders ({", ".join(folder or "." for folder in folders[:3])})' if folders else 'no folder'
        raise ValueError(
            f'{kind} with <sequence>/<frame>.png of this split: give the one folder that has them, or '
            'the one that has anno_0 to anno_3'
        )
    return {'results': folders[0]}


def _prediction_folders(names: Sequence[str], sequences: set[str]) -> Iterator[str]:
    for path in names:
        *above, name = path.split('/')
        if (
            name.endswith('.png')
            and not name.startswith('.')
            and not any(map(files.is_junk, above))
            and above
            and above[-1] in sequences
        ):
            yield ''.join(f'{part}/' for part in above[:-1])


def summarise(scores: Mapping[str, Mapping[str, list[dict]]]) -> dict[str, Any]:
    """Means over the objects of each annotator, and the plain average of these, ready for JSON.

    Args:
        scores: annotator -> sequence -> scores of its objects, as `score_sequence` returns them.

    Returns:
        {'J', 'F', 'J&F', ..: averages over annotators, 'objects', 'frames': counts, 'annotators': {annotator: the
        summary of `scoring.summarise`, with objects instead of expressions}}.

    Raises:
        ValueError: no sequence has an object.
    """
    annotators = {}
    for annotator, of_sequences in scores.items():
        summary = scoring.summarise(
            score | {'video': sequence, 'expression': str(number), 'tags': ()}
            for sequence, objects in of_sequences.items()
            for number, score in enumerate(objects, 1)
        )
        del summary['tags']
        for means in (summary, *summary['videos'].values()):
            means['objects'] = means.pop('expressions')
        annotators[annotator] = summary
    first = next(iter(annotators.values()))
    # All annotators have the same counts.
    average = {
        key: value if isinstance(value, int) else _average([a[key] for a in annotators.values()])
        for key, value in first.items()
        if key != 'videos'
    }
    return average | {'annotators': annotators}


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
