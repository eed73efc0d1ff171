"""The model that a training run left in its workdir: its config and the parameters of a checkpoint."""

import contextlib
import os
import pathlib
from typing import no_type_check

from flax import linen as nn
from flax import traverse_util
import jax
from ml_collections import ConfigDict
import tokenizers

from sgmg_jax import checkpoints, files, systems
from sgmg_jax import config as configs
from sgmg_jax.convert import folder
from sgmg_jax.data import text
from sgmg_jax.models import roberta

FREE = {'remat', 'dtype', 'inference_layer'}  # fields of config.model that may differ from those of the training run


def check_model(config: ConfigDict | None, workdir: str | os.PathLike) -> ConfigDict:
    """`config`, checked to describe the model of the run in `workdir`; the run's own config for None.

    Raises:
        FileNotFoundError: `workdir` holds no run.
        ValueError: naming the fields of config.model that differ (except those in FREE); for a damaged config.json.
    """
    trained = configs.read(workdir)
    if config is None:
        return trained
    configs.check(config)
    _check_same(config, trained, workdir)
    return config


def check_init(config: ConfigDict) -> None:
    """Checks that config.model describes the models of those paths of config.init that have a config of their own:
    workdirs and model folders. It names fields, where the weights would only show shapes.

    Raises:
        ValueError: naming the fields that differ (except those in FREE); for a damaged config.json.
    """
    for path in configs.paths(config.init):
        if folder.is_model_folder(path):
            file = pathlib.Path(path) / folder.CONFIG
            _check_same(config, configs.model_from_json(files.read_json(file, configs.LARGEST), file), path)
        elif (pathlib.Path(path) / 'config.json').is_file() and (pathlib.Path(path) / 'checkpoints').is_dir():
            _check_same(config, configs.read(path), path)


def tokenizer_path(config: ConfigDict) -> str | None:
    """The path of config.data.tokenizer or, if that is None, of the tokenizer beside the weights of config.init, in a
    workdir or model folder; None without either.

    Raises:
        ValueError: both are there and differ, or two of config.init differ: the text encoder knows only one.
    """
    given = config.data.tokenizer
    beside = [path for path in configs.paths(config.init) if (pathlib.Path(path) / 'tokenizer.json').is_file()]
    found = [given] * (given is not None) + beside
    for path in found[1:]:
        if text.load_tokenizer(path).get_vocab() != text.load_tokenizer(found[0]).get_vocab():
            raise ValueError(
                f'{found[0]} and {path} hold different tokenizers, but the text encoder knows only one. Leave out '
                'config.data.tokenizer to use the one beside the weights of config.init.'
            )
    return found[0] if found else None


def _check_same(config: ConfigDict, trained: ConfigDict, where: str | os.PathLike) -> None:
    different = [
        f'config.model.{field} was {trained.model.get(field)!r}, is now {config.model.get(field)!r}'
        for field in sorted({*trained.model, *config.model} - FREE)
        if trained.model.get(field) != config.model.get(field)
    ]
    if different:
        raise ValueError(
            f'{where}: holds checkpoints of another model: {"; ".join(different)}. Give the config it was trained with.'
        )


@no_type_check  # checks its own arguments
def restore_parameters(
    model: nn.Module,
    workdir: str | os.PathLike,
    checkpoint: str | int = 'best',
    tokenizer: tokenizers.Tokenizer | None = None,
) -> tuple[int, dict]:
    """Step and nested parameters of a checkpoint of the run in `workdir`. If `tokenizer` is given, it must be the one
    that the checkpoint was trained with. Raises as `Predictor.from_workdir` does."""
    with contextlib.closing(checkpoints.Checkpoints(workdir, read_only=True)) as saved:
        step = saved.find(checkpoint)
        if tokenizer:
            saved.check_tokenizer(step, tokenizer)
        restored = saved.restore_parameters(step, parameter_shapes(model))
    return step, traverse_util.unflatten_dict(restored, sep='/')


def parameter_shapes(model: nn.Module) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the model's parameters, by path. Computes nothing."""
    return traverse_util.flatten_dict(systems.parameter_shapes(model), sep='/')


def check_vocabulary(tokenizer: tokenizers.Tokenizer, text_encoder: roberta.Size) -> None:
    """Raises ValueError for a tokenizer with tokens that the text encoder does not have."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= text_encoder.vocabulary:
        raise ValueError(
            f'the tokenizer has a token {highest}, but config.model.text_encoder has '
            f'{text_encoder.vocabulary} tokens. Give the tokenizer that belongs to the weights, or the '
            'text encoder that belongs to the tokenizer.'
        )
