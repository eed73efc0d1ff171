import collections
import contextlib
import os
import shutil
import signal
import types

import pytest

from sgmg_jax import processes

Usage = collections.namedtuple('Usage', 'total used free')


@contextlib.contextmanager
def opened(offset, fault=None):
    def work(index):
        if fault == 'dies' and index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == 'raises' and index == 1:
            raise ValueError(f'video {index} is bad')
        return offset + index

    yield work


@pytest.mark.parametrize('progress', [True, False])
@pytest.mark.parametrize('count', [1, 2])
def test_results_keep_their_order_and_progress_is_shown_on_request(capsys, count, progress):
    assert processes.for_each(opened, (10,), 5, count, 'adding', progress) == [10, 11, 12, 13, 14]
    shown = capsys.readouterr().err
    assert 'adding: 100%' in shown and '5/5' in shown if progress else not shown


def test_exceptions_of_the_work_propagate():
    with pytest.raises(ValueError, match='video 1 is bad'):
        processes.for_each(opened, (10, 'raises'), 3, 2, 'adding', False)


def test_a_process_that_dies_is_named():
    with pytest.raises(OSError, match=r'process \d+ \(signal 9, Killed\) died while adding\. .*fewer than 2 processes'):
        processes.for_each(opened, (10, 'dies'), 4, 2, 'adding', False)


@pytest.mark.parametrize(
    'codes, named',
    [
        ((0, None, -signal.SIGTERM, 3, -9), 'process 3 (exit status 3)'),
        ((-9, 1), 'process 0 (signal 9, Killed)'),
        ((0, None, -signal.SIGTERM), 'a process'),
    ],
)
def test_the_first_process_that_failed_is_named(codes, named):
    started = [
        types.SimpleNamespace(pid=pid, exitcode=code, join=lambda seconds: None) for pid, code in enumerate(codes)
    ]
    assert processes._first_dead(started) == named


@pytest.mark.parametrize('total, free, shared', [(2**33, 2**32, False), (2**26, 2**25, True), (2**33, 2**20, True)])
def test_advice_distinguishes_shared_memory_from_memory(monkeypatch, total, free, shared):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: Usage(total, total - free, free))
    text = processes.advice(4)
    assert ('/dev/shm' in text and '--shm-size' in text) == shared
    assert ('too little memory' in text) == (not shared) and 'fewer than 4 processes' in text


def test_without_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, 'SHARED_MEMORY', tmp_path / 'none')
    assert 'There is no ' in processes.advice(2) and 'too little memory' in processes.advice(2)
