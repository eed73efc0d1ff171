"""What the papers' tables compare: each row is a model with some switches, and its number in the paper."""

from collections.abc import Mapping
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Row(NamedTuple):
    """name: for --row. changes: fields of the config -> values. paper: the number of the paper, None if it was not at
    hand."""

    name: str
    changes: Mapping[str, Any]
    paper: float | None = None


class Table(NamedTuple):
    """what: one line about the table. system: config.model.name of its models."""

    what: str
    system: str
    rows: tuple[Row, ...]


def _model(**fields: Any) -> dict[str, Any]:
    return {f'model.{name}': value for name, value in fields.items()}


SCORES = {'J&F': 'J&F', 'J': 'J', 'F': 'F', 'mAP': 'mAP'}  # of a summary, in the order of the columns
TAGS = 'attribute', 'relation', 'motion'  # of the procedural world's sentences
TABLES = {
    'sgmg5': Table(
        "SgMg, Table 5: the paper's ideas. SCF: fusion in the spectrum; CPK: conditional patch kernels; MSO: optimizer",
        'sgmg',
        (
            Row('baseline', _model(fusion='attention', labels=1, optimizer=False)),
            Row('SCF', _model(fusion='spectrum', labels=1, optimizer=False)),
            Row('CPK', _model(fusion='attention', labels=16, optimizer=False)),
            Row('CPK+MSO', _model(fusion='attention', labels=16, optimizer=True)),
            Row('SCF+CPK', _model(fusion='spectrum', labels=16, optimizer=False)),
            Row('SCF+CPK+MSO', _model(fusion='spectrum', labels=16, optimizer=True)),
        ),
    ),
    'sgmg6': Table(
        'SgMg, Table 6: decode features and segment them, or segment encoded features and optimize the masks',
        'sgmg',
        (
            Row('decode-and-segment', _model(labels=1, optimizer=False, feature_decoder=True)),
            Row('segment', _model(labels=16, optimizer=False, feature_decoder=False)),
            Row('segment-and-optimize', _model(labels=16, optimizer=True, feature_decoder=False)),
        ),
    ),
    'sgmgH': Table(
        'SgMg, Table H: what stands in place of the spectral layers; attention: nothing',
        'sgmg',
        tuple(Row(fusion, _model(fusion=fusion)) for fusion in ('spectrum', 'convolution', 'linear', 'attention')),
    ),
    'soc3': Table(
        'SOC, Table 3: the contrastive loss',
        'soc',
        (Row('without', {'loss.contrast': False}), Row('with', {'loss.contrast': True})),
    ),
    'soc4': Table(
        'SOC, Table 4: which modality receives the other',
        'soc',
        tuple(Row(name, _model(fusion_direction=name)) for name in ('none', 'to_vision', 'to_language', 'both')),
    ),
    'soc5': Table(
        'SOC, Table 5: what makes video queries of those of the frames',
        'soc',
        (
            Row('average', _model(aggregation='cluster', cluster_encoder_layers=0, cluster_decoder_layers=0)),
            Row('convolution', _model(aggregation='convolution')),
            Row('k-means', _model(aggregation='k-means')),
            Row('cluster', _model(aggregation='cluster')),
        ),
    ),
    'soc6': Table(
        'SOC, Table 6: queries, per frame and per video',
        'soc',
        tuple(Row(str(count), _model(queries=count)) for count in (1, 5, 10, 20)),
    ),
    'soc7': Table(
        'SOC, Table 7: frames of a training clip',
        'soc',
        tuple(Row(str(count), {'data.num_frames': count}) for count in (1, 2, 4, 8)),
    ),
    'soc8': Table(
        "SOC, Table 8: the cluster's encoder and decoder",
        'soc',
        (
            Row('neither', _model(cluster_encoder_layers=0, cluster_decoder_layers=0)),
            Row('encoder', _model(cluster_decoder_layers=0)),
            Row('decoder', _model(cluster_encoder_layers=0)),
            Row('both', {}),
        ),
    ),
}


def configure(config: ConfigDict, row: Row, seed: int) -> tuple[ConfigDict, str]:
    """The config of a run, and the name of its folder: its system and what it changes of `config`. Rows that change the
    same share a folder, also those of different tables.

    Raises:
        ValueError: `config` lacks a field that the row changes.
    """
    config, name = config.copy_and_resolve_references(), config.model.name
    config.seed = seed
    for path, value in sorted(row.changes.items()):
        *sections, field = path.split('.')
        section = config
        for part in sections:
            section = section[part]
        if field not in section:
            raise ValueError(f'config.{path}: this config has no such field, but the row {row.name!r} sets it.')
        if section[field] != value:
            section[field] = value
            name += f'-{field}={value}'
    return config, re.sub(r'[^\w=.-]', '_', name)
