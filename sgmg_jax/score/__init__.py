"""Scores the files of any system on Ref-DAVIS17, Ref-YouTube-VOS, MeViS, A2D- and JHMDB-Sentences, RefCOCO/+/g.

    python -m sgmg_jax.score {davis,ytvos,mevis,a2d,jhmdb,refcoco} --gt=GROUND_TRUTH --pred=PREDICTIONS

Checks the files first, and scores nothing if one is wrong. Prints a short table, and writes all numbers, including
those of each video and sentence, to a JSON file. Exit status: 0 success, 1 the predictions are wrong (the problems are
listed), 2 the command or the ground truth is wrong.
"""

from collections.abc import Mapping, Sequence
import json
import os
import re
import typing
from typing import Any

from sgmg_jax import files

if typing.TYPE_CHECKING:  # Scoring code is imported late: --help does not need it.
    from sgmg_jax.data.decoding import Record

__all__ = 'format_scores', 'score_submission', 'truth_of_records', 'write_scores'


def score_submission(
    protocol: str, path: str | os.PathLike, split: 'Sequence[Record]', progress: bool = True
) -> dict[str, Any]:
    """Scores a submission against the ground truth of a split, in this process.

    Args:
        protocol: 'davis', 'ytvos', 'mevis', 'a2d', 'jhmdb' or 'refcoco'.
        path: the folder, zip or JSON of predictions, see the help of the command.
        split: the records of the split, such as `records.open_records` returns. Expressions without a known object
            are ignored.
        progress: show a progress bar on stderr.

    Returns:
        the summary of `scoring.summarise` ('ytvos'), `davis.summarise` ('davis'), `mevis.summarise` ('mevis') or
        `mean_ap.evaluate` (others).

    Raises:
        FileNotFoundError: there is no such submission.
        ValueError: the predictions are wrong, or the split has no ground truth.
    """
    from sgmg_jax.score import coco, davis, mevis, ytvos

    if protocol in coco.PROTOCOLS:
        return coco.score_submission(protocol, path, split, progress)
    return {'davis': davis, 'ytvos': ytvos, 'mevis': mevis}[protocol].score_submission(path, split, progress)


def truth_of_records(protocol: str, split: 'Sequence[Record]', progress: bool = False) -> dict[str, Any]:
    """COCO ground truth of built records, see `coco.truth_of_records`."""
    from sgmg_jax.score import coco

    return coco.truth_of_records(protocol, split, progress)


def format_scores(summary: Mapping[str, Any]) -> str:
    """A printable table of the result of `score_submission`; other entries of the summary are ignored."""
    from sgmg_jax.evaluation import mevis, scoring
    from sgmg_jax.score import coco, davis

    if 'annotators' in summary:
        return davis.format_scores(summary)
    if 'N-acc' in summary:
        return mevis.format_summary(summary)
    return coco.format_scores(summary) if 'mAP' in summary else scoring.format_summary(summary)


def write_scores(path: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    r"""Writes the summary as JSON in UTF-8; the file appears whole or not at all.

    Bytes of names that are not valid text (surrogates in Python) are written as \\udc80: JSON cannot hold them.

    Raises:
        OSError: the file cannot be written.
        ValueError: the summary contains NaN or infinity.
    """
    text = json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False)
    text = re.sub('[\ud800-\udfff]', lambda found: rf'\\u{ord(found[0]):04x}', text)
    with files.replacing(path) as partial:
        partial.write_text(f'{text}\n', encoding='utf-8')
