"""White-blood-cell classification at the microscope, offline. Research use only. Not a medical device."""

__version__ = "0.1.0"

RESEARCH_USE = "Research use only. Not a medical device. Not for diagnosis: a qualified person must review the slide."
"""The sentence that stands on every output a person reads."""
