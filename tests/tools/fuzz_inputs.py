"""The small valid inputs of fuzz.py, and the commands that read them."""

import argparse
import contextlib
import io
import json
import pathlib
import pickle
import shutil
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Kind -> [(valid input, command, its arguments)]. {} is the folder of the input, {out} that of the output, {a|b} one of
# several.
COPIES = {
    'ref_youtube_vos': 'ref_youtube_vos',
    'ref_youtube_vos with ground truth': 'ref_youtube_vos',
    'ref_davis': 'ref_davis',
    'ref_davis converted': 'ref_davis',
    'mevis': 'mevis',
    'mevis packed': 'mevis',
    'a2d_sentences': 'a2d_sentences',
    'jhmdb_sentences': 'jhmdb_sentences',
    'refcoco': 'refcoco',
    'refcoco converted': 'refcoco',
}
RECORDS = 'records', 'records of a2d', 'records of refcoco', 'records of mevis'
OTHERS = {'odd davis': 'ref_davis', 'odd a2d': 'a2d_sentences', 'all refcoco': '{refcoco_plus|refcocog}'}
WEIGHTS = {
    'pth': 'w.pth',
    'legacy pth': 'w.pth',
    'safetensors': 'w.safetensors',
    'ours': 'w.safetensors',
    'ours folder': 'w',
    'workdir': 'w',
}
CONVERT, PARITY, SCORE = (f'sgmg_jax.{name}.__main__' for name in ('convert', 'parity', 'score'))
TARGETS = {
    'convert': [
        *(
            (
                name,
                CONVERT,
                f'from-official {{}}/{file} --config={ROOT}/configs/synthetic.py --out={{out}}/{{x|x.safetensors}}',
            )
            for name, file in WEIGHTS.items()
        ),
        *(
            (name, CONVERT, f'to-official {{}}/{WEIGHTS[name]} --out={{out}}/x.safetensors')
            for name in ('ours', 'ours folder', 'workdir')
        ),
        *(('golden cases', PARITY, '{}') for _ in range(3)),
    ],
    'score': [
        (
            'davis',
            SCORE,
            'davis --gt={}/gt --pred={}/{pred|pred.zip} --task={unsupervised|semi-supervised} '
            '--json={out}/x.json --processes=1',
        ),
        ('ytvos', SCORE, 'ytvos --gt={}/gt --pred={}/{pred|pred/submission.zip} --json={out}/x.json --processes=1'),
        *(
            (f'results of {name}', SCORE, name + ' --gt={}/gt.json --pred={}/{pred.json|pred.zip} --json={out}/x.json')
            for name in ('a2d', 'jhmdb', 'refcoco')
        ),
    ],
    'doctor': [
        *(
            (name, 'sgmg_jax.doctor.__main__', '{} --json={out}/x.json{| --pixels}')
            for name in (*COPIES, *OTHERS, *RECORDS)
        )
    ],
    'build': [
        *(
            (name, 'datasets.build', f'{build} --raw={{}} --out={{out}}{{| --skip-bad-videos}}')
            for name, build in (COPIES | OTHERS).items()
        )
    ],
    'records': [*((name, '__main__', '{}') for name in (*RECORDS, 'run'))],
}
WHOLE = {'ours folder', 'workdir'}  # inputs with files of Orbax: a message that names the folder is enough


def write_inputs(names: set[str], folder: pathlib.Path) -> None:
    """Writes the valid inputs <folder>/<name>, and <folder>/shapes: the parameter shapes of the demo model."""
    from sgmg_jax import commands, systems

    config = commands.load_config(f'{ROOT}/configs/synthetic.py')
    folder.mkdir(parents=True)
    shapes = systems.parameter_shapes(systems.build_model(config.model)) if names & {*WEIGHTS} else {}
    (folder / 'shapes').write_bytes(pickle.dumps(shapes))
    for name in sorted(names & {*WEIGHTS}):
        _write_weights(name, shapes, folder / name / WEIGHTS[name])
    for name in sorted(names - {*WEIGHTS}):
        with contextlib.redirect_stderr(io.StringIO()):
            (_write_scored if any(name == x[0] for x in TARGETS['score']) else _write_data)(name, folder / name)


def _write_weights(name, shapes, path):
    from flax import traverse_util
    import jax.numpy as jnp
    import numpy as np
    from official import written
    import torch_files

    from sgmg_jax import checkpoints
    from sgmg_jax.convert import weights
    from sgmg_jax.training import step

    rng = np.random.default_rng(0)
    ours = {
        key: rng.standard_normal(x.shape, dtype=np.float32)
        for key, x in traverse_util.flatten_dict(shapes, sep='/').items()
    }
    path.parent.mkdir(parents=True)
    if name.startswith('ours'):
        weights.save(ours, path)
    elif name == 'workdir':
        state = step.TrainState(jnp.int32(1), {key: jnp.asarray(x) for key, x in ours.items()}, {}, {}, {})
        with contextlib.closing(checkpoints.Checkpoints(path)) as saved:
            saved.save(state, {'seed': 0}, argparse.Namespace(to_str=str), 1.0)
    elif name == 'safetensors':
        written(weights.released(ours), path)
    else:
        tensors = {key: torch_files.tensor(x) for key, x in weights.released(ours).items()}
        {'pth': torch_files.save, 'legacy pth': torch_files.save_legacy}[name](path, {'model': tensors, 'epoch': 1})


def _write_scored(name, folder):
    import numpy as np
    import raw_tree
    import score_files

    from sgmg_jax import score
    from sgmg_jax.data import metadata, records

    folder.mkdir()
    if name == 'ytvos':
        raw_tree.add_ground_truth(raw_tree.write(folder / 'raw'))
        (folder / 'raw' / 'valid').rename(folder / 'gt')
        shutil.rmtree(folder / 'raw')
        score_files.write_published_predictions(folder / 'pred')
    elif name == 'davis':
        maps = {video: np.stack([raw_tree.mask(t) for t in range(4)]) for video in ('bear', 'lion')}
        score_files.write_index_maps(folder / 'gt/DAVIS/Annotations_unsupervised/480p', maps)
        shutil.copytree(folder / 'gt/DAVIS/Annotations_unsupervised', folder / 'gt/DAVIS/Annotations')
        (folder / 'gt/DAVIS/ImageSets/2017').mkdir(parents=True)
        (folder / 'gt/DAVIS/ImageSets/2017/val.txt').write_text('bear\nlion\n')
        score_files.write_index_maps(folder / 'pred', maps)
        score_files.zip_folder(folder / 'pred')
    else:
        split = []
        for number in '1', '2':
            expression = metadata.Expression(number, 'a', 1, ())
            video = metadata.Video(f'v{number}', ('00001', '00002'), *score_files.SIZE, (expression,), True, ((1, 1),))
            masks = (score_files.png(np.eye(*score_files.SIZE, dtype=np.uint8)),)
            split.append(records.Record(video, (), masks))
        truth = score.truth_of_records(name.removeprefix('results of '), split)
        results = [
            {'image_id': x['image_id'], 'category_id': 1, 'score': score, 'segmentation': x['segmentation']}
            for x in truth['annotations']
            for score in (0.3, 0.9)
        ]
        (folder / 'gt.json').write_text(json.dumps(truth))
        (folder / 'pred.json').write_text(json.dumps(results))
        with zipfile.ZipFile(folder / 'pred.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / 'pred.json', 'pred.json')


def _write_data(name, folder):
    import raw_a2d
    import raw_copies
    import raw_davis
    import raw_mevis
    import raw_tree

    from configs import synthetic
    from datasets import build
    from sgmg_jax import config as configs
    from sgmg_jax.data import text

    if name == 'golden cases':
        folder.mkdir()
        for case in ('comp_resize', 'comp_posenc'):
            for file in (ROOT / 'tests' / 'goldens').glob(f'{case}.*'):
                shutil.copy(file, folder)
    elif name == 'run':
        folder.mkdir()
        (folder / 'config.json').write_text(json.dumps(configs.to_json(synthetic.get_config('smoke'))))
        text.save_tokenizer(text.train_tokenizer(['a cat', 'the dog on the left'], 300), folder)
    elif name in RECORDS:
        data_set, raw = {
            'records': ('ref_youtube_vos', raw_tree.write),
            'records of a2d': ('a2d_sentences', raw_copies.write_a2d),
            'records of refcoco': ('refcoco', raw_copies.write_refcoco),
            'records of mevis': ('mevis', raw_mevis.write),
        }[name]
        build.build(data_set, raw(folder / 'raw'), folder / 'tfds')
        (folder / 'tfds' / data_set).rename(folder / data_set)
        shutil.rmtree(folder / 'raw')
        shutil.rmtree(folder / 'tfds')
    elif name in OTHERS:
        {'odd davis': raw_davis.write, 'odd a2d': raw_a2d.write, 'all refcoco': raw_copies.write_refcoco}[name](folder)
    else:
        import test_doctor_and_builder

        test_doctor_and_builder.COPIES[name](folder)
