"""`fairway bench`: how quickly a server answers, measured so that its own slowness cannot hide.

In the order of a run:

    address.py    what the URL means: protocol, model, paths
    payload.py    request bodies: a file, rows of data, the model's own example, or made from its metadata
    schedule.py   when each request is due (open loop)
    load.py       the two loops as state machines without sockets: who sends when, what every outcome counts as
    http.py       lanes: connections over asyncio and httptools
    grpc.py       lanes: calls over grpcio (extra `bench`)
    alarm.py      wakes the event loop at a moment, more finely than its own timers do
    drive.py      one client process: lanes, load and alarm together
    client.py     that process's entry point
    run.py        starts the client processes, adds up what they measured
    histogram.py  where latencies are counted, and added up
    recording.py  what one process measured
    report.py     the figures, and what must be said about them
    plot.py, page.py   the report in a terminal and as one HTML file
"""
