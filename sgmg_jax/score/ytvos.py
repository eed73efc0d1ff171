"""Ref-YouTube-VOS, and what is in its layout: leaderboard submissions against records or the public ground truth.

Axis letters: T frames, H W pixels.
"""
from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import pathlib
import typing

import numpy as np
from PIL import Image

from sgmg_jax.data import records
from sgmg_jax.evaluation import scoring
from sgmg_jax.inference import leaderboard
from sgmg_jax.processes import for_each
from sgmg_jax.score import common

CHALLENGE = 'meta_expressions_challenge.json'
HELP = '''\
PRED is what a leaderboard takes, as a zip or as the folder that was zipped:

    Annotations/<video>/<expression id>/<frame name>.png    8-bit, one channel, 0 and 255

First it is checked for all that an evaluation server would choke on: missing videos, expressions and
frames, unexpected files, wrong sizes and modes, other values, damaged PNGs, a wrong top folder. Each kind of
problem is listed once, with its count, examples and how to mend it, and the exit status is 1.

GT is a built data set (the records of Ref-YouTube-VOS, or of anything in its layout), or the folder valid/ of the
ground truth that its authors published (meta_expressions_challenge.json, Annotations/<video>/<expression id>/).

Then every expression with ground truth is scored: J (region similarity), F (boundary accuracy) and their mean
J&F in percent; each expression's mean over its frames, then the mean over expressions; also for each tag where
the data set has tags. Recall is the share of frames above 0.5, decay the loss from the first quarter of a video
to its last. J_variance, F_variance and J&F_variance, over an expression's frames, are a measure of temporal
consistency of our own (numbers in [0, 1], less is better).

examples:
    python -m sgmg_jax.score ytvos --gt=runs/demo/records \\
        --pred=runs/demo/evaluation/ref_youtube_vos_valid/submission.zip
    python -m sgmg_jax.score ytvos --gt=data/tfds/ref_youtube_vos --pred=submission.zip --check-only
    python -m sgmg_jax.score ytvos --gt=refer_youtube_vos/valid --pred=submission.zip --json=scores.json
'''


class Truth(typing.NamedTuple):
    """Masks of a split's expressions. read: of a video's index, a function (expression) -> what goes before the
    prediction in `scoring.score_expression`."""
    videos: Sequence[records.Video]
    read: Callable[[int], Callable[[records.Expression], tuple[np.ndarray, int | None]]]


def expected_videos(videos: Iterable[records.Video]) -> list[leaderboard.ExpectedVideo]:
    """What a submission for these videos must hold, hidden expressions included."""
    return [leaderboard.ExpectedVideo(video.name, video.frame_names, (video.height, video.width),
                                      tuple(expression.id for expression in video.expressions))
            for video in videos]


def open_public_truth(folder) -> Truth:
    """The ground truth of Ref-YouTube-VOS as its authors published it.

    Args:
        folder: holds meta_expressions_challenge.json and Annotations/<video>/<expression id>/<frame name>.png.
          Videos without a folder in Annotations/ count as hidden.

    Raises:
        ValueError: the JSON is not as it should be; names the field.
        FileNotFoundError: a video has neither annotations nor frames, so that its size is unknown.
    """
    folder = pathlib.Path(folder)
    listed = common.read_json(folder / CHALLENGE)
    if not isinstance(listed, dict) or not isinstance(listed.get('videos'), dict):
        raise ValueError(f'{folder / CHALLENGE}: has no "videos"; take it from the original archive again')
    videos = [_public_video(folder, name, content) for name, content in sorted(listed['videos'].items())]

    def read(index):
        masks = folder / 'Annotations' / videos[index].name
        return lambda expression: (common.read_pngs([
            masks / expression.id / f'{name}.png' for name in videos[index].frame_names]) > 0, None)

    return Truth(videos, read)


def _public_video(folder: pathlib.Path, name: str, content: dict) -> records.Video:
    masks = folder / 'Annotations' / name
    try:
        expressions = tuple(
            records.Expression(key, value['exp'], int(value['obj_id']) if masks.is_dir() else -1, ())
            for key, value in content['expressions'].items())
        frames = tuple(sorted(content['frames'] if 'frames' in content else
                              {file.stem for file in masks.glob('*/*.png')}))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{folder / CHALLENGE}: videos.{name} needs "frames" and "expressions", each with "exp" '
                         f'and "obj_id" ({error!r})') from error
    sources = [*masks.glob('*/*.png'), *(folder / 'JPEGImages' / name).glob('*.jpg')]
    if not sources or not frames:
        raise FileNotFoundError(f'{masks}: no PNG of this video, nor a frame in JPEGImages/ to take its size from; '
                                'complete the folder')
    with Image.open(sources[0]) as image:
        width, height = image.size
    return records.Video(name, frames, height, width, expressions, masks.is_dir())


def _records_truth(split: Sequence[records.Record]) -> Truth:
    def read(index):
        masks = split[index].decode_masks()
        return lambda expression: (masks, expression.object_id)

    videos = getattr(split, 'videos', None) or [record.video for record in split]
    if any(video.mask_places is not None for video in videos):
        raise ValueError(f'video {videos[0].name}: has masks of single frames; give records of Ref-YouTube-VOS')
    return Truth(videos, read)


def open_truth(folder, split: str) -> Truth:
    """Ground truth of `ytvos`: built records, or the published folder valid/ or the one above it."""
    for public in (pathlib.Path(folder), pathlib.Path(folder) / 'valid'):
        if (public / CHALLENGE).exists():
            return open_public_truth(public)
    return _records_truth(records.open_records(folder, split))


def score_submission(path, split: Sequence[records.Record], progress: bool) -> dict:
    """See the package's. The submission may hold more videos than the split, and only what is in the way of scoring is
    found: `leaderboard.check_submission` finds all faults."""
    return _score(path, (_records_truth, (split,)), len(split), 1, progress)


def _score(path, source, count: int, processes: int, progress: bool) -> dict:
    of_videos = for_each(_open_work, (path, *source), count, processes, 'scoring', progress)
    return scoring.summarise(score for scores in of_videos for score in scores)


@contextlib.contextmanager
def _open_work(path, open_source, arguments) -> Iterator[Callable[[int], list[dict]]]:
    truth = open_source(*arguments)
    with leaderboard.open_submission(path) as submission:
        def work(index):
            video = truth.videos[index]
            known = [e for e in video.expressions if e.object_id > 0 and video.has_masks]
            truth_of = truth.read(index) if known else None
            return [scoring.score_expression(*truth_of(e), _read_expression(submission, video, e.id))
                    | {'video': video.name, 'expression': e.id, 'tags': e.tags} for e in known]
        yield work


def _read_expression(submission, video: records.Video, expression_id: str) -> np.ndarray:
    """Masks of one expression, bool [T H W]."""
    masks = []
    for frame_name in video.frame_names:
        mask = leaderboard.read_mask(submission, video.name, expression_id, frame_name)
        if mask.shape != (video.height, video.width):
            name = leaderboard.mask_path(video.name, expression_id, frame_name)
            raise ValueError(f'{submission.path}: {name} is {mask.shape} (H, W), its frame '
                             f'{video.height, video.width}: write masks at the size of the frames')
        masks.append(mask)
    return np.stack(masks)


def run(options) -> dict | None:
    truth = open_truth(options.gt, options.split)
    expected = expected_videos(truth.videos)
    problems = leaderboard.check_submission(options.pred, expected, options.processes, progress=True)
    if problems:
        raise common.WrongPredictions(problems)
    masks = sum(len(video.frame_names) * len(video.expression_ids) for video in expected)
    print(f'{options.pred}: complete and well-formed, {len(expected):,} videos, {masks:,} masks.')
    if options.check_only:
        return None
    if not any(e.object_id > 0 and video.has_masks for video in truth.videos for e in video.expressions):
        print(f'There is no ground truth in split {options.split!r}: checked, not scored.')
        return None
    return _score(options.pred, (open_truth, (options.gt, options.split)), len(truth.videos), options.processes, True)
