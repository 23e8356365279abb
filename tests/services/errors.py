"""The one error that this package shows to people without a traceback."""


class ServiceError(Exception):
    """Something that keeps the services from running; the message says what is missing and how it is had."""
