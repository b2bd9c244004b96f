"""The tutorial, executed cell by cell in an empty folder."""

import os
import sys

import nbformat
import processes
from nbclient import NotebookClient


def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', processes.xla_flags(1))
    without_torch = processes.ROOT / 'tests' / 'without_torch'
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(map(str, (processes.ROOT, without_torch))))
    monkeypatch.setenv('PATH', os.path.dirname(sys.executable), prepend=os.pathsep)
    notebook = nbformat.read(processes.ROOT / 'docs' / 'tutorial.ipynb', as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("'num_steps': 300", "'num_steps': 4")
    client = NotebookClient(notebook, timeout=200, resources={'metadata': {'path': tmp_path}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    shown = '\n'.join(output.get('text', '') for output in outputs)
    assert '4/4' in shown and 'left' in shown  # the bar
    pictures = [output for output in outputs if 'image/png' in output.get('data', {})]
    assert len(pictures) == 4
    result = next(cell for cell in notebook.cells if cell.source.startswith('result ='))
    assert "'split': 'test'" in result.outputs[-1].data['text/plain']
