"""Scores the files of any system on Ref-DAVIS17, Ref-YouTube-VOS, A2D-Sentences, JHMDB-Sentences, RefCOCO/+/g.

    python -m sgmg_jax.score {davis,ytvos,a2d,jhmdb,refcoco} --gt=GROUND_TRUTH --pred=PREDICTIONS

The files are checked, and nothing is scored if one is wrong; a short table goes to stdout and all numbers, each
video's and each sentence's too, to a JSON file. Exit status: 0 all is well, 1 the predictions are wrong (the problems
are listed), 2 the command is.
"""
from collections.abc import Sequence
import json
import os
import re
import typing

from sgmg_jax import files

if typing.TYPE_CHECKING:  # What scores is imported late: --help needs none of it.
    from sgmg_jax.data import records

__all__ = 'format_scores', 'score_submission', 'truth_of_records', 'write_scores'


def score_submission(benchmark: str, path: str | os.PathLike, split: 'Sequence[records.Record]',
                     progress: bool = True) -> dict:
    """Scores a submission against the ground truth of a split, in this process.

    Args:
        benchmark: 'davis', 'ytvos', 'a2d', 'jhmdb' or 'refcoco'.
        path: the folder, zip or JSON of predictions, see the command's help.
        split: the split's records, such as `records.open_records` gives. Expressions whose object the
          benchmark hides are passed over.
        progress: show a progress bar on stderr.

    Returns:
        what `scoring.summarise` ('ytvos'), `davis.summarise` or `mean_ap.evaluate` (the others) gives.

    Raises:
        FileNotFoundError: there is no such submission.
        ValueError: the predictions are wrong, or the split has no ground truth.
    """
    from sgmg_jax.score import coco, davis, ytvos
    if benchmark in coco.BENCHMARKS:
        return coco.score_submission(benchmark, path, split, progress)
    return {'davis': davis, 'ytvos': ytvos}[benchmark].score_submission(path, split, progress)


def truth_of_records(benchmark: str, split: 'Sequence[records.Record]', progress: bool = False) -> dict:
    """COCO ground truth of built records, see `coco.truth_of_records`."""
    from sgmg_jax.score import coco
    return coco.truth_of_records(benchmark, split, progress)


def format_scores(summary: dict) -> str:
    """A table of what `score_submission` returns, for people; what else a summary holds is left out."""
    from sgmg_jax.evaluation import scoring
    from sgmg_jax.score import coco, davis
    if 'annotators' in summary:
        return davis.format_scores(summary)
    return coco.format_scores(summary) if 'mAP' in summary else scoring.format_summary(summary)


def write_scores(path: str | os.PathLike, summary: dict) -> None:
    r"""Writes the summary as JSON in UTF-8; the file appears whole or not at all.

    Bytes of names that are no text (surrogates in Python) stand there as \\udc80: JSON has no other way for them.

    Raises:
        OSError: it cannot be written.
        ValueError: there is NaN or infinity in it.
    """
    text = json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False)
    text = re.sub('[\ud800-\udfff]', lambda found: rf'\\u{ord(found[0]):04x}', text)
    with files.replacing(path) as partial:
        partial.write_text(f'{text}\n', encoding='utf-8')
