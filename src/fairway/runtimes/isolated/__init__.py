"""Python models that need packages of their own: their environment, and the process they run in.

`lock` says what an environment holds, `interpreters` and `installer` make one, `environments` keeps them. `child` is
the program that runs in it, `channel` the memory both sides share, `process` one running child, `pool` the few that a
model has, `engine` the engine that the rest of Fairway sees.
"""
