"""The monitor: windows of the prediction log become reports, and reports become incidents.

    values.py      what is said of a window: `Report`, and the `Summary` of it that series are drawn from
    frame.py       rows of the log, or of a bundle's reference, as columns by the names that people know
    subject.py     what a model predicts: windows of its predictions that performance can be told of
    reference.py   what a version is compared with, and what was learned from it
    own.py         a season learned from the version's own first days
    predecessors.py  a season lent by versions before it
    swings.py      how far hours are from days: how far a new version's predictions may be from its reference
    shapes.py      columns as histograms, reference and window on the same bins
    look.py        one window -> `Report`
    findings.py    `Report` -> the window of findings that incidents are made of
    monitor.py     which windows are due; looks at them, keeps them, tells of them

scipy and scikit-learn are needed (extra `monitor`).
"""
