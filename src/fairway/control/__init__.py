"""The control process: what is done again and again, by one process at a time, and what people look at.

    leadership.py  which of several control processes leads, by a lease that needs no clock in common
    jobs.py        what is done again and again: `PeriodicJob`, and the threads that do it
    cron.py        when a schedule is due, on the clocks of its time zone
    placeholders.py  {date} in inputs and outputs
    planning.py    pure decisions: what is due now, what may begin, what becomes of a run whose process ended
    scheduler.py   the job that runs schedules: asks planning, starts processes, writes down what became of them
    definitions.py what a schedule must be; those of fairway.toml made those of the registry
    process.py     one process that works, and what it says on its way
    web/           the pages and the admin API, with sessions
    server.py      the process from start to stop

It stands beside the workers or on a machine of its own; serving goes on without it. Beside it, other features register
jobs of their own (`app/control_jobs.py` is the list).
"""
