"""The micro-batch: how examples become rows and forward passes; shared by training and scoring."""
