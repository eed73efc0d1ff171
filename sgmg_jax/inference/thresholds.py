"""Which config.evaluation.threshold suits a model, measured on sentences of which some refer to nothing (MeViS).

Axis letters: E sentences, T frames, H W pixels.
"""

from collections.abc import Mapping
import functools
import os
import pathlib
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from sgmg_jax import compilation, hosts, score
from sgmg_jax import config as configs
from sgmg_jax.data import records
from sgmg_jax.evaluation import mevis, scoring
from sgmg_jax.inference import evaluate, parallel
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.score import ytvos

TRIED = tuple(round(0.01 * i, 2) for i in range(100))  # 0 to 0.99
EACH = 5  # how many are tried for one that is shown
CAUTIOUS = 90.0  # per cent, the T-acc that a strict threshold must leave
COLUMNS = 'Final', 'J&F', 'N-acc', 'T-acc'


def try_thresholds(
    config: ConfigDict, workdir: str | os.PathLike, checkpoint: str | int = 'best', progress: bool = True
) -> dict[float, dict[str, Any]] | None:
    """Scores a split at every threshold of TRIED with one pass of the model, and writes them to
    evaluation/<data set>_<split>_thresholds/scores.json in `workdir`.

    Returns:
        the summary of `mevis.summarise` of each threshold; None in all processes but the first.

    Raises:
        ValueError: for another protocol than MeViS's, or a split whose sentences all, or none of which, refer to
            nothing as far as is known.
        Others as evaluate.evaluate.
    """
    workdir = pathlib.Path(workdir)
    compilation.keep_programs()
    configs.check(config)
    if config.evaluation.protocol != 'mevis':
        raise ValueError(
            f'config.evaluation.protocol = {config.evaluation.protocol!r}: only that of MeViS has sentences that '
            'refer to nothing, and a threshold to choose for them.'
        )
    split, _ = evaluate.open_split(config, config.evaluation.split)
    known = [e.objects for video in split.videos for e in video.expressions if e.objects is not None]
    if all(known) or not any(known):
        raise ValueError(
            f'{split.directory}, split {split.split!r}: a threshold can be chosen only where it is known that some '
            'sentences refer to nothing and others to something. Choose another --config.evaluation.split.'
        )
    predictor = evaluate.choose_predictor(config, workdir, checkpoint)
    found = score_thresholds(predictor, split, progress)
    if hosts.is_first():
        score.write_scores(
            workdir / 'evaluation' / f'{evaluate.split_name(split)}_thresholds' / 'scores.json',
            {'weights': predictor.origin, 'thresholds': {f'{tried:.2f}': summary for tried, summary in found.items()}},
        )
    hosts.wait('the scores are written')  # A process that exits earlier would be taken for dead.
    return found if hosts.is_first() else None


def score_thresholds(
    predictor: Predictor, split: records.Records, progress: bool = True
) -> dict[float, dict[str, Any]]:
    """The summary of `mevis.summarise` at every threshold of TRIED; the predictor's own threshold plays no role."""

    def of_video(predictor: Predictor, i: int) -> list[list[dict[str, Any]]]:
        return _score_video(predictor, split[i])

    rows = parallel.rows_of_videos(predictor, split, of_video, progress)
    assert rows is not None  # It is never stopped.
    return {threshold: mevis.summarise([row[i] for row in rows]) for i, threshold in enumerate(TRIED)}


def _score_video(predictor: Predictor, record: records.Record) -> list[list[dict[str, Any]]]:
    """The scores of each expression at each threshold."""
    video = record.video
    length, truth_of = len(video.frame_names), ytvos.read_truth(record)
    masks = np.zeros((len(video.expressions), length, video.height, video.width), bool)  # E T H W
    kept = np.zeros((len(video.expressions), len(TRIED), length), bool)
    for start, ask in predictor.windows(record.decode_frames, length):
        for i, answer in enumerate(ask([expression.text for expression in video.expressions])):
            window = slice(start, start + len(answer.scores))
            masks[i, window] = answer.masks(0.0)
            kept[i, :, window] = np.array([answer.reaches(threshold) for threshold in TRIED])[:, None]

    def rows_of(i: int) -> list[dict[str, Any]]:
        @functools.cache  # most thresholds leave the same windows
        def scored(*frames: bool) -> dict[str, Any]:
            left = masks[i] & np.array(frames)[:, None, None]
            return ytvos.score_expression(video, video.expressions[i], truth_of, left)

        return [scored(*frames.tolist()) for frames in kept[i]]

    return [rows_of(i) for i in range(len(masks))]


def best(found: Mapping[float, Mapping[str, Any]]) -> float:
    """The threshold with the highest Final; the lowest of equal ones."""
    return max(found, key=lambda threshold: found[threshold]['Final'])


def strictest(found: Mapping[float, Mapping[str, Any]]) -> float | None:
    """The threshold with the highest N-acc where T-acc is at least CAUTIOUS, the lowest of equal ones; None if there is
    none."""
    cautious = [threshold for threshold in found if found[threshold]['T-acc'] >= CAUTIOUS]
    return max(cautious, key=lambda threshold: found[threshold]['N-acc'], default=None)


def format_thresholds(found: Mapping[float, Mapping[str, Any]]) -> str:
    """A printable table of every EACH-th threshold and those that one may choose, and which those are."""
    chosen = {'highest Final': best(found), f'highest N-acc with a T-acc of at least {CAUTIOUS:g}': strictest(found)}
    shown = {t: found[t] for i, t in enumerate(found) if i % EACH == 0 or t in chosen.values()}
    table = scoring.format_table({f'{threshold:.2f}': summary for threshold, summary in shown.items()}, COLUMNS)
    lines = [
        f'{what}: ' + ('none' if threshold is None else f'--config.evaluation.threshold={threshold}')
        for what, threshold in chosen.items()
    ]
    return '\n'.join([table, '', *lines])
