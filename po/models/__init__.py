"""Models: loaded, made, quantized, with adapters; where a cell's training starts."""
