"""MeViS: submissions, whose top level is the folders of the videos, against built records."""

import argparse
from collections.abc import Sequence
import os
from typing import Any

from sgmg_jax.data.decoding import Record
from sgmg_jax.evaluation import mevis
from sgmg_jax.score import common, ytvos

TOP = ''  # a submission has no folder above the videos


def open_truth(folder: str | os.PathLike, split: str) -> ytvos.Truth:
    """The ground truth in built records. Raises as `records.open_records` and `ytvos.truth_of_records`."""
    return ytvos.truth_of_records(common.open_records(folder, split))


def score_submission(path: str | os.PathLike, split: Sequence[Record], progress: bool) -> dict[str, Any]:
    """See `score.score_submission`, and for what is found wrong `ytvos.score_submission`."""
    source = ytvos.truth_of_records, (split,)
    return mevis.summarise(ytvos.score_videos(path, source, len(split), 1, progress, TOP))


def run(options: argparse.Namespace) -> dict[str, Any] | None:
    """Runs the command, see its help. Returns the scores, or None with --check-only and without ground truth."""
    return ytvos.run(options, open_truth, mevis.summarise, TOP)
