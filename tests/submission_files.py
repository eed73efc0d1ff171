"""A small submission in the layout of Ref-YouTube-VOS, and what is asserted of its check."""

import zipfile

import numpy as np
import small

from sgmg_jax.score import common, submission
from sgmg_jax.score.check import check_submission

EXPECTED = [
    submission.ExpectedVideo('bear', ('00000', '00005', '00015'), (24, 37), ('0', '1')),
    submission.ExpectedVideo('cat', ('00020', '00025'), (9, 16), ('0',)),
]
FILES = sorted(
    submission.mask_path(video, expression, frame)
    for video, frames, _, expressions in EXPECTED
    for expression in expressions
    for frame in frames
)
NAME = 'Annotations/cat/0/00020.png'
ONE = [submission.ExpectedVideo('cat', ('00020',), (9, 16), ('0',))]
BLACK = small.encoded(np.zeros((9, 16), np.uint8), 'PNG')


def masks_of(video, expression):
    _, frames, size, _ = next(row for row in EXPECTED if row[0] == video)
    return np.random.default_rng(len(video) + int(expression)).random((len(frames), *size)) < 0.3


def check(path, expected=EXPECTED):
    return check_submission(path, expected)


def everything_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*'))


def only(problems):
    assert len(problems) == 1, common.format_problems(problems)
    return problems[0]


def zip_of(path, files):
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def zip_of_one(path, data=BLACK, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr(NAME, data)
    return path
