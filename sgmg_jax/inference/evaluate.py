"""Predict a split, write what a leaderboard takes, score it where there is ground truth, draw it.

Axis letters: T frames, H W pixels, E sentences.
"""
import dataclasses
import os
import pathlib
import random
import shutil

from absl import logging
import numpy as np
import tqdm

from sgmg_jax import score, visualize
from sgmg_jax.data import records
from sgmg_jax.evaluation import scoring
from sgmg_jax.inference import leaderboard, predict

PICTURES = 8  # rows of the contact sheet


def evaluate(config, workdir, checkpoint='best', shuffled=False, progress=True):
    """Evaluates a checkpoint of the run in `workdir` on config.evaluation.split; the weights of config.init
    where `workdir` holds no run.

    Leaves <workdir>/evaluation/ with Annotations/, submission.zip, overlays.png and, where there is
    ground truth, scores.json; the folder appears whole or not at all. With `shuffled`, every
    sentence is scored against another object: only <workdir>/evaluation_shuffled/scores.json.

    Returns:
        the summary of evaluation.scoring.summarise, or None without ground truth.

    Raises:
        FileNotFoundError: for a workdir without a run, or without such a checkpoint.
        ValueError: if the run's model is not config.model; names the fields.
    """
    workdir = pathlib.Path(workdir)
    if config.init and not (workdir / 'config.json').exists():
        predictor = predict.Predictor.from_weights(config)
    else:
        predictor = predict.Predictor.from_workdir(workdir, checkpoint, config)
    split = records.open_records(config.data.records, config.evaluation.split)
    if shuffled:
        summary = score_videos(predictor, split, shuffled=True, progress=progress)
        score.write_scores(workdir / 'evaluation_shuffled' / 'scores.json', summary)
        return summary

    target = workdir / 'evaluation'
    partial, old = (workdir / f'.{name}-{os.getpid()}-evaluation' for name in ('partial', 'old'))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        rows = write_predictions(predictor, split, partial, progress)
        leaderboard.zip_submission(partial, partial / 'submission.zip')
        visualize.contact_sheet(rows, partial / 'overlays.png')
        summary = None
        if any(e.object_id > 0 for video in split.videos for e in video.expressions):
            # What would be uploaded is what is scored.
            summary = score.score_submission(partial / 'submission.zip', split, progress)
            score.write_scores(partial / 'scores.json', summary)
        if target.exists():
            os.replace(target, old)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    logging.info('written: %s', target)
    return summary


def write_predictions(predictor, split, folder, progress=True):
    """Writes the masks of every sentence of a split under <folder>/Annotations.

    Returns:
        visualize.Row for some sentences, of videos spread over the split.
    """
    shown = set(np.linspace(0, len(split) - 1, min(PICTURES, len(split))).astype(int).tolist())
    rows = []
    for i in tqdm.trange(len(split), desc='predicting', unit='video', disable=not progress):
        record = split[i]
        frames, expressions = record.decode_frames(), record.video.expressions
        masks = predictor(frames, [e.text for e in expressions])
        for expression, mask in zip(expressions, masks):
            leaderboard.write_expression(folder, record.video.name, expression.id, record.video.frame_names, mask)
        if i in shown:
            chosen = len(rows) % len(expressions)
            rows.append(_picture(record, expressions[chosen], frames, masks[chosen]))
    return rows


def score_videos(predictor, split, count=None, shuffled=False, progress=True):
    """Scores the first `count` videos of a split with ground truth (all by default) in memory.

    shuffled: see `shuffle_sentences`; sentences of videos with one object alone are left out.

    Returns:
        the summary of evaluation.scoring.summarise.
    """
    scores = []
    for i in tqdm.trange(min(len(split), count or len(split)), desc='validation', unit='video', leave=False,
                         disable=not progress):
        record = split[i]
        expressions = record.video.expressions
        if shuffled:
            expressions = shuffle_sentences(expressions, random.Random(i))
        if not expressions:
            continue
        truth = record.decode_masks()
        masks = predictor(record.decode_frames(), [e.text for e in expressions])
        scores += [scoring.score_expression(truth, e.object_id, mask)
                   | {'video': record.video.name, 'expression': e.id, 'tags': e.tags}
                   for e, mask in zip(expressions, masks)]
    return scoring.summarise(scores)


def shuffle_sentences(expressions, rng):
    """A control: every sentence is scored against another object of its video than the one it means.

    A model that reads scores low on this; one that finds the objects without reading does not mind.
    """
    shuffled = []
    for expression in expressions:
        others = [e.object_id for e in expressions if e.object_id != expression.object_id]
        if others:
            shuffled.append(dataclasses.replace(expression, object_id=rng.choice(others)))
    return shuffled


def _picture(record, expression, frames, masks):
    truth = record.decode_masks() if expression.object_id > 0 else None
    if truth is None:
        return visualize.Row(expression.text, frames, masks)
    result = scoring.score_expression(truth, expression.object_id, masks)
    caption = f'J&F {50 * (np.mean(result["J"]) + np.mean(result["F"])):.0f}'
    return visualize.Row(expression.text, frames, masks, truth == expression.object_id, caption)
