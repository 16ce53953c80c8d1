"""msft: fine-tune one model on a mixture of data sets, each until its own peak (arXiv 2603.21606)."""

__version__ = "0.1.0"
