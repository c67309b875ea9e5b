"""The type checker of the tests: beartype, with an int taken where a float is asked for, as Python does."""

from beartype import BeartypeConf, beartype

shapes = beartype(conf=BeartypeConf(is_pep484_tower=True))
