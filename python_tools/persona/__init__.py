"""Persona: models on phones that adapt to their owner without being retrained there.

Method: arXiv 2509.06552 (Persona), after arXiv 2209.05227 (DUET).
"""

__version__ = "0.1.0"
