"""The pure core: vocabulary, clock, curves, roll-outs, search, wire format. Standard library only."""
