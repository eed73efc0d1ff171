"""Predicts a split, writes the benchmark's files, scores them if there is ground truth, and draws some.

Axis letters: T frames, H W pixels, E sentences.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
from typing import Any
import zlib

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np
import tqdm

from sgmg_jax import compilation, files, hosts, score, visualize
from sgmg_jax import config as configs
from sgmg_jax.convert.folder import ANOTHER_OBJECT
from sgmg_jax.data import metadata, records
from sgmg_jax.evaluation import mean_ap, mevis, region_boundary, scoring
from sgmg_jax.inference import parallel, protocols
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.score import ytvos

PICTURES = 8  # rows of the contact sheet
COLUMNS = 5  # frames per row


def evaluate(
    config: ConfigDict,
    workdir: str | os.PathLike,
    checkpoint: str | int = 'best',
    score_another_object: bool = False,
    progress: bool = True,
) -> dict | None:
    """Evaluates a checkpoint of the run in `workdir`, or the weights of config.init if it holds no run, on
    config.evaluation.split with config.evaluation.protocol.

    Writes <workdir>/evaluation/<data set>_<split>/ with the benchmark's files (inference/protocols.py), overlays.png
    and, if there is ground truth, scores.json. The folder appears whole or not at all. An interrupted evaluation
    resumes after its last finished video if everything that its masks depend on is the same (see `identity_of`);
    otherwise it starts from scratch. Several processes, which must all see `workdir`, share the videos; the first one
    does the rest. A second evaluation of the same split in the same workdir is refused while one is running.

    Args:
        score_another_object: score each mask against another object of its video, and write only
            <data set>_<split>_shuffled/scores.json. See `swap_objects`.

    Returns:
        the summary of the benchmark's scores (score.score_submission); None without ground truth and in all processes
        but the first.

    Raises:
        FileNotFoundError: `workdir` holds no run, or the checkpoint is missing.
        ValueError: if the run's model is not config.model (names the fields); for config.init beside a run that started
            from other weights; for a damaged workdir; or if the benchmark would reject the files.
        BlockingIOError: if another process evaluates the same split in `workdir`.
        FloatingPointError: if the model's output is not finite.
    """
    workdir = pathlib.Path(workdir)
    compilation.keep_programs()
    configs.check(config)
    split, protocol = open_split(config, config.evaluation.split)
    name = split_name(split) + ANOTHER_OBJECT * score_another_object
    predictor = choose_predictor(config, workdir, checkpoint)
    logging.info('evaluating %s', predictor.origin)
    target, partial = (workdir / 'evaluation' / folder for folder in (name, f'.{name}'))
    with hosts.locked(workdir / 'evaluation' / f'.{name}.lock', 'evaluating'):
        if score_another_object:
            summary = score_videos(predictor, split, config.evaluation.protocol, another_object=True, progress=progress)
            if summary and hosts.is_first():
                score.write_scores(target / 'scores.json', summary)
        else:
            if hosts.is_first():
                begin(partial, target, identity_of(config, predictor, split))
            hosts.wait('the evaluation can begin')
            write_predictions(parallel.on_all_devices(predictor), split, protocol, partial, progress)
            hosts.wait('every video is written')
            summary = None
            if hosts.is_first():
                summary = finish(predictor, split, config.evaluation.protocol, partial, target, progress)
        hosts.wait('the evaluation is finished')  # A process that exits earlier would be taken for dead.
    return summary if hosts.is_first() else None


def choose_predictor(config: ConfigDict, workdir: pathlib.Path, checkpoint: str | int) -> Predictor:
    """The model of the run in `workdir`, or of config.init if it holds no run. Raises as `evaluate` does."""
    if not (workdir / 'config.json').exists():
        if configs.paths(config.init):
            return Predictor.from_weights(config)
        return Predictor.from_workdir(workdir, checkpoint, config)  # raises what is missing
    begun_with = configs.paths(configs.read(workdir).init)
    if configs.paths(config.init) not in ((), begun_with):
        raise ValueError(
            f'config.init = {configs.paths(config.init)}: {workdir} holds a run that started from '
            f'{begun_with or "new parameters"}, and evaluation there uses its checkpoints. Leave out '
            '--config.init, or evaluate these weights in a new --workdir.'
        )
    return Predictor.from_workdir(workdir, checkpoint, config)


def identity_of(config: ConfigDict, predictor: Predictor, split: records.Records) -> dict[str, Any]:
    """Everything that the masks of an evaluation depend on, as JSON values; it resumes only if all are the same."""
    content = configs.to_json(config)
    return {
        'weights': [predictor.origin, fingerprint(predictor.parameters or {})],
        'tokenizer': zlib.crc32(predictor.tokenizer.to_str().encode()),
        'text_length': config.data.text_length,
        'model': content['model'],
        'evaluation': content['evaluation'],
        'records': [
            [str(path), path.stat().st_size, path.stat().st_mtime_ns]
            for folder in split.directory.split(', ')
            for path in sorted(pathlib.Path(folder).iterdir())
        ],
        'split': split.split,
        'videos': len(split),
        # JAX defines the attributes of its config at run time.
        'precision': jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        'devices': jax.default_backend(),
        'jax': jax.__version__,
    }


def finish(
    predictor: Predictor,
    split: records.Records,
    benchmark: str,
    partial: pathlib.Path,
    target: pathlib.Path,
    progress: bool,
) -> dict | None:
    """The last part of `evaluate`, once every video is predicted: joins, scores and draws the predictions."""
    protocol = protocols.choose(benchmark)
    submission = protocol.finish(partial / 'files', split.videos)
    summary = None
    if has_truth(split):
        # Scores the file that would be uploaded.
        summary = score.score_submission(benchmark, submission, split, progress) | {'weights': predictor.origin}
        score.write_scores(partial / 'files' / 'scores.json', summary)
    visualize.contact_sheet(pictures(split, protocol, partial / 'files'), partial / 'files' / 'overlays.png', COLUMNS)
    publish(partial, target)
    logging.info('written: %s', target)
    return summary


def open_split(config: ConfigDict, split: str) -> tuple[records.Records, protocols.Protocol]:
    """Opens a split of the data set to evaluate on and its protocol, and checks that they fit.

    Raises:
        ValueError: for several data sets, or if a video does not fit the protocol.
    """
    directories = configs.paths(config.evaluation.records) or configs.paths(config.data.records)
    if len(directories) != 1:
        raise ValueError(f'config.evaluation.records: {directories} are {len(directories)} data sets; give one.')
    opened, protocol = records.open_records(directories, split), protocols.choose(config.evaluation.protocol)
    for video in opened.videos:
        protocol.check(video)
    if config.evaluation.threshold and config.evaluation.protocol not in protocols.EMPTYING:
        raise ValueError(
            f'config.evaluation.threshold = {config.evaluation.threshold}: the protocol '
            f'{config.evaluation.protocol!r} has no empty masks. Set it to 0, or use one of the protocols '
            f'{", ".join(protocols.EMPTYING)}.'
        )
    name = pathlib.Path(opened.directory).parent.name
    usual = protocols.USUAL.get(name, config.evaluation.protocol)
    if usual != config.evaluation.protocol:
        logging.warning(
            'config.evaluation.protocol = %r, but %s uses the protocol %r: the benchmark will not accept '
            'the files, and the scores are not comparable',
            config.evaluation.protocol,
            name,
            usual,
        )
    return opened, protocol


def split_name(split: records.Records) -> str:
    """A folder name such as ref_youtube_vos_valid."""
    return f'{pathlib.Path(split.directory).parent.name}_{re.sub(r"[^0-9a-zA-Z_]+", "-", split.split).strip("-")}'


def has_truth(split: records.Records) -> bool:
    """Whether the split has ground truth."""
    return any(e.objects is not None for video in split.videos for e in video.expressions)


def fingerprint(parameters: Mapping) -> int:
    """A checksum of nested parameters."""
    value = 0
    for x in jax.tree.leaves(parameters):
        value = zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data, value)
    return value


def begin(partial: pathlib.Path, target: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Prepares the folder `partial`: resumes the evaluation in it if it has this identity, else empties it."""
    if (partial / 'old').exists() and not target.exists():  # `publish` was killed halfway
        os.replace(partial / 'old', target)
    path = partial / 'identity.json'
    try:
        before = files.read_json(path)
    except (OSError, ValueError):  # not started, or killed just after
        before = None
    if before == json.loads(json.dumps(identity)):
        logging.info('resuming the interrupted evaluation in %s', partial)
        for half_written in (partial / 'files').rglob('.partial-*'):
            half_written.unlink()
        return
    if isinstance(before, dict):
        differing = [name for name in identity if before.get(name) != json.loads(json.dumps(identity[name]))]
        logging.warning(
            'the interrupted evaluation in %s had a different %s; starting from scratch',
            partial,
            ' and '.join(differing),
        )
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ('files', 'done'):
        (partial / folder).mkdir(parents=True)
    with files.replacing(path) as new:
        new.write_text(json.dumps(identity))


def publish(partial: pathlib.Path, target: pathlib.Path) -> None:
    """Replaces `target` with partial/files. If it is killed, `target` is the whole old folder or the whole new one, or
    the old one is where `begin` finds it."""
    (partial / 'identity.json').unlink()  # From here on the evaluation cannot be resumed.
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


def write_predictions(
    predictors: Sequence[Predictor],
    split: records.Records,
    protocol: protocols.Protocol,
    partial: pathlib.Path,
    progress: bool = True,
) -> None:
    """Writes the predictions of every unfinished video to partial/files; partial/done lists the finished ones.

    Args:
        predictors: see parallel.each_video.
    """
    finished = {int(path.name) for path in (partial / 'done').iterdir() if path.name.isdecimal()}
    mine = [i for i in hosts.share(split) if i not in finished]

    def write(predictor: Predictor, i: int) -> None:
        protocol.write(predictor, split[i], partial / 'files')
        (partial / 'done' / str(i)).touch()

    done = parallel.each_video(predictors, mine, write)
    for _ in tqdm.tqdm(done, total=len(mine), desc='predicting', unit='video', disable=not progress):
        pass


def score_videos(
    predictor: Predictor,
    split: records.Records,
    benchmark: str,
    count: int | None = None,
    *,
    another_object: bool = False,
    progress: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> dict | None:
    """Scores the first `count` videos (default: all) of a split with ground truth, in memory.

    Args:
        benchmark: a protocol. Those with J and F, also Ref-DAVIS17, are scored per expression; the predictor gets all
          sentences of a video at once and processes up to config.evaluation.sentences together.
        another_object: see `swap_objects`; videos with a single object are left out.
        stopped: see parallel.rows_of_videos.

    Returns:
        the summary of evaluation.scoring.summarise, mevis.summarise or mean_ap.evaluate, the same in all processes,
        which share the videos. None if it was stopped.

    Raises:
        ValueError: for `another_object` with a benchmark that annotates only some frames.
    """
    if benchmark in protocols.ANNOTATED and another_object:
        raise ValueError(
            f'config.evaluation.protocol = {benchmark!r}: --score_another_object needs a protocol that '
            "scores J and F, 'ytvos', 'davis' or 'mevis'."
        )
    split = split.first(count or len(split))

    def of_video(predictor: Predictor, i: int) -> list[dict]:
        if benchmark in protocols.ANNOTATED:
            return protocols.predict_annotated(predictor, split[i], benchmark)
        return _score_expressions(predictor, split[i], random.Random(i) if another_object else None)

    rows = parallel.rows_of_videos(predictor, split, of_video, progress, stopped)
    if rows is None:
        return None
    if benchmark in protocols.ANNOTATED:
        return mean_ap.evaluate(score.truth_of_records(benchmark, split), rows)
    if another_object and not rows:
        raise ValueError(
            f'{split.directory}, split {split.split!r}: no video has sentences about two objects, so '
            '--score_another_object has no other object to score against. Choose another split.'
        )
    return (mevis.summarise if benchmark == 'mevis' else scoring.summarise)(rows)


def _score_expressions(predictor: Predictor, record: records.Record, rng: random.Random | None) -> list[dict]:
    """Scores of each expression; with `rng`, against another object (`swap_objects`)."""
    expressions: Sequence[metadata.Expression] = record.video.expressions
    if rng:
        expressions = swap_objects(expressions, rng)
    if not expressions:
        return []
    truth_of = ytvos.read_truth(record)
    masks = predictor(record.decode_frames(), [e.text for e in expressions])
    return [ytvos.score_expression(record.video, e, truth_of, mask) for e, mask in zip(expressions, masks)]


def swap_objects(expressions: Sequence[metadata.Expression], rng: random.Random) -> list[metadata.Expression]:
    """Replaces the object of each expression by another object of the video, or its objects by those of a sentence that
    shares none with it; drops expressions without another one, and those that refer to nothing.

    A sanity check: a model that uses the sentence should score low against these objects. A model that finds objects
    but ignores the sentence scores as high as before.
    """
    swapped = []
    for expression in expressions:
        mine = set(expression.objects or ())
        others = [e for e in expressions if mine and mine.isdisjoint(e.objects or mine)]
        if others:
            other = rng.choice(others)
            swapped.append(dataclasses.replace(expression, object_id=other.object_id, group=other.group))
    return swapped


def pictures(split: records.Records, protocol: protocols.Protocol, folder: pathlib.Path) -> list[visualize.Row]:
    """One sentence of each of PICTURES videos, spread over the split: the masks that were written, and their mean J in
    the frames that are shown."""
    rows: list[visualize.Row] = []
    for i in np.unique(np.linspace(0, len(split) - 1, min(PICTURES, len(split))).astype(int)).tolist():
        record = split[i]
        video = record.video
        expression = video.expressions[len(rows) % len(video.expressions)]
        known = video.annotated_frames(expression.object_id)
        frames = known if protocol.annotated else list(range(len(video.frame_names)))
        frames = [frames[t] for t in np.unique(np.linspace(0, len(frames) - 1, min(COLUMNS, len(frames))).astype(int))]
        if not frames:
            continue
        masks = np.stack([protocol.read(folder, video, expression, t) for t in frames])
        truth, shown = None, None
        if video.mask_layers is not None:
            truth = record.decode_targets(frames)(expression)
        elif expression.object_id > 0:
            truth = np.stack([record.decode_object(expression.object_id, t) for t in frames])
        if truth is not None:
            shown = f'J {100 * np.mean(region_boundary.region_similarity(truth, masks)):.1f}'
        rows.append(visualize.Row(expression.text, record.decode_frames(frames), masks, truth, shown))
    return rows
