"""The benchmarks: the product and its peers in turn, in one run, on the same servers. None is a timed test.

`python -m bench` runs them and writes what they measured to docs/benchmarks, as JSON and as plots. Each module
that `bench.__main__` lists has `measure(size)`, which answers plain figures, and `draw(figures, folder)`.
"""
