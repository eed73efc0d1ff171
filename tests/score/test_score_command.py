"""The command `python -m sgmg_jax.score`: its help, its arguments, the table it prints and the file it writes."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from score_files import run, shifted_masks, write_submission

from sgmg_jax import score
from sgmg_jax.evaluation import davis, mean_ap, scoring
from sgmg_jax.score import __main__ as command
from sgmg_jax.score import submission


def test_help_and_usage_errors(capsys):
    for arguments, words in (
        (['--help'], 'davis'),
        (['davis', '--help'], 'anno_3'),
        (['refcoco', '--help'], '"image_id"'),
    ):
        with pytest.raises(SystemExit) as caught:
            command.main(arguments)
        assert caught.value.code == 0 and words in capsys.readouterr().out
    for arguments in (
        [],
        ['mevis'],
        ['davis', '--gt=x'],
        ['a2d', '--gt=x', '--pred=y', '--task=unsupervised'],
        ['ytvos', '--gt=x', '--pred=y', '--processes=0'],
    ):
        with pytest.raises(SystemExit) as caught:
            command.main(arguments)
        assert caught.value.code == 2


@pytest.mark.parametrize(
    'protocol, truth, folder',
    [
        ('a2d', 'a2d_sentences_test_annotations_in_coco_format.json', 'a2d_sentences'),
        ('jhmdb', 'jhmdb_sentences_gt_annotations_in_coco_format.json', 'jhmdb_sentences'),
        ('refcoco', 'instances_refcoco_val.json', 'refcoco'),
    ],
)
def test_help_examples_match_the_protocol(capsys, protocol, truth, folder):
    with pytest.raises(SystemExit):
        command.main([protocol, '--help'])
    text = capsys.readouterr().out
    examples = [line for line in text.splitlines() if line.startswith('    python')]
    start = f'    python -m sgmg_jax.score {protocol} '
    assert f"COCO's format ({'instances_<name>' if protocol == 'refcoco' else truth}" in text
    assert len(examples) == 2 and all(line.startswith(start) for line in examples)
    assert f'--gt={truth} ' in examples[0] and f'--gt=data/tfds/{folder} ' in examples[1]


LIGHT = """
import sys
from sgmg_jax import commands
from {module} import main
try:
    main({arguments})
except SystemExit as end:
    assert end.code == 0
heavy = {{'jax', 'cv2', 'scipy', 'av', 'PIL', 'pycocotools', 'tensorflow_datasets', 'tqdm'}} & set(sys.modules)
sys.exit(f'imports {{heavy}}' if heavy else 0)
"""


@pytest.mark.parametrize(
    'module, arguments',
    [
        ('sgmg_jax.score.__main__', ['--help']),
        ('sgmg_jax.score.__main__', ['davis', '--help']),
        ('sgmg_jax.score.__main__', ['a2d', '--help']),
        ('sgmg_jax.benchmarks.score', ['--help']),
    ],
)
def test_help_imports_nothing_heavy(module, arguments):
    code = LIGHT.format(module=module, arguments=arguments)
    run = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[2]
    )
    assert run.returncode == 0 and 'usage: python -m' in run.stdout, run.stderr


def test_public_names_exist():
    assert all(callable(getattr(score, name)) for name in score.__all__)


def test_task_choices_are_those_of_davis():
    assert command.TASKS == davis.TASKS


@pytest.mark.parametrize('option', ['gt', 'pred'])
def test_output_never_overwrites_an_input(tmp_path, coco_files, capsys, option):
    before = [path.read_bytes() for path in coco_files]
    (tmp_path / 'link').symlink_to(dict(zip(('gt', 'pred'), coco_files))[option])
    for out in (tmp_path / f'{option}.json', tmp_path / 'link'):
        assert run('a2d', *coco_files, out) == 2
        assert f'--json={out}: is an input and would be overwritten' in capsys.readouterr().err
    assert [path.read_bytes() for path in coco_files] == before


@pytest.mark.parametrize('protocol', ['ytvos', 'davis'])
def test_ground_truth_must_be_a_folder(tmp_path, capsys, protocol):
    (tmp_path / 'submission.zip').write_bytes(b'PK')
    os.mkfifo(tmp_path / 'pipe')
    for name in ('submission.zip', 'pipe'):
        assert run(protocol, tmp_path / name, tmp_path, tmp_path / 'scores.json') == 2
        assert f'{name}: is a file; the ground truth must be a folder' in capsys.readouterr().err


def test_failed_write_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match='[Nn]a[Nn]|JSON compliant'):
        score.write_scores(tmp_path / 'scores.json', {'J': float('nan')})
    assert list(tmp_path.iterdir()) == []


def summaries(tmp_path, split, sparse_split):
    """A summary of each kind."""
    write_submission(tmp_path, split, shifted_masks)
    truth = score.truth_of_records('a2d', sparse_split)
    results = [
        {key: annotation[key] for key in ('image_id', 'category_id', 'segmentation')} | {'score': 1}
        for annotation in truth['annotations']
    ]
    (tmp_path / 'results.json').write_text(json.dumps(results))
    maps = [record for record in split if record.masks]
    for annotator in range(4):
        for record in maps:
            submission.write_maps(
                tmp_path / f'anno_{annotator}',
                record.video.name,
                record.video.frame_names,
                record.decode_masks() % scoring.VOID,
            )
    yield score.score_submission('ytvos', tmp_path / 'submission.zip', split, progress=False)
    yield score.score_submission('a2d', tmp_path / 'results.json', sparse_split, progress=False)
    yield score.score_submission('davis', tmp_path, maps, progress=False)


def test_tables_ignore_unknown_keys(tmp_path, split, sparse_split):
    """Additions to a summary do not break its table."""
    others = {'weights': 'a checkpoint', 'P@x': 'x', 'nothing': None, 'list': [1], 'more': {}}
    columns = []
    for summary in summaries(tmp_path, split, sparse_split):
        table = score.format_scores(summary)
        columns.append(table.splitlines()[0].split())
        for means in (
            summary,
            *summary.get('tags', {}).values(),
            *summary.get('annotators', {}).values(),
            summary.get('best', {}),
        ):
            means |= others
        assert score.format_scores(others | summary) == table
        for other in others:
            assert other not in table
    assert columns == [
        [
            'J&F',
            'J',
            'F',
            'J_recall',
            'F_recall',
            'J_decay',
            'F_decay',
            'J_variance',
            'F_variance',
            'J&F_variance',
            'MCS@0.5',
            'MCS@0.7',
            'MCS@0.9',
            'tIoU',
            'vIoU',
            'expressions',
            'frames',
        ],
        list(mean_ap.STATISTICS),
        [
            'J',
            'F',
            'J&F',
            'J_recall',
            'F_recall',
            'J_decay',
            'F_decay',
            'J_variance',
            'F_variance',
            'J&F_variance',
            'MCS@0.5',
            'MCS@0.7',
            'MCS@0.9',
            'tIoU',
            'vIoU',
            'frames',
            'objects',
        ],
    ]


def test_names_are_escaped_in_table_and_json(tmp_path):
    """In the table, and in scores.json, which must be valid for strict parsers."""
    score_of = scoring.with_statistics(np.array([0.5]), np.array([0.5]), np.array([True]), np.array([True]))
    name = 'a\x1b[2J\ud800\nb'
    summary = scoring.summarise([score_of | {'video': name, 'expression': '\udcff', 'tags': (name, 'größe 😀')}])
    table = score.format_scores(summary)
    assert len(table.splitlines()) == 5 and r'a\x1b[2J\ud800\nb' in table
    table.encode()
    score.write_scores(tmp_path / 'scores.json', summary)
    text = (tmp_path / 'scores.json').read_bytes().decode('utf-8')
    assert 'größe 😀' in text
    assert set(json.loads(text)['tags']) == {'a\x1b[2J\\ud800\nb', 'größe 😀'}
    assert list(json.loads(text)['videos']['a\x1b[2J\\ud800\nb']['scores']) == [r'\udcff']


def test_unwritable_scores_are_still_printed(tmp_path, split, records_opened, capsys):
    write_submission(tmp_path, split, shifted_masks)
    (tmp_path / 'folder').mkdir()
    before = os.umask(0o022)
    try:
        for out in (tmp_path / 'folder', tmp_path / 'submission.zip/scores.json', '/dev/full/x'):
            assert run('ytvos', 'x', tmp_path, out) == 2
            printed = capsys.readouterr()
            assert 'J&F_variance' in printed.out and str(out) in printed.err and 'Traceback' not in printed.err
        assert run('ytvos', 'x', tmp_path, tmp_path / 'scores.json') == 0
    finally:
        os.umask(before)
    assert (tmp_path / 'scores.json').stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.rglob('.partial*'))
