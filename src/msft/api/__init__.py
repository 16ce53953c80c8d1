"""The Python API, in the idiom that users of TRL know."""
