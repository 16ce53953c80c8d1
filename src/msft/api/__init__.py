"""The Python API, modelled on the trainers of transformers and TRL."""
