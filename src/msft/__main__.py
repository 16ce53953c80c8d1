"""`python -m msft`, and `accelerate launch -m msft` on several processes."""

from msft.cli.main import entry

if __name__ == "__main__":  # worker processes import this module again
    entry()
