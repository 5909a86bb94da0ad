"""Conversion between messages and the model: the only modules that depend on both.

Reading collects all violations, each with its path in the request, and refuses once. The subjects
check values (``check_call`` and others); here are the errors before there is a value: money that is
not a number, a time outside the calendar, an unknown enum number, a missing required field.
"""
