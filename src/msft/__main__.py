"""`python -m msft`, and `accelerate launch -m msft` on several processes."""

from msft.cli.main import entry

entry()
