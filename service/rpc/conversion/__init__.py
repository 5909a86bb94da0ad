"""Conversion between messages and the model: the only modules that depend on both.

Readers collect all violations of a request, each with its field path, and raise one error. They
report fields that have no value in the model: money that is not a number, a time outside the
calendar, an unknown enum number, a missing required field. The subjects check the values
(``check_call`` and others).
"""
