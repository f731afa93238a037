"""The benchmarks: the product and its peers in turn, in one run, on the same servers. None is a timed test.

`python -m bench` runs them and writes what they measured to docs/benchmarks, as JSON and as plots, and the page
that shows them. Each module that `bench.__main__` lists has `measure(size)`, which yields plain figures: all that
is found so far, after each measurement, so that a run that ends early leaves what it has; and
`draw(figures, folder)`.
"""
