"""The builders of the data sets. In a checkout they are in datasets/ at its top; a wheel has them in this folder."""

import pathlib

__path__.append(str(pathlib.Path(__file__).parents[2] / 'datasets'))
