"""``python -m mrcnn_jax COMMAND ...`` is the program ``mrcnn-jax``."""

from mrcnn_jax.commands import main

main()
