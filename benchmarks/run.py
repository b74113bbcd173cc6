"""The benchmark suite: ``python benchmarks/run.py [CASE]... [OPTIONS]``; see ``--help``."""

from suite.command import main

if __name__ == "__main__":
    main()
