"""Messages to model and back: the only modules that know both.

Reading collects everything that is wrong, each with its path from the request, and refuses once.
Rules about values live with the subjects (``check_call`` and its kin); here is what a message can
get wrong before there is a value to judge: money that is no number, a time outside the calendar, an
enum number that nobody knows, a required part that is missing.
"""
