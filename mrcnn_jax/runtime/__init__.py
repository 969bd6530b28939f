"""The engine room: compilation, memory, and everything that depends on CPU, GPU or TPU."""
