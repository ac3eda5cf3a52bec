"""From a trained model to an engine that gives the same answers, with the proof that it does.

`engine.py` is the list of strategies; `prove.py` compares, on the rows `probe_rows.py` makes; the other modules
translate one family each.
"""
