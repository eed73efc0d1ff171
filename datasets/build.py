"""Builds a data set: checks the raw files and writes them as array_record.

    python -m datasets.build ref_youtube_vos --raw=<raw folder> --out=data/tfds [--shards=N]

The records appear under <out>/<name>/<version> at once, when all of them are written; an
interrupted build leaves at most a folder named incomplete.*, which is never read and which the
next build removes.
"""
import argparse
import os
import pathlib
import shutil
import sys

from absl import logging
import tensorflow_datasets as tfds

from datasets.a2d_sentences.a2d_sentences import A2dSentences
from datasets.jhmdb_sentences.jhmdb_sentences import JhmdbSentences
from datasets.ref_davis.ref_davis import RefDavis
from datasets.ref_youtube_vos.ref_youtube_vos import RefYoutubeVos
from datasets.refcoco.refcoco import Refcoco, Refcocog, RefcocoPlus

BUILDERS = {'ref_youtube_vos': RefYoutubeVos, 'ref_davis': RefDavis, 'a2d_sentences': A2dSentences,
            'jhmdb_sentences': JhmdbSentences, 'refcoco': Refcoco, 'refcoco_plus': RefcocoPlus, 'refcocog': Refcocog}


def build(name: str, raw: str | os.PathLike, out: str | os.PathLike, shards: int | None = None,
          overwrite: bool = False, skip_bad_videos: bool = False) -> pathlib.Path:
    """Builds data set `name` from `raw` and returns the folder that holds its records.

    Args:
        name: a key of BUILDERS.
        raw: root of the raw data set.
        out: folder for data sets; the records go to <out>/<name>/<version>.
        shards: files a split, from 1 to the number of its videos; None leaves it to the size.
        overwrite: build again where records exist already.
        skip_bad_videos: leave out, with a counted warning, videos of which a file is missing or broken.

    Raises:
        FileNotFoundError: when the raw folder or a part of it is missing.
        FileExistsError: when the records exist and `overwrite` is False.
        ValueError: when something in the raw data is wrong; names file and field.
    """
    if shards is not None and shards < 1:
        raise ValueError(f'--shards = {shards}: must be 1 or more, or be left out.')
    raw = pathlib.Path(raw).resolve()
    if not raw.is_dir() or not any(raw.iterdir()):
        raise FileNotFoundError(f'{raw}: no such folder, or an empty one. --raw must be the root of the raw '
                                'data set.')
    target = pathlib.Path(out) / name / str(BUILDERS[name].VERSION)
    replaced = target.with_name(f'incomplete.replaced_{target.name}')
    if replaced.exists() and not target.exists():
        logging.warning('%s: a build that should have replaced it was killed; it is put back.', target)
        replaced.rename(target)
    if target.exists() and not overwrite:
        raise FileExistsError(f'{target}: was built before and may be older than {raw}. Pass --overwrite to '
                              'build it again, or another --out.')
    for left in target.parent.glob('incomplete.*'):
        logging.warning('Removing %s, left by an interrupted build.', left)
        shutil.rmtree(left)
    if target.exists():
        target.rename(replaced)
    try:
        builder = BUILDERS[name](
            data_dir=os.fspath(out), file_format='array_record', skip_bad_videos=skip_bad_videos)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=raw, num_shards=shards))
    except BaseException as error:
        if replaced.exists():  # What was there stays until there is something better.
            replaced.rename(target)
        if isinstance(error, AssertionError) and 'No examples were yielded' in str(error):
            raise ValueError(f'{raw}: every video of a split was left out as bad; the warnings above say why.'
                             ) from error
        if isinstance(error, AssertionError) and 'number_of_shards' in str(error):
            raise ValueError(f'--shards = {shards}: a split has fewer videos; give fewer, or leave it out.') from error
        raise
    if replaced.exists():
        shutil.rmtree(replaced)
    return target


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog='python -m datasets.build', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', choices=sorted(BUILDERS), help='the data set')
    parser.add_argument('--raw', required=True, help='root of the raw data set, as its archives unpack')
    parser.add_argument('--out', default='data/tfds',
                        help='folder for built data sets (default: %(default)s)')
    parser.add_argument('--shards', type=int, help='files a split (default: by size)')
    parser.add_argument('--overwrite', action='store_true', help='build again where records exist already')
    parser.add_argument('--skip-bad-videos', action='store_true',
                        help='leave out videos of which a file is missing or broken, with a counted warning')
    args = parser.parse_args(argv)
    try:
        target = build(args.name, args.raw, args.out, args.shards, args.overwrite, args.skip_bad_videos)
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    splits = tfds.builder_from_directory(target).info.splits
    print(f'{target}: ' + ', '.join(f'{name} {split.num_examples} videos' for name, split in splits.items()))


if __name__ == '__main__':
    main()
