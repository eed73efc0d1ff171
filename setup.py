"""Packaging of sgmg_jax. `requirements.lock` pins the whole environment for Python 3.11."""
import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent

setuptools.setup(
    name='sgmg_jax',
    version='0.1.0',
    description='Referring video object segmentation in JAX: a video and a sentence in, masks out.',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    # Never `datasets`: that top-level name belongs to Hugging Face in site-packages.
    packages=setuptools.find_packages(include=['sgmg_jax', 'sgmg_jax.*']),
    python_requires='>=3.11',
    install_requires=[
        'absl-py',
        'array_record',
        'av',
        'clu',
        'flax>=0.12',
        'grain>=0.2.18',
        'h5py',
        'importlib_resources',  # tensorflow-datasets imports it for builders, and does not declare it.
        'jax>=0.10',
        'jaxtyping',
        'matplotlib',
        'ml-collections>=1.1',
        'numpy>=2.0',
        'opencv-python-headless',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12',
        'pillow',
        'pycocotools',
        'safetensors',
        'scipy',
        'tensorboardX',
        'tensorflow-datasets>=4.9.10',
        'tokenizers',
        'tqdm',
    ],
    extras_require={
        'cuda': ['jax[cuda13]'],
        'tpu': ['jax[tpu]'],
        'dev': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff', 'setuptools', 'transformers>=5.0', 'wheel'],
    },
)
