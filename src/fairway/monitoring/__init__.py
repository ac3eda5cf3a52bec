"""Watching models: drift, quality, performance with and without labels, and the incidents they become.

What is measured, each in its own words:

    drift/          has what comes in, or goes out, changed?
    performance/    how good are the answers, by labels or by an estimate before there are any?
    quality.py      is the data as it should be?
    operations.py   traffic, latency, errors and saturation against their own history
    tables.py       rows of files and of memory, a column at a time

Who looks, and what is said of a window:

    watch/          the monitor: windows of the log -> reports -> findings
    told.py         what is said, as values that pages can read without numpy
    causes.py       how likely each drifted feature is to be the cause

What becomes of findings:

    windows.py      windows made safe to keep
    incidents.py    windows -> incidents and events; pure
    alerts.py       the same on a store, each verb one transaction; alert_rules.py: which findings, to which channels
    outbox.py, sender.py, channels/   messages, sent at least once
    wording.py, words.py, notices.py  all of it in sentences

For Grafana and Prometheus: grafana.py, prometheus_rules.py.
"""
