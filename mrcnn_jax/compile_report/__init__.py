"""What XLA makes of the training step and of inference on chips that may be absent (docs/accelerators.md).

``programs.py`` compiles for a topology of ``chips.py``, ``hlo.py`` reads the compiled program, ``report.py``
adds up its memory, time, loops and collectives, and ``text.py`` prints them.
"""
