"""Checks of a model and data that a user brings: what is wrong, measured and in words."""

from lgd.checks.doors import check_arguments, check_use, look
from lgd.checks.model import check
from lgd.checks.report import Finding, Report

__all__ = ["Finding", "Report", "check", "check_arguments", "check_use", "look"]
