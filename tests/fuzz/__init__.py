"""Every decoder of bytes from outside: what may come out of it, and inputs to begin with.

`targets.py` lists them. `make test` gives each of them a short run of hypothesis (`test_decoders.py`), `make fuzz`
a longer one that looks for new branches of the code (`__main__.py`, by atheris).
"""
