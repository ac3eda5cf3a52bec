"""Card payments, simulated: a seeded stream with drift switches, a model, and live traffic.

    simulate.py   the payments, fraud labels that come late, drift on demand
    train.py      a scikit-learn pipeline on sixty simulated days
    traffic.py    sends live payments to a running server
    run.py        all of it, end to end: what `make run` executes

The data is synthetic. No figure here says anything about real cards, people or countries.
"""
