"""The allowed values of each config field, and how to read configs that earlier versions stored.

configs/common.py defines the fields and their defaults. A run stores its config in its workdir and in every checkpoint,
with a format number. `from_json` turns a config of any earlier version into a current one with the same meaning.
"""

from collections.abc import Callable, Iterator, Mapping
import difflib
import json
import os
import pathlib
from typing import Any, NamedTuple, Protocol

from absl import logging
from ml_collections import ConfigDict

from sgmg_jax import files

# Raise it with every field that is added, changed or renamed, and list the field in ADDED or RENAMED.
FORMAT = 5
MOST_PIXELS = 2**32  # per batch of clips; 50 GB as float32
LARGEST = 2**24  # bytes of a stored config


class Added(NamedTuple):
    """A field that earlier formats lack, or have with other values.

    format: the first format that has the field so. path: its name. value: the value that resumes an earlier run as it
    began, or a function(stored config) -> value. system: the only config.model.name that has the field; None: all.
    changed: whether earlier formats have it.
    """

    format: int
    path: str
    value: Any | Callable[[dict], Any]
    system: str | None = None
    changed: bool = False


def _remat_of_switch(config: dict) -> Any:
    remat = config['model']['remat']
    return ('hidden', 'blocks')[remat] if isinstance(remat, bool) else remat


REMAT = 'nothing', 'hidden', 'blocks'  # of models.chunks, whose import would take seconds
ADDED = (
    Added(1, 'storage_shards', 1),
    Added(1, 'accumulate', 1),
    Added(1, 'ema_decay', 0.0),
    Added(1, 'stop_after_skipped', 20),
    Added(1, 'init', []),
    Added(1, 'init_skip', ''),
    Added(1, 'loss', {}),
    Added(1, 'data.sentences', 1),
    Added(1, 'data.consecutive', False),
    Added(1, 'evaluation.sentences', 1),
    Added(1, 'optimizer.batch_size', lambda config: config['data']['batch_size']),
    Added(3, 'evaluation.threshold', 0.0),
    *(
        Added(4, f'model.{name}', value, system)
        for system in ('sgmg', 'fast_sgmg')
        for name, value in dict(fusion='spectrum', labels=16, optimizer=True, feature_decoder=False).items()
    ),
    Added(4, 'model.fusion_direction', 'both', 'soc'),
    Added(4, 'model.aggregation', 'cluster', 'soc'),
    Added(4, 'loss.contrast', True, 'soc'),
    Added(5, 'model.remat', _remat_of_switch, changed=True),
)


class Renamed(NamedTuple):
    """A field that earlier formats have under another name. format: the first format that uses `new`."""

    format: int
    old: str
    new: str


RENAMED = (Renamed(2, 'fsdp', 'storage_shards'),)


class Rule(Protocol):
    """What a field may be. fault: why a value is not allowed, or None."""

    def fault(self, value: object) -> str | None: ...


class Number(NamedTuple):
    """A number from `low` to `high`; an integer unless `whole` is False; None is allowed if `optional`."""

    low: float
    high: float
    whole: bool = True
    optional: bool = False

    def fault(self, value: object) -> str | None:
        if value is None and self.optional:
            return None
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not self.low <= value <= self.high:
            kind = 'a whole number' if self.whole else 'a number'
            return f'must be {kind} from {self.low:g} to {self.high:g}' + ', or None' * self.optional
        return None


class OneOf(NamedTuple):
    choices: tuple

    def fault(self, value: object) -> str | None:
        if not any(value is choice or type(value) is type(choice) and value == choice for choice in self.choices):
            return f'must be one of {", ".join(map(repr, self.choices))}'
        return None


class Text(NamedTuple):
    optional: bool = False
    empty: bool = False

    def fault(self, value: object) -> str | None:
        if value is None and self.optional or isinstance(value, str) and (value or self.empty):
            return None
        return 'must be a string' + ', or None' * self.optional


class Several(NamedTuple):
    """A tuple or list of at least `least` items, or of exactly `length`, each allowed by `item`. If `single`, a string
    stands for a tuple of one."""

    item: Rule
    least: int = 0
    length: int | None = None
    single: bool = False

    def fault(self, value: object) -> str | None:
        if self.single and isinstance(value, str):
            value = (value,)
        many = f'{self.length}' if self.length is not None else f'at least {self.least}'
        if not isinstance(value, tuple | list) or (
            len(value) != self.length if self.length is not None else len(value) < self.least
        ):
            return f'must be a tuple of {many} items'
        return next((f'{fault} (item {i})' for i, x in enumerate(value) if (fault := self.item.fault(x))), None)


class Group(NamedTuple):
    def fault(self, value: object) -> str | None:
        if not isinstance(value, tuple | list) or len(value) != 2 or Text().fault(value[0]) or _RATE.fault(value[1]):
            return 'must be (regular expression, learning rate)'
        return None


def _count(high: int, low: int = 1, optional: bool = False) -> Number:
    return Number(low, high, optional=optional)


_SWITCH, _PROBABILITY, _PATHS = OneOf((False, True)), Number(0, 1, whole=False), Several(Text(), single=True)
_FRACTION = Number(0, 0.999999, whole=False)  # [0, 1)
_RATE = Number(0, 100, whole=False)
_STEPS = 10**9
_SIDE = _count(8192, 16)
RULES: dict[str, Rule] = {
    'seed': Number(0, 2**31 - 1),
    'steps': Number(0, _STEPS),
    'epochs': Number(0, 1e6, whole=False),
    **{name: _count(_STEPS) for name in ('log_every', 'eval_every', 'checkpoint_every', 'stop_after_skipped')},
    'init': _PATHS,
    'init_skip': Text(empty=True),
    'storage_shards': _count(2**16),
    'accumulate': _count(2**16),
    'ema_decay': _FRACTION,
    'loss.weights': Text(),
    'loss.contrast': _SWITCH,
    **{f'loss.{name}_scale': Number(0, 1000, whole=False) for name in ('mask', 'class')},
    'model.name': Text(),
    'model.backbone': Text(),
    'model.text_encoder': Text(),
    **{f'model.{name}': _count(2**14) for name in ('hidden', 'mlp', 'cluster_mlp')},
    **{f'model.{name}': _count(1000) for name in ('queries', 'classes')},
    **{f'model.{name}': _count(64) for name in ('levels', 'heads', 'points', 'encoder_layers', 'decoder_layers')},
    **{f'model.cluster_{name}_layers': Number(0, 64) for name in ('encoder', 'decoder')},
    'model.labels': OneOf((1, 16)),
    'model.cluster_window': Number(0, 10_000),
    **{f'model.{name}': _SWITCH for name in ('box_refinement', 'relative_coordinates', 'optimizer', 'feature_decoder')},
    **{f'model.{name}': _FRACTION for name in ('dropout', 'text_dropout', 'drop_path')},
    'model.remat': OneOf(REMAT),
    'model.dtype': OneOf(('float32', 'bfloat16')),
    **{
        f'model.{name}': Text()
        for name in ('decoupling', 'fusion', 'fusion_direction', 'aggregation', 'inference_layer', 'contrast_scale')
    },
    'data.records': _PATHS._replace(least=1),
    **{f'data.{name}_split': Text() for name in ('train', 'valid')},
    'data.tokenizer': Text(optional=True),
    'data.num_frames': _count(1000),
    'data.sentences': _count(1000),
    'data.frame_size': Several(_SIDE, length=2),
    'data.text_length': _count(2**14, 3),
    'data.batch_size': _count(2**20),
    'data.workers': Number(0, 1000),
    'data.reverse_probability': _PROBABILITY,
    'data.consecutive': _SWITCH,
    'data.on_bad_clip': OneOf(('raise', 'skip')),
    'data.augmentation.order': Several(Text()),
    **{f'data.augmentation.{name}': Several(_SIDE, least=1) for name in ('scales', 'crop_scales', 'cropped_scales')},
    **{f'data.augmentation.{name}': _SIDE for name in ('max_size', 'cropped_max_size')},
    'data.augmentation.crop_size': Several(_SIDE, length=2),
    **{f'data.augmentation.{name}': _PROBABILITY for name in ('crop_probability', 'flip_probability')},
    **{f'evaluation.{name}': Text() for name in ('protocol', 'split')},
    'evaluation.records': _PATHS,
    'evaluation.short_side': _SIDE,
    'evaluation.max_side': _SIDE._replace(optional=True),
    'evaluation.clip_frames': _count(1000),
    'evaluation.sentences': _count(1000),
    'evaluation.threshold': _PROBABILITY,
    'evaluation.videos': _count(_STEPS, optional=True),
    'optimizer.batch_size': _count(2**20),
    'optimizer.learning_rate': _RATE,
    'optimizer.groups': Several(Group()),
    'optimizer.freeze': Several(Text()),
    'optimizer.weight_decay': _RATE,
    'optimizer.clip_norm': Number(1e-12, 1e12, whole=False),
    'optimizer.warmup_steps': Number(0, _STEPS),
    'optimizer.drop_steps': Several(Number(0, _STEPS)),
    'optimizer.drop_epochs': Several(Number(0, 1e6, whole=False)),
}
MODEL_NEEDS = 'model.name', 'model.backbone', 'model.text_encoder', 'model.dtype'
# Beside config.model, what a model folder stores; see convert/folder.py.
MODEL_FIELDS = (
    'data.text_length',
    'evaluation.short_side',
    'evaluation.max_side',
    'evaluation.clip_frames',
    'evaluation.sentences',
)
SECTIONS = {path.rpartition('.')[0] for path in RULES} - {''}


def check(config: ConfigDict, where: str = 'config') -> None:
    """Checks each field on its own, before the command spends memory or time.

    Whether fields fit each other, the data and the weights is checked where they meet.

    Args:
        where: the prefix of the field's name in messages.

    Raises:
        ValueError: for a field that is unknown, missing or out of range; names it and the allowed values.
    """
    found = dict(fields(config))
    _check_values(found, where)
    absent = next((path for path in RULES if path not in found and not path.startswith(('model.', 'loss.'))), None)
    absent = absent or next((path for path in MODEL_NEEDS if path not in found), None)
    if absent:
        raise ValueError(f'{where}.{absent}: is missing. See configs/common.py for its default.')
    height, width = found['data.frame_size']
    pixels = found['data.batch_size'] * found['data.num_frames'] * height * width
    if pixels > MOST_PIXELS:
        raise ValueError(
            f'{where}.data: batch_size, num_frames and frame_size make {pixels:,} pixels per step; '
            f'the limit is {MOST_PIXELS:,}. Lower one of them.'
        )


def _check_values(values: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for a path -> value that is unknown or out of range."""
    for path, value in values.items():
        check_field(path, where)
        fault = RULES[path].fault(value)
        if fault:
            raise ValueError(f'{where}.{path} = {value!r:.200}: {fault}.')


def check_field(path: str, where: str = 'config') -> None:
    """Raises ValueError for an unknown field; suggests the closest known one."""
    if path not in RULES:
        renamed = next((field.new for field in RENAMED if field.old == path), None)
        if renamed:
            raise ValueError(f'{where}.{path}: is now called {where}.{renamed}.')
        near = ''.join(f' Did you mean {name}?' for name in difflib.get_close_matches(path, RULES, 1))
        raise ValueError(f'{where}.{path}: there is no such field. See configs/common.py for all fields.{near}')


def fields(config: Mapping | ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """(path, value) of every field of a config or of its JSON; paths join sections with dots."""
    for name, value in config.items():
        path = f'{prefix}{name}'
        if hasattr(value, 'items'):
            yield from fields(value, f'{path}.')
        else:
            yield path, value


def paths(value: str | os.PathLike | tuple | list) -> tuple[str, ...]:
    """The paths in config.init or `records`, which take one path or several."""
    return (os.fspath(value),) if isinstance(value, str | os.PathLike) else tuple(map(os.fspath, value))


def to_json(config: ConfigDict) -> dict:
    """A config as plain values for JSON, with the format number; tuples become lists."""
    content = json.loads(config.to_json())
    content['init'] = list(paths(content['init']))
    for section in ('data', 'evaluation'):
        content[section]['records'] = list(paths(content[section]['records']))
    return content | {'format': FORMAT}


def from_json(content: object, where: str | os.PathLike) -> ConfigDict:
    """The inverse of `to_json`, also for what earlier versions wrote.

    Args:
        where: the file that `content` is from, for messages.

    Raises:
        ValueError: naming `where`: a later version wrote it, or it is not a config.
    """
    stored, format_ = _upgraded(content, where, 'the config of a run. Restore the file from a copy of the workdir')
    if format_ < 1 and stored.get('accumulate') not in (None, 1):
        logging.warning(
            '%s: accumulate = %s. The earlier version that started this run normalised the loss of each '
            'part on its own; from here on the loss is normalised over the whole batch.',
            where,
            stored['accumulate'],
        )
    config = ConfigDict(stored)
    check(config, f'{where}: config')
    return config


def model_to_json(config: ConfigDict) -> dict:
    """The fields that a trained model needs to be used, as plain values for JSON: config.model and MODEL_FIELDS."""
    content = json.loads(config.to_json())
    return {'format': FORMAT, 'model': content['model']} | _nested({path: _get(content, path) for path in MODEL_FIELDS})


def model_from_json(content: object, where: str | os.PathLike) -> ConfigDict:
    """The inverse of `model_to_json`, also for what earlier versions wrote. Raises as `from_json` does."""
    stored, _ = _upgraded(content, where, 'the config.json of a model folder. Restore the file from a copy')
    kept = {path: value for path, value in fields(stored) if path.startswith('model.') or path in MODEL_FIELDS}
    for path in (*MODEL_NEEDS, *MODEL_FIELDS):
        if path not in kept:
            raise ValueError(f'{where}: config.{path}: is missing. Restore the file from a copy.')
    _check_values(kept, f'{where}: config')
    return ConfigDict(_nested(kept))


def _nested(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The inverse of `fields` for paths of a section and a name."""
    sections: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _, name = path.partition('.')
        sections.setdefault(section, {})[name] = value
    return sections


def _upgraded(content: object, where: str | os.PathLike, what: str) -> tuple[dict[str, Any], int]:
    """A copy of a stored config with the fields of the current format, without the format number; and that number."""
    if not isinstance(content, dict):
        raise ValueError(f'{where}: holds a {type(content).__name__}, not {what}.')
    stored: dict[str, Any] = json.loads(json.dumps(content))
    format_ = stored.pop('format', 0)
    if type(format_) is not int or not 0 <= format_ <= FORMAT:
        raise ValueError(
            f'{where}: format = {format_!r:.50}; this version of sgmg_jax reads formats up to {FORMAT}. '
            'Use the later version that wrote the file.'
        )
    for renamed in RENAMED:
        if renamed.format > format_ and renamed.old in stored:
            stored[renamed.new] = stored.pop(renamed.old)
    for added in ADDED:
        if added.format > format_ and added.system in (None, _get(stored, 'model.name')):
            section, _, name = added.path.rpartition('.')
            parent = _get(stored, section) if section else stored
            if isinstance(parent, dict) and (name in parent) == added.changed:
                try:
                    parent[name] = added.value(stored) if callable(added.value) else added.value
                except (KeyError, TypeError) as error:
                    raise ValueError(f'{where}: field {error} is missing: this is not {what}.') from error
    return stored, format_


def _get(content: Any, path: str) -> Any:
    for name in path.split('.'):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def read(workdir: str | os.PathLike) -> ConfigDict:
    """The config of the run in `workdir`.

    Raises:
        FileNotFoundError: `workdir` holds no run.
        ValueError: config.json is damaged.
    """
    path = pathlib.Path(workdir) / 'config.json'
    if not path.exists():
        raise FileNotFoundError(
            f'{path}: no such file, so {workdir} is not the workdir of a training run. '
            'Give the --workdir that train.py was run with.'
        )
    return from_json(files.read_json(path, LARGEST), path)
