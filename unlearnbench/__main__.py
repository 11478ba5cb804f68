"""Lets `python -m unlearnbench` do what the `unlearnbench` command does."""

from unlearnbench.frontends.command import main

if __name__ == "__main__":
    main()
