"""What other programs read and write: guidance in `files`, schedules as JSON in `schedules`."""

from lgd.machinery.lazy import modules_of

__getattr__ = modules_of(__name__)
