"""Ref-YouTube-VOS and data in its layout: leaderboard submissions against records or the published ground truth.

Axis letters: T frames, H W pixels.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import os
import pathlib
import typing
from typing import Any

from jaxtyping import Bool
import numpy as np

from sgmg_jax import files, pictures
from sgmg_jax.data import metadata
from sgmg_jax.data.decoding import Record
from sgmg_jax.evaluation import scoring
from sgmg_jax.processes import for_each
from sgmg_jax.score import common, submission
from sgmg_jax.score.check import check_submission

CHALLENGE = 'meta_expressions_challenge.json'
MOST_OBJECTS = 254  # in the index maps of a video

# A function of an expression: the first two arguments of scoring.score_expression.
ReadExpression = Callable[[metadata.Expression], tuple[np.ndarray, int | None]]


class Truth(typing.NamedTuple):
    """Masks of the expressions of a split. read: function(index of a video)."""

    videos: Sequence[metadata.Video]
    read: Callable[[int], ReadExpression]


def expected_videos(videos: Iterable[metadata.Video]) -> list[submission.ExpectedVideo]:
    """What a submission for these videos must contain, including hidden expressions."""
    return [
        submission.ExpectedVideo(
            video.name,
            video.frame_names,
            (video.height, video.width),
            tuple(expression.id for expression in video.expressions),
        )
        for video in videos
    ]


def open_published_truth(folder: str | os.PathLike) -> Truth:
    """The ground truth of Ref-YouTube-VOS as its authors published it.

    Args:
        folder: holds meta_expressions_challenge.json and Annotations/<video>/<expression id>/<frame name>.png. A video
            without a folder in Annotations/ is hidden.

    Raises:
        ValueError: the JSON is malformed; names the field.
        FileNotFoundError: a video has neither annotations nor frames, so that its size is unknown.
    """
    folder = pathlib.Path(folder)
    listed = files.read_json(folder / CHALLENGE)
    if not isinstance(listed, dict) or not isinstance(listed.get('videos'), dict) or not listed['videos']:
        raise ValueError(f'{folder / CHALLENGE}: has no "videos". Copy it again from the original archive.')
    videos = [_published_video(folder, name, content) for name, content in sorted(listed['videos'].items())]

    def read(index: int) -> ReadExpression:
        video = videos[index]

        def of_expression(expression: metadata.Expression) -> tuple[Bool[np.ndarray, 'T H W'], None]:
            paths = [folder / 'Annotations' / video.name / expression.id / f'{name}.png' for name in video.frame_names]
            masks = common.read_pngs(paths, ['P', 'L', '1'])
            if masks.shape[1:] != (video.height, video.width):
                raise ValueError(
                    f'{paths[0]}: is {masks.shape[1:]} (H, W), but others of its video are '
                    f'{video.height, video.width}. Copy both again from the original archive.'
                )
            for path, mask in zip(paths, masks):
                if ((mask != 0) & (mask != mask.max())).any():
                    raise ValueError(
                        f'{path}: must have one value besides 0, has several, like maps of several '
                        'objects or blurred masks. Copy it again from the original archive.'
                    )
            return masks > 0, None

        return of_expression

    return Truth(videos, read)


def _published_video(folder: pathlib.Path, name: str, content: object) -> metadata.Video:
    where, masks = f'{folder / CHALLENGE}: videos.{name:.80}', folder / 'Annotations' / name
    files.check_name(name, f'{folder / CHALLENGE}: the name of a video')
    of_expressions = [masks / key for key in common.listing(masks)[0]]
    expressions, frames = (
        content.get(field) if isinstance(content, dict) else None for field in ('expressions', 'frames')
    )
    if isinstance(content, dict) and 'frames' not in content:
        frames = sorted({file[:-4] for one in of_expressions for file in common.listing(one)[1] if file[-4:] == '.png'})
    if (
        not isinstance(expressions, dict)
        or not isinstance(frames, list)
        or not all(
            isinstance(value, dict) and isinstance(value.get('exp'), str) and 'obj_id' in value
            for value in expressions.values()
        )
    ):
        raise ValueError(
            f'{where} needs "frames", a list, and "expressions", each with "exp" and "obj_id". Copy the '
            'file again from the original archive.'
        )
    for frame in frames:
        files.check_name(frame, f'{where}.frames, a frame')
    if len(set(frames)) < len(frames):
        raise ValueError(f'{where}.frames: lists a frame twice. Copy the file again from the original archive.')
    for key in expressions:
        files.check_name(key, f'{where}.expressions, a key')
    objects = {key: _object_id(value['obj_id'], f'{where}.expressions.{key}') for key, value in expressions.items()}
    images = folder / 'JPEGImages' / name
    sources = [
        path / file
        for path in (*of_expressions, images)
        for file in common.listing(path)[1]
        if file.endswith('.jpg' if path == images else '.png')
    ]
    if not sources or not frames:
        raise FileNotFoundError(
            f'{masks}: no PNG of this video, and no frame in JPEGImages/ that gives its size. Complete the folder.'
        )
    try:
        header = pictures.read_header(sources[0])
    except (OSError, ValueError) as error:
        raise ValueError(f'{sources[0]}: cannot be read ({error}). Copy it again from the original archive.') from error
    return metadata.Video(
        name,
        tuple(sorted(frames)),
        header.height,
        header.width,
        tuple(
            metadata.Expression(key, value['exp'], objects[key] if masks.is_dir() else -1, ())
            for key, value in expressions.items()
        ),
        masks.is_dir(),
    )


def _object_id(value: object, where: str) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 9:
        value = int(value)
    if type(value) is not int or not 0 < value <= MOST_OBJECTS:
        raise ValueError(
            f'{where}.obj_id must be a whole number from 1 to {MOST_OBJECTS}, is {value!r:.80}. Copy the '
            'file again from the original archive.'
        )
    return value


def truth_of_records(split: Sequence[Record]) -> Truth:
    """The ground truth in built records. Raises ValueError if only some frames have masks."""
    videos = common.videos_of(split)
    sparse = [video.name for video in videos if video.mask_places is not None]
    if sparse:
        raise ValueError(f'video {sparse[0]}: has masks of single frames. Give records of Ref-YouTube-VOS or MeViS.')
    return Truth(videos, lambda index: read_truth(split[index]))


def read_truth(record: Record) -> ReadExpression:
    """function(expression) -> the first two arguments of scoring.score_expression, of a record with ground truth."""
    if record.video.mask_layers is not None:
        masks_of = record.decode_targets()
        return lambda expression: (masks_of(expression), None)
    masks = record.decode_masks()
    assert masks is not None  # has_masks
    return lambda expression: (masks, expression.object_id)


def open_truth(folder: str | os.PathLike, split: str) -> Truth:
    """The ground truth: built records, or the published folder valid/, or a folder one or two levels above it."""
    folder = pathlib.Path(folder)
    common.check_folder(folder)
    for level in ([folder], [folder / name for name in common.listing(folder)[0]]):
        found = [
            published
            for above in level
            for published in [next((part for part in (above, above / 'valid') if (part / CHALLENGE).exists()), None)]
            if published
        ]
        if len(found) > 1:
            raise ValueError(
                f'{folder}: holds several copies of the ground truth, in {", ".join(map(str, found))}. '
                'Give one of them.'
            )
        if found and split != 'valid':
            raise ValueError(f"{found[0]}: is the ground truth of split 'valid', not of {split!r}")
        if found:
            return open_published_truth(found[0])
    return truth_of_records(common.open_records(folder, split))


def score_submission(path: str | os.PathLike, split: Sequence[Record], progress: bool) -> dict[str, Any]:
    """See `score.score_submission`.

    The submission may contain more videos than the split. Only faults that prevent scoring are found:
    `check_submission` finds them all.
    """
    return scoring.summarise(score_videos(path, (truth_of_records, (split,)), len(split), 1, progress))


def score_videos(
    path: str | os.PathLike,
    source: tuple[Callable[..., Truth], tuple],
    count: int,
    processes: int,
    progress: bool,
    top: str = submission.TOP,
) -> list[dict[str, Any]]:
    """The scores of all expressions whose objects are known.

    Args:
        path: of the submission.
        source: a function that opens the ground truth in each process, and its arguments.
        count: of videos.
        top: see `submission.mask_path`.

    Returns:
        a list of what `scoring.summarise` takes, with 'target' added: whether the expression refers to anything.
    """
    of_videos = for_each(_open_work, (path, *source, top), count, processes, 'scoring', progress)
    return [score for scores in of_videos for score in scores]


@contextlib.contextmanager
def _open_work(
    path: str | os.PathLike, open_source: Callable[..., Truth], arguments: tuple, top: str
) -> Iterator[Callable[[int], list[dict]]]:
    truth = open_source(*arguments)
    with submission.open_submission(path, top) as predicted:

        def masks_of(video: metadata.Video, expression: metadata.Expression) -> Bool[np.ndarray, 'T H W']:
            size = video.height, video.width
            names = video.frame_names
            return np.stack([submission.read_mask(predicted, video.name, expression.id, n, size, top) for n in names])

        def work(index: int) -> list[dict]:
            video = truth.videos[index]
            known = _known(video)
            if not known:
                return []
            truth_of = truth.read(index)
            return [score_expression(video, e, truth_of, masks_of(video, e)) for e in known]

        yield work


def score_expression(
    video: metadata.Video,
    expression: metadata.Expression,
    truth_of: ReadExpression,
    prediction: Bool[np.ndarray, 'T H W'],
) -> dict[str, Any]:
    """The scores of an expression, see `score_videos`. Raises ValueError, naming it, if something does not fit."""
    try:
        score = scoring.score_expression(*truth_of(expression), prediction)
    except ValueError as error:
        raise ValueError(f'video {video.name}, expression {expression.id}: {error}') from error
    return score | {
        'video': video.name,
        'expression': expression.id,
        'tags': expression.tags,
        'target': expression.objects != (),
    }


def _known(video: metadata.Video) -> list[metadata.Expression]:
    """The expressions whose objects are known."""
    return [expression for expression in video.expressions if expression.objects is not None and video.has_masks]


def run(
    options: argparse.Namespace,
    open_truth: Callable[..., Truth] = open_truth,
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]] = scoring.summarise,
    top: str = submission.TOP,
) -> dict[str, Any] | None:
    """Runs the command, see its help. Returns the scores, or None with --check-only and without ground truth.

    Args:
        open_truth: function(--gt, --split).
        summarise: function(result of `score_videos`) -> the scores.
        top: see `submission.mask_path`.
    """
    truth = open_truth(options.gt, options.split)
    expected = expected_videos(truth.videos)
    problems = check_submission(options.pred, expected, options.processes, progress=True, top=top)
    if problems:
        raise common.WrongPredictions(problems)
    masks = sum(len(video.frame_names) * len(video.expression_ids) for video in expected)
    print(f'{files.printable(options.pred)}: complete and well-formed, {len(expected):,} videos, {masks:,} masks.')
    if options.check_only:
        return None
    hidden = sum(not _known(video) for video in truth.videos)
    if 0 < hidden < len(expected):
        print(f'{hidden:,} videos have no ground truth: checked, not scored.')
    if hidden == len(expected):
        print(f'Split {options.split!r} has no ground truth: checked, not scored.')
        return None
    source = open_truth, (options.gt, options.split)
    return summarise(score_videos(options.pred, source, len(truth.videos), options.processes, True, top))
