"""Has what comes in, or goes out, changed?

    values.py       what is said: `ColumnDrift`, `DriftReport`; how it is asked: `DriftSettings`
    kinds.py  columns.py  what kind of column one is; Arrow columns as arrays
    levels.py       a column cut into levels, and how many rows of each side are at each
    scores.py       scores of the levels; a test is a sum of scores over the current rows
    evidence.py     tests of one column, and how they become one p-value
    resample.py     what the tests give when nothing has changed, jointly over all columns
    effects.py      sizes people can read: PSI, Jensen-Shannon, Wasserstein, Kolmogorov-Smirnov
    numeric.py  category.py  text.py  tensor.py      evidence by kind of column
    dependence.py   drift that no single column shows
    judge.py        evidence and sizes -> verdicts
    compare.py      two tables -> `DriftReport`
    sketches.py     one column of a window in a few kilobytes that add up
    profile.py      a window of sketches: `Profile`
    compare_profiles.py   two profiles, or the profile in a bundle and one -> `DriftReport`
    season.py       reference rows and windows of the same hour and weekday
    persistence.py  an alarm that lasts, over a series of windows
    online.py       detectors that look at every value as it comes

scipy is needed (extra `monitor`).
"""
