"""Predict a split, write what a leaderboard takes, score it where there is ground truth, draw it.

Axis letters: T frames, H W pixels, E sentences.
"""
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import zlib

from absl import logging
import jax
import numpy as np
import tqdm

from sgmg_jax import compilation, files, hosts, score, visualize
from sgmg_jax import config as configs
from sgmg_jax.data import records
from sgmg_jax.evaluation import mean_ap, scoring
from sgmg_jax.inference import predict, protocols

PICTURES = 8  # rows of the contact sheet
COLUMNS = 5  # frames of a row


def evaluate(config, workdir, checkpoint='best', shuffled=False, progress=True):
    """Evaluates a checkpoint of the run in `workdir` on config.evaluation.split by config.evaluation.protocol; the
    weights of config.init where `workdir` holds no run.

    Leaves <workdir>/evaluation/<data set>_<split>/ with the benchmark's files (inference/protocols.py), overlays.png
    and, where there is ground truth, scores.json; the folder appears whole or not at all. When it is interrupted, the
    same command goes on after the last finished video, if all that the masks depend on is the same, see `identity_of`;
    otherwise it begins anew. With `shuffled`, every sentence is scored against another object: only
    <data set>_<split>_shuffled/scores.json. Several processes, which must all see `workdir`, share the videos; the
    first one does the rest. A second evaluation of the split in the same workdir is refused while one is at work.

    Returns:
        the summary of the benchmark's scores (score.score_submission), or None without ground truth, and where this
        is not the first process.

    Raises:
        FileNotFoundError: for a workdir without a run, or without such a checkpoint.
        ValueError: if the run's model is not config.model (names the fields); for config.init beside a run that began
            with other weights; for a damaged workdir; or if what was written would be rejected.
        BlockingIOError: if another process evaluates the same split in `workdir`.
        FloatingPointError: if the model gives what is no number.
    """
    workdir = pathlib.Path(workdir)
    compilation.keep_programs()
    configs.check(config)
    split, protocol = open_split(config, config.evaluation.split)
    name = split_name(split) + '_shuffled' * shuffled
    predictor = choose_predictor(config, workdir, checkpoint)
    logging.info('evaluating %s', predictor.origin)
    target, partial = (workdir / 'evaluation' / folder for folder in (name, f'.{name}'))
    with hosts.locked(workdir / 'evaluation' / f'.{name}.lock', 'evaluating'):
        if shuffled:
            summary = score_videos(predictor, split, config.evaluation.protocol, shuffled=True, progress=progress)
            if hosts.is_first():
                score.write_scores(target / 'scores.json', summary)
        else:
            if hosts.is_first():
                begin(partial, target, identity_of(config, predictor, split))
            hosts.wait('the evaluation can begin')
            write_predictions(predictor, split, protocol, partial, progress)
            hosts.wait('every video is written')
            summary = None
            if hosts.is_first():
                summary = finish(predictor, split, config.evaluation.protocol, protocol, partial, target, progress)
        hosts.wait('the evaluation is finished')  # A process that left before would be taken for dead.
    return summary if hosts.is_first() else None


def choose_predictor(config, workdir, checkpoint):
    """The run's in `workdir`, or, where there is none, that of config.init. Raises as `evaluate`."""
    if not (workdir / 'config.json').exists():
        if configs.paths(config.init):
            return predict.Predictor.from_weights(config)
        return predict.Predictor.from_workdir(workdir, checkpoint, config)  # which says what is missing
    begun_with = configs.paths(configs.read(workdir).init)
    if configs.paths(config.init) not in ((), begun_with):
        raise ValueError(f'config.init = {configs.paths(config.init)}: {workdir} holds a run, which began with '
                         f'{begun_with or "new parameters"}, and its checkpoints are what is evaluated there. Leave '
                         'out --config.init, or evaluate these weights in a new --workdir.')
    return predict.Predictor.from_workdir(workdir, checkpoint, config)


def identity_of(config, predictor, split):
    """All that the masks of an evaluation depend on, ready for JSON. An interrupted one goes on only with the same."""
    content = configs.to_json(config)
    return {
        'weights': [predictor.origin, fingerprint(predictor.parameters)],
        'tokenizer': zlib.crc32(predictor.tokenizer.to_str().encode()), 'text_length': config.data.text_length,
        'model': content['model'], 'evaluation': content['evaluation'],
        'records': [[str(path), path.stat().st_size, path.stat().st_mtime_ns]
                    for folder in split.directory.split(', ') for path in sorted(pathlib.Path(folder).iterdir())],
        'split': split.split, 'videos': len(split),
        'precision': jax.config.jax_default_matmul_precision, 'devices': jax.default_backend(), 'jax': jax.__version__}


def finish(predictor, split, benchmark, protocol, partial, target, progress):
    """What follows when every video is predicted, see `evaluate`."""
    submission = protocol.finish(partial / 'files', split.videos)
    summary = None
    if has_truth(split):
        # What would be uploaded is what is scored.
        summary = score.score_submission(benchmark, submission, split, progress) | {'weights': predictor.origin}
        score.write_scores(partial / 'files' / 'scores.json', summary)
    visualize.contact_sheet(pictures(split, protocol, partial / 'files'), partial / 'files' / 'overlays.png', COLUMNS)
    publish(partial, target)
    logging.info('written: %s', target)
    return summary


def open_split(config, split):
    """A split of the data set to evaluate on, checked to fit its protocol, and the protocol.

    Raises:
        ValueError: if several data sets are named, or videos do not fit the protocol.
    """
    directories = configs.paths(config.evaluation.records) or configs.paths(config.data.records)
    if len(directories) != 1:
        raise ValueError(f'config.evaluation.records: {directories} are {len(directories)} data sets; one is '
                         'evaluated at a time.')
    opened, protocol = records.open_records(directories, split), protocols.choose(config.evaluation.protocol)
    for video in opened.videos:
        protocol.check(video)
    name = pathlib.Path(opened.directory).parent.name
    usual = protocols.USUAL.get(name, config.evaluation.protocol)
    if usual != config.evaluation.protocol:
        logging.warning('config.evaluation.protocol = %r, but %s is a benchmark of the protocol %r: the files will not '
                        'be those that it takes, nor the scores comparable', config.evaluation.protocol, name, usual)
    return opened, protocol


def split_name(split):
    """Such as ref_youtube_vos_valid: the name of a folder."""
    return f'{pathlib.Path(split.directory).parent.name}_{re.sub(r"[^0-9a-zA-Z]+", "-", split.split).strip("-")}'


def has_truth(split):
    return any(e.object_id > 0 for video in split.videos for e in video.expressions)


def fingerprint(parameters):
    """A checksum of all parameters, nested."""
    value = 0
    for x in jax.tree.leaves(parameters):
        value = zlib.crc32(np.ascontiguousarray(x).view(np.uint8), value)
    return value


def begin(partial, target, identity):
    """Makes `partial` ready to be written to, and to be gone on with if it holds an evaluation of this identity."""
    if (partial / 'old').exists() and not target.exists():  # killed in the middle of `publish`
        os.replace(partial / 'old', target)
    path = partial / 'identity.json'
    try:
        before = files.read_json(path)
    except (OSError, ValueError):  # not begun, or killed in its first instant
        before = None
    if before == json.loads(json.dumps(identity)):
        logging.info('going on with the evaluation that was interrupted in %s', partial)
        for half_written in (partial / 'files').rglob('.partial-*'):
            half_written.unlink()
        return
    if isinstance(before, dict):
        differing = [name for name in identity if before.get(name) != json.loads(json.dumps(identity[name]))]
        logging.warning('an interrupted evaluation in %s was of other %s; it begins anew', partial,
                        ' and '.join(differing))
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ('files', 'done'):
        (partial / folder).mkdir(parents=True)
    with files.replacing(path) as new:
        new.write_text(json.dumps(identity))


def publish(partial, target):
    """Puts partial/files in the place of `target`. Killed at any instant, it leaves the old or the new one whole, or
    the old one where `begin` finds it."""
    (partial / 'identity.json').unlink()  # What is left from here on is never gone on with.
    old = partial / 'old'
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(partial / 'files', target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(partial)


def write_predictions(predictor, split, protocol, partial, progress=True):
    """Writes the predictions of every video that is not finished yet to partial/files; partial/done says which are."""
    finished = {int(path.name) for path in (partial / 'done').iterdir() if path.name.isdecimal()}
    for i in tqdm.tqdm(hosts.share(split), desc='predicting', unit='video', disable=not progress):
        if i not in finished:
            protocol.write(predictor, split[i], partial / 'files')
            (partial / 'done' / str(i)).touch()


def score_videos(predictor, split, benchmark, count=None, shuffled=False, progress=True, stopped=lambda: False):
    """Scores the first `count` videos of a split with ground truth (all by default) in memory.

    Args:
        benchmark: a protocol; those with J and F are scored by expression, also Ref-DAVIS17, and all sentences of a
          video are asked together, as many as config.evaluation.sentences allows.
        shuffled: see `shuffle_sentences`; sentences of videos with one object alone are left out.
        stopped: asked before every video, by every process as often; where it says yes, it does so to all.

    Returns:
        the summary of evaluation.scoring.summarise, or of evaluation.mean_ap.evaluate; the same in all processes,
        which share the videos. None if it was stopped.

    Raises:
        ValueError: for `shuffled` where only some frames are annotated.
    """
    if benchmark in protocols.ANNOTATED and shuffled:
        raise ValueError(f'config.evaluation.protocol = {benchmark!r}: sentences can only be shuffled where J and F '
                         "are scored, 'ytvos' and 'davis'.")
    split = split.first(count or len(split))

    def of_video(i):
        if benchmark in protocols.ANNOTATED:
            return protocols.predict_annotated(predictor, split[i], benchmark)
        return _score_expressions(predictor, split[i], random.Random(i) if shuffled else None)

    mine, found = hosts.share(split), {}
    turns = range(-(-len(split) // jax.process_count()))  # some processes have nothing to do in the last
    for turn in tqdm.tqdm(turns, desc='validation', unit='video', leave=False, disable=not progress):
        if stopped():
            return None
        found |= {i: of_video(i) for i in mine[turn:turn + 1]}
    rows = [row for of_one in hosts.gather(found) for row in of_one]
    if benchmark in protocols.ANNOTATED:
        return mean_ap.evaluate(score.truth_of_records(benchmark, split), rows)
    if shuffled and not rows:
        raise ValueError(f'{split.directory}, split {split.split!r}: no video has sentences about two objects, so '
                         'there is no other object to score a sentence against.')
    return scoring.summarise(rows)


def _score_expressions(predictor, record, shuffling):
    expressions = record.video.expressions
    if shuffling:
        expressions = shuffle_sentences(expressions, shuffling)
    if not expressions:
        return []
    truth = record.decode_masks()
    masks = predictor(record.decode_frames(), [e.text for e in expressions])
    return [scoring.score_expression(truth, e.object_id, mask)
            | {'video': record.video.name, 'expression': e.id, 'tags': e.tags} for e, mask in zip(expressions, masks)]


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


def pictures(split, protocol, folder):
    """visualize.Row for one sentence of some videos, spread over the split; masks are those that were written."""
    rows = []
    for i in np.unique(np.linspace(0, len(split) - 1, min(PICTURES, len(split))).astype(int)).tolist():
        record = split[i]
        video = record.video
        expression = video.expressions[len(rows) % len(video.expressions)]
        known = video.annotated_frames(expression.object_id)
        frames = known if protocol.annotated else range(len(video.frame_names))
        frames = np.unique(np.linspace(0, len(frames) - 1, min(COLUMNS, len(frames))).astype(int)).tolist()
        frames = [known[t] for t in frames] if protocol.annotated else frames
        if not frames:
            continue
        masks = np.stack([protocol.read(folder, video, expression, t) for t in frames])
        truth = None
        if expression.object_id > 0:
            truth = np.stack([record.decode_object(expression.object_id, t) for t in frames])
        rows.append(visualize.Row(expression.text, record.decode_frames(frames), masks, truth))
    return rows
