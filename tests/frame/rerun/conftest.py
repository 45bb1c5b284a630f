"""make.py lays this beside the notebooks that nbval runs again.

nbval sends cells without storing them in the history, where IPython looks for the semicolon that keeps a cell's last
value from being shown. A notebook in Jupyter is sent with it, and so is the book's.
"""

from nbval.kernel import RunningKernel


def execute_as_jupyter_does(self, cell_input, allow_stdin=None):
    allow_stdin = False if allow_stdin is None else allow_stdin
    return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


RunningKernel.execute_cell_input = execute_as_jupyter_does
