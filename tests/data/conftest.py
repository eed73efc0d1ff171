import pytest
import raw_tree

from datasets import build


@pytest.fixture(scope='session')
def records_folder(tmp_path_factory):
    """The tiny data set, built: train with masks, valid without."""
    root = tmp_path_factory.mktemp('rvos')
    return build.build('ref_youtube_vos', raw_tree.write(root / 'raw'), root / 'tfds')
