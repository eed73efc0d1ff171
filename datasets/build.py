"""Builds a data set: checks the raw files and writes them as array_record.

    python -m datasets.build ref_youtube_vos --raw=<raw folder> --out=data/tfds [--shards=N]

The records appear under <out>/<name>/<version> only when all of them are written. An interrupted build leaves at most
a folder named incomplete.*, which is never read and which the next build removes. Only one process at a time can
build a data set.
"""

import argparse
from collections.abc import Sequence
import contextlib
import io
import os
import pathlib
import secrets
import shutil
import sys

from sgmg_jax import commands, files

NAMES = (
    'a2d_sentences',
    'jhmdb_sentences',
    'mevis',
    'ref_davis',
    'ref_youtube_vos',
    'refcoco',
    'refcoco_plus',
    'refcocog',
)


def build(
    name: str,
    raw: str | os.PathLike,
    out: str | os.PathLike,
    shards: int | None = None,
    overwrite: bool = False,
    skip_bad_videos: bool = False,
) -> pathlib.Path:
    """Builds data set `name` from `raw` and returns the folder that holds its records.

    Args:
        name: one of NAMES.
        raw: root of the raw data set.
        out: folder for data sets; the records go to <out>/<name>/<version>.
        shards: files per split, from 1 to the number of its videos; None: by size.
        overwrite: replace existing records; they stay until the new ones are complete.
        skip_bad_videos: skip videos with a missing or broken file, with a counted warning.

    Raises:
        FileNotFoundError: the raw folder or a part of it is missing.
        FileExistsError: the records exist and `overwrite` is False.
        BlockingIOError: another process is building this data set there.
        OSError: the records cannot be written.
        ValueError: something in the raw data is wrong; names file and field.
    """
    from sgmg_jax.raw import common

    builder_class = _builder_class(name)
    if shards is not None and shards < 1:
        raise ValueError(f'--shards = {shards}: must be 1 or more, or be omitted.')
    raw, out = (pathlib.Path(os.path.abspath(os.path.expanduser(path))) for path in (raw, out))
    if not raw.is_dir() or not any(raw.iterdir()):
        raise FileNotFoundError(f'{raw}: no such folder, or an empty one. --raw must be the root of the raw data set.')
    files.check_text(out)
    target = out / name / str(builder_class.VERSION)
    with files.locked(out / f'.{name}.lock', f'building {name}'):
        replaced = target.with_name(f'incomplete.replaced_{target.name}')
        if replaced.exists() and not target.exists():
            common.warn('%s: restored, because the build that was replacing it was killed.', target)
            replaced.rename(target)
        if target.exists() and not overwrite:
            raise FileExistsError(
                f'{target}: exists already and may be older than {raw}. Pass --overwrite to build it '
                'again, or another --out.'
            )
        for left in target.parent.glob('incomplete.*'):
            common.warn('Removing %s, left by an interrupted build.', left)
            shutil.rmtree(left)
        partial = target.with_name(f'incomplete.{secrets.token_hex(4)}_{target.name}')
        try:
            # In a folder of its own: tfds would read existing records first.
            _write(
                builder_class(data_dir=os.fspath(partial), file_format='array_record', skip_bad_videos=skip_bad_videos),
                raw,
                shards,
            )
            if target.exists():
                target.rename(replaced)
            try:
                (partial / name / target.name).rename(target)
            except OSError:
                if replaced.exists():
                    replaced.rename(target)
                raise
        except OSError as error:
            if error.errno is None or error.filename is not None:  # It names its file already.
                raise
            raise OSError(
                error.errno,
                f'cannot write the records ({error.strerror}). Free some space, or choose '
                'another --out; the old records stay',
                str(target),
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):  # It holds records, unless the first build of this data set has failed.
                target.parent.rmdir()
        if replaced.exists():
            shutil.rmtree(replaced)
    return target


def _write(builder, raw: pathlib.Path, shards: int | None) -> None:
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(manual_dir=raw, num_shards=shards)
    with contextlib.redirect_stdout(io.StringIO()):  # It announces downloads, though there are none.
        builder.download_and_prepare(download_config=config)


def _builder_class(name: str):
    # Imported late, so that --help appears at once.
    from sgmg_jax.datasets.a2d_sentences.a2d_sentences import A2dSentences
    from sgmg_jax.datasets.jhmdb_sentences.jhmdb_sentences import JhmdbSentences
    from sgmg_jax.datasets.mevis.mevis import Mevis
    from sgmg_jax.datasets.ref_davis.ref_davis import RefDavis
    from sgmg_jax.datasets.ref_youtube_vos.ref_youtube_vos import RefYoutubeVos
    from sgmg_jax.datasets.refcoco.refcoco import Refcoco, Refcocog, RefcocoPlus

    classes = dict(
        zip(
            NAMES,
            (A2dSentences, JhmdbSentences, Mevis, RefDavis, RefYoutubeVos, Refcoco, RefcocoPlus, Refcocog),
            strict=True,
        )
    )
    if name not in classes:
        raise ValueError(f'data set {name!r}: must be one of {", ".join(NAMES)}.')
    return classes[name]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 2 when something is wrong."""
    parser = commands.make_parser('python -m datasets.build', __doc__)
    parser.add_argument('name', choices=NAMES, help='the data set')
    parser.add_argument('--raw', required=True, help='root of the raw data set, as its archives unpack')
    parser.add_argument('--out', default='data/tfds', help='folder for built data sets (default: %(default)s)')
    parser.add_argument('--shards', type=int, help='files per split (default: by size)')
    parser.add_argument('--overwrite', action='store_true', help='replace existing records')
    parser.add_argument(
        '--skip-bad-videos',
        action='store_true',
        help='skip videos with a missing or broken file, with a counted warning',
    )
    return commands.exit_with(_build, parser, argv)


def _build(options: argparse.Namespace) -> None:
    from sgmg_jax.data import records

    print(f'reading the lists of {options.name} in {files.printable(options.raw)}', file=sys.stderr)
    target = build(options.name, options.raw, options.out, options.shards, options.overwrite, options.skip_bad_videos)
    splits = records.describe(target)[1].items()
    print(files.printable(f'{target}: ') + ', '.join(f'{split} {count} videos' for split, count in splits))


if __name__ == '__main__':
    sys.exit(main())
