"""How well a model does: measured from labels, estimated before there are any, by slice, by group.

    values.py          windows of predictions (`Classified`, `Regressed`, `Ranked`) and what is said of them (`Measured`)
    influence.py       classification metrics as functionals: value and derivative, for known and for expected labels
    intervals.py       confidence intervals: Wilson, Newcombe, Hall's t, logit
    calibration_error.py  the expected calibration error and its interval
    classification.py  regression.py  ranking.py      metrics with intervals, from labels
    calibrate.py       probabilities that mean what they say, fitted on the reference
    shift.py           how much likelier a row of the reference is in the window at hand
    cbpe.py            classification metrics before labels
    dle.py             regression metrics before labels
    thresholds.py      what is usual for a metric, from the reference
    slices.py          the same by slice, and the worst slice
    fairness.py        demographic parity and equalised odds
    chunks.py          cutting a table by rows or by time
    findings.py        metrics that are not what they were, as findings for incidents
    features.py        inputs as the matrix that trees take
    frames.py          columns of a table as windows; logged.py: rows of the log or of a bundle's reference
    estimate.py        one shot: reference and current in, a report out

Nothing here reads a file or a clock: windows go in, values come out. scipy and scikit-learn are needed (extra `monitor`).
"""
