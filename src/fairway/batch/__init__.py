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

Answers ahead, by key (docs/adr/0021):

    answered.py     rows scored in order, with the key that each is stored under
    precompute.py   a run: stores them, and has them read when the last one is there

Many machines (docs/adr/0034):

    stretches.py, worker.py     the input cut into tasks; a task, by the local engine's own run
    spread.py                   the driver: hands out stretches, commits parts, judges limits
    on_spark.py, on_ray.py      clusters; bundles.py ships the model, shared.py is output that many write
    shards.py, notes.py         array jobs, without a driver
    frames.py                   somebody's own DataFrame or Dataset

Schedules belong to the control process.
"""
