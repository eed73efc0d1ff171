"""A model folder: everything that is needed to use a trained model.

model.safetensors   the parameters, path of ours -> array, with checksums
config.json         config.model, the sizes for evaluation, the format, where the model is from
tokenizer.json
README.md           the model card
"""

import contextlib
import json
import os
import pathlib
from typing import Any, NamedTuple

from flax import traverse_util
from ml_collections import ConfigDict
import numpy as np
import tokenizers

from sgmg_jax import checkpoints, files, systems
from sgmg_jax import config as configs
from sgmg_jax.convert import weights
from sgmg_jax.data import text

WEIGHTS, CONFIG, TOKENIZER, CARD = 'model.safetensors', 'config.json', 'tokenizer.json', 'README.md'
# Ends the name of the folder of evaluate.py --score_another_object, from before the option had its present name.
ANOTHER_OBJECT = '_shuffled'
SYSTEMS = {'sgmg': 'SgMg', 'fast_sgmg': 'Fast SgMg', 'soc': 'SOC'}
BACKBONES = {'tiny': 'Video-Swin-T', 'small': 'Video-Swin-S', 'base': 'Video-Swin-B'} | dict.fromkeys(
    ('demo', 'pocket'), 'a small Video Swin'
)


class Model(NamedTuple):
    """A trained model.

    config: the fields of config.model_to_json.
    parameters: path -> array.
    origin: where it is from, in words.
    """

    config: ConfigDict
    parameters: dict[str, np.ndarray]
    tokenizer: tokenizers.Tokenizer
    origin: str


def is_model_folder(path: str | os.PathLike) -> bool:
    """Whether there is a model folder, complete or not."""
    return (pathlib.Path(path) / WEIGHTS).exists() and (pathlib.Path(path) / CONFIG).exists()


def read(folder: str | os.PathLike) -> Model:
    """Reads a model folder.

    Raises:
        FileNotFoundError: naming the file that is missing.
        ValueError: naming the file and what is wrong with it: damaged, or weights of another model.
    """
    folder = pathlib.Path(folder)
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f'{folder / name}: no such file. A model folder has {CONFIG}, {WEIGHTS} and {TOKENIZER}; copy it again.'
            )
    content = files.read_json(folder / CONFIG, configs.LARGEST)
    config = configs.model_from_json(content, folder / CONFIG)
    try:
        shapes = systems.parameter_shapes(systems.build_model(config.model))
    except ValueError as error:
        raise ValueError(f'{folder / CONFIG}: {error}') from error
    parameters, _ = weights.load(folder / WEIGHTS, shapes)
    missing = sorted(set(traverse_util.flatten_dict(shapes, sep='/')) - set(parameters))
    if missing:
        raise ValueError(f'{folder / WEIGHTS}: lacks {len(missing)} parameters, first {missing[0]}. Copy it again.')
    origin = content.get('origin')
    return Model(
        config,
        parameters,
        text.load_tokenizer(folder / TOKENIZER),
        f'{folder}' + (f' ({files.one_line(origin, 300)})' if isinstance(origin, str) and origin else ''),
    )


def of_run(workdir: str | os.PathLike, checkpoint: str | int = 'best') -> tuple[Model, dict[str, str]]:
    """The model of a checkpoint of a training run, and what its model card should say of the run.

    Raises:
        FileNotFoundError: there is no run or no such checkpoint; lists what is there.
        ValueError: for a damaged workdir.
    """
    workdir = pathlib.Path(workdir)
    run = configs.read(workdir)
    tokenizer = text.load_tokenizer(workdir / TOKENIZER)
    with contextlib.closing(checkpoints.Checkpoints(workdir, read_only=True)) as saved:
        step = saved.find(checkpoint)
        saved.check_tokenizer(step, tokenizer)
        parameters = saved.restore_parameters(step, saved.parameter_shapes(step))
        score = saved.score(step)
    weights.check_finite(parameters, workdir)
    begun = configs.paths(run.init)
    facts = {
        'trained on': ', '.join(configs.paths(run.data.records)),
        'started from': ', '.join(begun) or 'new parameters',
        'training': f'step {step} of {run.steps or f"{run.epochs:g} epochs"}, batches of {run.data.batch_size} clips '
        f'of {run.data.num_frames} frames, seed {run.seed}',
    }
    if score is not None:
        facts['validation score of this step'] = f'{score:.1f} ({run.evaluation.videos or "all"} videos)'
    for file in sorted((workdir / 'evaluation').glob('*/scores.json')):
        split = file.parent.name.removesuffix(ANOTHER_OBJECT)
        title = f'{split}, scored against another object' if split != file.parent.name else split
        facts[title] = _scores(files.read_json(file))
    model = Model(run, {path: np.asarray(x) for path, x in parameters.items()}, tokenizer, f'{workdir}, step {step}')
    return model, {title: value for title, value in facts.items() if value}


def in_half_precision(model: Model) -> Model:
    """The model with parameters as float16; they are read as float32 again.

    Raises:
        ValueError: a parameter is too large for float16.
    """
    with np.errstate(over='ignore'):
        parameters = {path: x.astype(np.float16) for path, x in model.parameters.items()}
    weights.check_finite(parameters, f'{model.origin}, as float16')
    return model._replace(parameters=parameters)


def _scores(summary: Any) -> str:
    """The scores in a scores.json, in percent; with J&F per kind of sentence."""
    if not isinstance(summary, dict):
        return ''
    tags: Any = summary.get('tags')
    named = [(name, summary.get(name)) for name in ('J&F', 'J', 'F', 'mAP')]
    named += [(tag, means.get('J&F')) for tag, means in (tags or {}).items()]
    return ', '.join(f'{name} {x:.1f}' for name, x in named if isinstance(x, int | float))


def summary(config: Any) -> str:
    """A model in a few words."""
    model = config.model
    return (
        f'{SYSTEMS.get(model.name, model.name)}, {BACKBONES.get(model.backbone, model.backbone)}, '
        f'{model.queries} queries, {model.levels} levels, {model.encoder_layers} encoder and {model.decoder_layers} '
        'decoder layers'
    )


def write(model: Model, folder: str | os.PathLike, licence: str = '', facts: dict[str, str] | None = None) -> None:
    """Writes a model folder; it appears whole or not at all.

    Args:
        folder: must not exist.
        licence: of the weights, an identifier of Hugging Face's, such as 'cc-by-nc-4.0'; '': not known.
        facts: more rows of the model card, title -> text.

    Raises:
        FileExistsError: the folder exists.
        OSError: it cannot be written.
    """
    folder = files.check_new(pathlib.Path(folder).absolute())
    content = configs.model_to_json(model.config) | {'origin': model.origin}
    try:
        with files.new_folder(folder) as partial:
            weights.save(model.parameters, partial / WEIGHTS)
            text.save_tokenizer(model.tokenizer, partial)
            (partial / CONFIG).write_text(json.dumps(content, indent=2) + '\n')
            (partial / CARD).write_text(card(model, folder.name, licence, facts or {}))
    except OSError as error:
        reason = f'cannot write ({error.strerror or error}). Free some space, or check the path and its permissions'
        raise OSError(error.errno, reason, str(folder)) from error


def card(model: Model, name: str, licence: str, facts: dict[str, str]) -> str:
    """The model card, in Markdown."""
    config: Any = model.config
    count = sum(x.size for x in model.parameters.values())
    sizes = f'shorter side {config.evaluation.short_side}' + (
        f', longer side at most {config.evaluation.max_side}' if config.evaluation.max_side else ''
    )
    rows = {
        'system': SYSTEMS.get(config.model.name, config.model.name),
        'backbone': BACKBONES.get(config.model.backbone, config.model.backbone),
        'parameters': f'{count / 1e6:.1f} million',
        'frames': f'{sizes} pixels; up to {config.evaluation.clip_frames} at once',
        'from': model.origin,
        **facts,
        'licence of the weights': licence or 'not known: ask whoever trained them, and the owners of their data',
    }
    table = '\n'.join(f'| {title} | {files.one_line(value, 1000).replace("|", "/")} |' for title, value in rows.items())
    return f"""---
library_name: sgmg_jax
pipeline_tag: image-segmentation
license: {licence or 'other'}
tags:
- referring-video-object-segmentation
- jax
---

# {name}

Give it a video and a sentence; it returns the mask of that object in every frame.

| | |
|---|---|
{table}

## Use

```bash
python -m sgmg_jax.predict film.mp4 "the dog on the left" --model={name} --out=result
```

```python
from sgmg_jax import Predictor, video

predictor = Predictor.from_pretrained('{name}')
masks = predictor(video.read('film.mp4'), ['the dog on the left'])  # bool [sentences, frames, height, width]
```
"""
