"""Scoring all rows of files or tables, so that a night's job is never lost.

    source.py     files below a path, a glob or a URL, in chunks from any position on;
                  delimited.py (CSV), lines.py (JSON Lines), sql.py (databases, as source and sink; sql_copy.py: PostgreSQL)
    score.py      the one function that scores a chunk, as a request is answered; every engine calls it
    seen.py       what the rows are like, beside the training data
    engine.py     the local engine: a thread that reads, threads or processes that score, in order, bounded
    local.py      what its scorers are
    sink.py       files and folders, written part by part
    ledger.py     what is done: states, and why nothing is there twice
    plan.py       what a run will do, decided once
    run.py        reads, scores, writes, commits
    report.py     what a run is told about

Other engines (Spark, Ray Data, one shard of an array job) will each be a file beside engine.py that calls `score.score`
on the pieces of `source.pieces` and commits parts to the ledger; schedules belong to the control process.
"""
