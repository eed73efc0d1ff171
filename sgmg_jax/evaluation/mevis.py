"""Scores of MeViS: J and F of all frames, and whether sentences that refer to nothing have empty masks.

Ding et al., MeViS: A Large-scale Benchmark for Video Segmentation with Motion Expressions, ICCV 2023; second edition,
arXiv 2512.10945.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sgmg_jax.evaluation import scoring

COLUMNS = 'Final', 'J&F', 'N-acc', 'T-acc', 'Final_with_target', 'J&F_with_target', 'no_target', 'expressions'


def summarise(scores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over all expressions and the accuracies of the second edition; ready for JSON.

    Args:
        scores: as `scoring.summarise` takes them, with 'target' added: whether the expression refers to anything.

    Returns:
        the result of `scoring.summarise` over all expressions, where an empty mask of a sentence without target scores
        1 in each frame, and in percent
        'N-acc': the share of sentences without target whose prediction is empty in every frame; None without any;
        'T-acc': the share of those with a target whose prediction is not; None without any;
        'Final': the mean of J&F, N-acc and T-acc; None if one of these is;
        'J_with_target', 'F_with_target', 'J&F_with_target', 'Final_with_target': with J and F of sentences with a
        target only (whether the benchmark counts the others is not published); None without any;
        'no_target': the number of sentences without target.

    Raises:
        ValueError: no scores, or an expression is scored twice.
    """
    scores = list(scores)
    summary = scoring.summarise(scores)
    targeted = [score for score in scores if score['target']]
    summary['N-acc'] = _percent([not score['seen'].any() for score in scores if not score['target']])
    summary['T-acc'] = _percent([bool(score['seen'].any()) for score in targeted])
    for measure in 'JF':
        summary[f'{measure}_with_target'] = _percent([score[f'{measure}_mean'] for score in targeted])
    summary['J&F_with_target'] = _mean(summary['J_with_target'], summary['F_with_target'])
    summary['Final'] = _mean(summary['J&F'], summary['N-acc'], summary['T-acc'])
    summary['Final_with_target'] = _mean(summary['J&F_with_target'], summary['N-acc'], summary['T-acc'])
    summary['no_target'] = len(scores) - len(targeted)
    return summary


def _percent(values: list[bool] | list[float]) -> float | None:
    return 100 * float(np.mean(values)) if values else None


def _mean(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def format_summary(summary: Mapping[str, Any]) -> str:
    """A printable table of the scores of the benchmark, above that of `scoring.format_summary`."""
    table = scoring.format_table({'all': summary}, COLUMNS)
    return f'{table}\n\n{scoring.format_summary(summary)}'
