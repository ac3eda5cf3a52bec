"""From a model and sample data to a bundle: detect, contract, convert, prove, golden rows, archive.

`package.py` is the flow, `plan.py` what it works on; `conversion/` is the step that makes and proves an engine, every
other module is one step too. Only `bundle.py`,
`golden.py` and `environment.py` are imported by a server: they need neither pandas nor scikit-learn.
"""
