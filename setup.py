"""Packaging of sgmg_jax. requirements.lock pins the whole environment for Python 3.11 on CPUs, requirements-cuda.lock
that for Python 3.12 on NVIDIA GPUs, requirements-app.lock that of the page and its test for Python 3.11."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent

# What builds and reads data sets.
DATA = [
    'array_record',
    'importlib_resources',  # tensorflow-datasets imports it for builders, and does not declare it.
    'scipy',
    'tensorflow-datasets>=4.9.10',
]
# What trains and evaluates on them.
TRAIN = [*DATA, 'clu', 'grain>=0.2.18', 'matplotlib', 'optax>=0.2.8', 'tensorboardX']
DOCS = ['mkdocs-material>=9.6', 'mkdocstrings[python]>=0.29']
APP = ['gradio>=6.3']
STUDIES = ['openTSNE>=1.0']  # of studies.figures drift

setuptools.setup(
    name='sgmg_jax',
    version=re.search(r"^__version__ = '(.+)'$", (HERE / 'sgmg_jax/__init__.py').read_text(), re.M)[1],
    description='Referring video object segmentation in JAX: a video and a sentence in, masks out.',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    author='The sgmg_jax authors',
    project_urls={
        'SgMg, the paper': 'https://arxiv.org/abs/2307.13537',
        'SOC, the paper': 'https://arxiv.org/abs/2305.17011',
    },
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    # configs/ and datasets/ stay at the top of the repository. In site-packages they are parts of the package: the
    # top-level name `datasets` belongs to Hugging Face there.
    packages=[
        *setuptools.find_packages(
            include=['sgmg_jax', 'sgmg_jax.*'], exclude=['sgmg_jax.configs', 'sgmg_jax.datasets']
        ),
        'sgmg_jax.configs',
        'sgmg_jax.datasets',
        *(f'sgmg_jax.datasets.{name}' for name in setuptools.find_packages('datasets')),
    ],
    package_dir={'sgmg_jax.configs': 'configs', 'sgmg_jax.datasets': 'datasets'},
    package_data={'sgmg_jax': ['py.typed', 'pretrained/*/*']},
    entry_points={'console_scripts': ['sgmg-jax = sgmg_jax.__main__:main']},
    python_requires='>=3.11',
    install_requires=[  # of Predictor, predict, export, doctor, score, convert
        'absl-py',
        'av',
        'flatbuffers',  # jax.export needs it to write and read, and does not declare it
        'flax>=0.12',
        'h5py',
        'jax>=0.10',
        'jaxtyping',
        'ml-collections>=1.1',
        'numpy>=2.0',
        'opencv-python-headless>=4.12',
        'orbax-checkpoint>=0.12',
        'pillow',
        'pycocotools>=2.0.11',  # decode checks its bounds
        'safetensors',
        'tokenizers',
        'tqdm',
    ],
    extras_require={
        'data': DATA,
        'train': TRAIN,
        'hub': ['huggingface_hub'],
        'cuda': ['jax[cuda13]>=0.11.2'],
        'tpu': ['jax[tpu]'],
        'docs': DOCS,
        'app': APP,
        'studies': [*TRAIN, *STUDIES],
        'app-test': [*APP, 'playwright', 'pytest', 'uv'],
        'dev': [
            *TRAIN,
            *STUDIES,
            'beartype',
            'coverage[toml]',
            'hypothesis',
            'mypy',
            'pre-commit',
            'pytest',
            'pytest-cov',
            'pytest-xdist',
            'ruff',
            'setuptools',
            'transformers>=5.0',
            'wheel',
            *DOCS,
        ],
    },
)
