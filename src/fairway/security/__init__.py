"""Distrusting artefacts before they are opened, and callers before they are answered.

`allow_list` says what a model file may name and what it may do with each name; `pickle_audit` reads a pickle
without executing it and holds it against that list; `pickle_file` opens what passed; `skops_file` does the
same for skops archives; `tree_bounds` and `lightgbm_text` check what neither can see, that trees only point inside themselves.

`keys` are API keys as values, `access` decides what a caller may do, `rate` how often.
"""
