"""Stands in for torch in child processes, none of which needs it: importing it takes 2 s."""

raise ImportError('torch is hidden from child processes of the tests, see tests/processes.py')
