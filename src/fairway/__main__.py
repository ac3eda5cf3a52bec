"""`python -m fairway`: the command of this very interpreter, wherever PATH leads."""

from fairway.cli.main import main

main()
